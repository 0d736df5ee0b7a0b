"""What FsspecStore makes of servers that fail, break off or refuse, and of what others leave."""

import io
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

import paramiko
import pytest

from davfusion.cache.asides import NotedAsides
from davfusion.stores.credentials import PASSWORD
from davfusion.stores.errors import UnreachableError
from davfusion.stores.fsspec import FsspecStore
from davfusion.stores.fsspec.errors import store_error
from davfusion.stores.fsspec.share import WORK
from davfusion.stores.retry import RetryPolicy
from davfusion.stores.retrying import RetryingStore
from davfusion.stores.store import (
    ABSENT,
    ConflictError,
    InterruptedException,
    StoreAccessError,
    StoreAutorizationError,
    TransientStoreError,
)
from tests.conformance import BINARY, LARGE, Source, contents, put
from tests.fsspec_servers import DavServer, FtpServer, SftpServer, end_sessions
from tests.live.serving import free_port
from tests.samples import MTIME, SizedSource, SourceError, fail
from tests.servers import fault_proxy

pytestmark = pytest.mark.live

NOW = time.time()
NO_PAUSE = RetryPolicy(sleep=lambda _: None)


def test_an_upload_whose_connection_breaks_leaves_the_old_file(
    sftp_server: SftpServer, sftp_store: FsspecStore
) -> None:
    put(sftp_store, "/file", b"old")
    with pytest.raises(TransientStoreError):
        sftp_store.store_fileobject(
            Source(LARGE, lambda: end_sessions(sftp_server.process)), "/file"
        )
    assert contents(sftp_store, "/") == {"file": b"old"}
    put(sftp_store, "/file", b"new")
    assert sftp_store.get_file("/file") == b"new"


def test_a_download_goes_on_over_a_new_connection(
    sftp_server: SftpServer, sftp_store: FsspecStore
) -> None:
    store = RetryingStore(sftp_store, NO_PAUSE)
    put(store, "/file", LARGE * 4)
    with store.open_read("/file") as stream:
        begun = stream.read(100_000)
        end_sessions(sftp_server.process)
        assert begun + stream.read() == LARGE * 4


def test_who_reads_ahead_over_a_connection_that_breaks_says_nothing(
    sftp_server: SftpServer, sftp_store: FsspecStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread of paramiko's, whose error would go to the log; the reader gets one, too."""
    threads = []
    ask = paramiko.SFTPFile._prefetch_thread  # type: ignore[attr-defined]

    def late(*windows: object) -> None:
        threads.append(threading.current_thread())
        end_sessions(sftp_server.process)
        ask(*windows)

    put(sftp_store, "/file", LARGE * 4)
    monkeypatch.setattr(paramiko.SFTPFile, "_prefetch_thread", late)
    with sftp_store.open_read("/file") as stream, pytest.raises(TransientStoreError):
        stream.read()
    for thread in threads:
        thread.join(60)
    assert threads


def test_a_session_that_has_ended_is_not_reached() -> None:
    channel = paramiko.Channel(1)
    channel.closed = True
    with pytest.raises(OSError, match="closed") as raised:
        channel.send(b"content")
    assert isinstance(store_error(raised.value, "/file"), UnreachableError)


def test_a_part_whose_connection_breaks_is_not_reached() -> None:
    """As adlfs says it."""
    error = RuntimeError("Failed to upload block")
    error.__cause__ = ConnectionResetError()
    assert isinstance(store_error(error, "/file"), UnreachableError)


def test_a_stream_that_ends_early_raises(sftp_store: FsspecStore, tmp_path: Path) -> None:
    """As it is how paramiko says that the connection has broken."""
    put(sftp_store, "/file", LARGE * 4)
    with sftp_store.open_read("/file") as stream:
        stream.read(1000)
        os.truncate(tmp_path / "a root" / "file", 5000)
        with pytest.raises(TransientStoreError):
            stream.read()


def test_links_lead_to_files_only(sftp_store: FsspecStore, tmp_path: Path) -> None:
    root, outside = tmp_path / "a root", tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_bytes(b"kept")
    put(sftp_store, "/dir/file")
    (root / "dir" / "to a file").symlink_to(root / "dir" / "file")
    (root / "dir" / "to a folder").symlink_to(outside)
    (root / "dir" / "to itself").symlink_to(root / "dir")
    (root / "dir" / "to nothing").symlink_to(root / "none")
    assert contents(sftp_store, "/dir") == {"file": b"content", "to a file": b"content"}
    assert not sftp_store.exists("/dir/to a folder")
    sftp_store.delete("/dir", is_dir=True)
    assert contents(sftp_store, "/") == {}
    assert (outside / "kept").read_bytes() == b"kept"


def test_a_host_that_is_not_known_is_refused(
    sftp_server: SftpServer, sftp_store: FsspecStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = sftp_server.home / ".ssh" / "known_hosts"
    text = known.read_text()
    known.write_text("")
    try:
        with pytest.raises(StoreAutorizationError, match="known_hosts"):
            sftp_store.check_access()
    finally:
        known.write_text(text)
    sftp_store.check_access()


def test_credentials_that_are_refused(
    sftp_server: SftpServer,
    ftp_server: FtpServer,
    dav_server: DavServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(PASSWORD, "wrong")
    for url in (ftp_server.address, dav_server.address):
        with pytest.raises(StoreAutorizationError) as caught:
            FsspecStore(url).check_access()
        assert "wrong" not in str(caught.value)
    keyless = FsspecStore(sftp_server.address, look_for_keys=False, allow_agent=False)
    with pytest.raises(StoreAutorizationError):
        keyless.check_access()


def test_a_password_from_netrc(
    dav_server: DavServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(PASSWORD, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    netrc.chmod(0o600)
    for user in ("me@", ""):
        store = FsspecStore(f"webdav://{user}127.0.0.1:{dav_server.port}")
        store.check_access()
        assert "secret" not in store.get_name()
    with pytest.raises(StoreAutorizationError):
        FsspecStore(f"webdav://other@127.0.0.1:{dav_server.port}").check_access()


@pytest.mark.parametrize("scheme", ["sftp", "ftp", "webdav"])
def test_nobody_answers(scheme: str) -> None:
    with pytest.raises(UnreachableError):
        FsspecStore(f"{scheme}://127.0.0.1:{free_port()}/folder").check_access()


def test_a_folder_that_is_not_there(
    sftp_server: SftpServer, ftp_server: FtpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PASSWORD, "secret")
    for url in (sftp_server.address, ftp_server.address):
        with pytest.raises(StoreAccessError) as caught:
            FsspecStore(f"{url}/no such/folder").get_directory_metadata("/")
        assert caught.value.status == 502


@pytest.fixture
def dav_proxy(dav_server: DavServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A proxy before Apache that can fail."""
    monkeypatch.setenv(PASSWORD, "secret")
    with fault_proxy(dav_server.port) as proxy:
        yield proxy


@pytest.fixture
def flaky_dav(dav_store: FsspecStore, dav_proxy: Any) -> Iterator[FsspecStore]:
    """The store dav_store, by way of the proxy."""
    folder = dav_store.get_name().rpartition("/")[2]
    store = FsspecStore(f"webdav://me@127.0.0.1:{dav_proxy.port}/{folder}")
    yield store
    store.reconnect()


def test_what_passes_is_tried_again(flaky_dav: FsspecStore, dav_proxy: Any) -> None:
    put(flaky_dav, "/file", b"old")
    dav_proxy.rules = [{"match": "PROPFIND", "action": "status", "headers": {"Retry-After": "7"}}]
    with pytest.raises(TransientStoreError) as caught:
        flaky_dav.get_metadata("/file")
    assert caught.value.retry_after == 7
    for rule in (
        {"action": "drop"},
        {"action": "status", "status": 502},
        {"action": "drop_after", "match": "PUT"},
    ):
        dav_proxy.rules = [rule | {"times": 1}]
        put(RetryingStore(flaky_dav, NO_PAUSE), "/file", BINARY)
        assert flaky_dav.get_file("/file") == BINARY


def test_an_upload_that_breaks_off_leaves_the_old_file(
    flaky_dav: FsspecStore, dav_proxy: Any
) -> None:
    put(flaky_dav, "/file", b"old")
    dav_proxy.rules = [{"match": "PUT", "action": "cut_request", "bytes": 100_000}]
    with pytest.raises(TransientStoreError):
        put(flaky_dav, "/file", LARGE)
    dav_proxy.rules = []
    assert contents(flaky_dav, "/") == {"file": b"old"}


@pytest.mark.parametrize("kind", [SizedSource, Source])
@pytest.mark.parametrize("server", ["dav_store", "rclone_store"])
@pytest.mark.usefixtures("no_temporary_files")
def test_a_dav_server_gets_a_source_while_it_comes(
    request: pytest.FixtureRequest, server: str, kind: type[Source]
) -> None:
    store: FsspecStore = request.getfixturevalue(server)
    stored = store.store_fileobject(kind(LARGE), "/new/folder/file", modified=MTIME)
    assert (stored["bytes"], stored["modified"]) == (len(LARGE), MTIME)
    assert store.get_file("/new/folder/file") == LARGE
    store.store_fileobject(kind(b""), "/new/empty")
    with pytest.raises(ConflictError):
        store.store_fileobject(kind(BINARY), "/new/empty", if_etag=ABSENT)
    broken = [SizedSource(LARGE, size) for size in (len(LARGE) - 1, len(LARGE) + 1)]
    for source in (*broken, kind(LARGE, at_end=fail)):
        with pytest.raises((StoreAccessError, SourceError)):
            store.store_fileobject(source, "/new/empty")
    event = threading.Event()
    with pytest.raises(InterruptedException):
        store.store_fileobject(kind(LARGE, at_end=event.set), "/new/empty", event)
    assert contents(store, "/new") == {"empty": b"", "folder": None, "folder/file": LARGE}
    with store._share.lent("/") as backend:
        left = store._share.stat_or_none(backend, f"/{WORK}")
        assert left is None or store._share.listing_of_all(backend, f"/{WORK}") == {}


@pytest.mark.parametrize("status", [411, 201])
def test_a_dav_server_that_must_be_told_the_length(
    flaky_dav: FsspecStore,
    dav_proxy: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    status: int,
) -> None:
    """It gets the source from a temporary file, and is tried once only; some say that all is well.

    Behind them is PHP, which finds chunks to be nothing.
    """
    flaky_dav.create_directory("/dir")
    dav_proxy.rules = [{"match": "PUT .*davfusion-tmp", "action": "status", "status": status}]
    for content in (LARGE, BINARY):
        flaky_dav.store_fileobject(Source(content), "/dir/file")
        assert flaky_dav.get_file("/dir/file") == content
    assert dav_proxy.rules[0]["seen"] <= 2  # once more, where the folder was missing
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with pytest.raises(FileNotFoundError):
        flaky_dav.store_fileobject(Source(LARGE), "/dir/file")
    flaky_dav.store_fileobject(SizedSource(LARGE), "/dir/file")
    assert flaky_dav.get_file("/dir/file") == LARGE


def test_a_source_that_breaks_off_is_sent_to_a_dav_server_once(
    flaky_dav: FsspecStore, dav_proxy: Any
) -> None:
    put(flaky_dav, "/file", b"old")
    dav_proxy.rules = [{"match": "PUT .*/file", "action": "cut_request", "bytes": 100_000}]
    for kind in (SizedSource, Source):
        with pytest.raises(TransientStoreError):
            RetryingStore(flaky_dav, NO_PAUSE).store_fileobject(kind(LARGE), "/file")
    assert dav_proxy.rules[0]["seen"] == 2
    assert contents(flaky_dav, "/") == {"file": b"old"}


def test_what_was_to_be_replaced_comes_back(
    flaky_dav: FsspecStore, dav_proxy: Any, caplog: pytest.LogCaptureFixture
) -> None:
    put(flaky_dav, "/d/new/file", b"new")
    put(flaky_dav, "/d/old/file", b"old")
    flaky_dav.move("/d/new", "/d/old")
    assert contents(flaky_dav, "/") == {"d": None, "d/old": None, "d/old/file": b"new"}
    put(flaky_dav, "/d/new/file", b"newer")
    is_aside = 2  # for the first, the folder that it goes to is missing
    dav_proxy.rules = [{"match": "^MOVE", "action": "drop", "skip": is_aside}]
    with pytest.raises(TransientStoreError):
        flaky_dav.move("/d/new", "/d/old")
    assert not flaky_dav.exists("/d/old")
    dav_proxy.rules = []
    flaky_dav.check_access()
    assert flaky_dav.get_file("/d/old/file") == b"new"
    assert flaky_dav.get_file("/d/new/file") == b"newer"
    assert "/d/old was being replaced when that broke off, and is back" in caplog.text
    caplog.clear()
    flaky_dav.check_access()
    assert not caplog.records


def test_what_was_replaced_does_not_come_back(
    flaky_dav: FsspecStore, dav_proxy: Any, tmp_path: Path
) -> None:
    """Nor once what others have put in its place is removed, while a minute passes."""
    put(flaky_dav, "/new/file", b"new")
    put(flaky_dav, "/old/file", b"old")
    now = 0.0
    with closing(NotedAsides(tmp_path / "notes", lambda _paths: None, lambda: now)) as asides:
        flaky_dav.note_asides(asides)
        dav_proxy.rules = [{"match": "^MOVE", "action": "drop", "skip": 2}]
        with pytest.raises(TransientStoreError):
            flaky_dav.move("/new", "/old")
        dav_proxy.rules = []
        flaky_dav.create_directory("/old")
        assert asides.abandon_unfinished(flaky_dav)
        flaky_dav.delete("/old", is_dir=True)
        now = 10.0
        assert asides.abandon_unfinished(flaky_dav)
    assert contents(flaky_dav, "/") == {"new": None, "new/file": b"new"}


def test_a_folder_that_others_make_meanwhile(flaky_dav: FsspecStore, dav_proxy: Any) -> None:
    put(flaky_dav, "/dir/first")
    dav_proxy.rules = [{"match": "PUT", "action": "status", "status": 409, "times": 1}]
    put(flaky_dav, "/dir/second", BINARY)
    assert flaky_dav.get_file("/dir/second") == BINARY


def answers(dav_proxy: Any, responses: str) -> None:
    """Have the proxy answer PROPFIND with that."""
    body = f'<D:multistatus xmlns:D="DAV:">{responses}</D:multistatus>'
    dav_proxy.rules = [{"match": "PROPFIND", "action": "status", "status": 207, "body": body}]


@pytest.mark.parametrize("responses", ["", "<D:response><D:href>/x</D:href>{}</D:response>"])
def test_an_answer_about_nothing_is_no_empty_folder(
    flaky_dav: FsspecStore, dav_proxy: Any, responses: str
) -> None:
    failed = "<D:status>HTTP/1.1 503 Service Unavailable</D:status>"
    answers(dav_proxy, responses.format(failed))
    with pytest.raises(TransientStoreError):
        flaky_dav.get_directory_metadata("/")


def test_what_the_server_does_not_tell_of_is_no_empty_file(
    flaky_dav: FsspecStore, dav_proxy: Any
) -> None:
    root = f"/{flaky_dav.get_name().rpartition('/')[2]}"
    there = "<D:propstat><D:prop><D:resourcetype>{}</D:resourcetype></D:prop>"
    there += "<D:status>HTTP/1.1 200 OK</D:status></D:propstat>"
    refused = "<D:status>HTTP/1.1 403 Forbidden</D:status>"
    members = {
        "/": there.format("<D:collection/>"),
        "/file": there.format(""),
        "/refused": refused,
        "/secret": f"<D:propstat><D:prop><D:resourcetype/></D:prop>{refused}</D:propstat>",
    }
    answers(
        dav_proxy,
        "".join(
            f"<D:response><D:href>{root}{path}</D:href>{said}</D:response>"
            for path, said in members.items()
        ),
    )
    assert flaky_dav.get_directory_metadata("/").keys() == {"file"}


def test_a_download_that_breaks_off_goes_on(flaky_dav: FsspecStore, dav_proxy: Any) -> None:
    put(flaky_dav, "/file", LARGE)
    dav_proxy.rules = [{"match": "GET", "action": "cut_response", "bytes": 99_999, "times": 2}]
    with RetryingStore(flaky_dav, NO_PAUSE).open_read("/file", 10) as stream:
        assert stream.read() == LARGE[10:]


def test_the_server_itself_refuses_another_version(
    dav_server: DavServer, dav_store: FsspecStore
) -> None:
    """Also one that came after we looked. Apache has weak ETags for what has just changed."""
    put(dav_store, "/file", b"old")
    root = dav_server.root / unquote(dav_store.get_name()).rpartition("/")[2]
    os.utime(root / "file", (NOW - 3600, NOW - 3600))
    etag = dav_store.get_metadata("/file")["etag"]

    class Racing(io.BytesIO):
        asked = 0

        def tell(self) -> int:
            self.asked += 1
            if self.asked == 1:  # between our look and the PUT
                put(dav_store, "/file", b"foreign")
            return super().tell()

    ours = Racing(b"ours")
    with pytest.raises(ConflictError, match="412"):
        dav_store.store_fileobject(ours, "/file", if_etag=etag)
    assert ours.asked == 1
    assert dav_store.get_file("/file") == b"foreign"


def test_what_a_dav_server_is_asked(flaky_dav: FsspecStore, dav_proxy: Any) -> None:
    for n in range(20):
        put(flaky_dav, f"/dir/sub/{n}")

    def asked(call: Callable[[], object]) -> dict[str, int]:
        methods = ("PROPFIND", "GET", "PUT", "DELETE", "PROPPATCH", "MKCOL")
        dav_proxy.rules = [{"match": f"^{method} ", "skip": 999} for method in methods]
        call()
        return {rule["match"][1:-1]: rule["seen"] for rule in dav_proxy.rules if rule["seen"]}

    file = io.BytesIO(BINARY)
    assert asked(lambda: flaky_dav.get_directory_metadata("/dir/sub")) == {"PROPFIND": 1}
    assert asked(lambda: flaky_dav.get_metadata("/dir/sub/7")) == {"PROPFIND": 1}
    assert asked(lambda: flaky_dav.open_read("/dir/sub/7", 2, 3).read()) == {"GET": 1}
    stored = asked(lambda: flaky_dav.store_fileobject(file, "/dir/sub/7"))
    assert stored == {"PROPFIND": 2, "PUT": 1}
    assert asked(lambda: flaky_dav.delete("/dir", is_dir=True)) == {"PROPFIND": 1, "DELETE": 1}


def test_requests_to_a_dav_server_share_a_connection(
    dav_server: DavServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(PASSWORD, "secret")
    store = FsspecStore(dav_server.address)
    folder = f"/{uuid4().hex}"
    with caplog.at_level("DEBUG", "urllib3.connectionpool"):
        store.create_directory(folder)
        put(store, f"{folder}/file")
        assert store.get_file(f"{folder}/file") == b"content"
        store.move(f"{folder}/file", f"{folder}/moved")
        store.delete(folder, is_dir=True)
        assert not store.exists(folder)
    made = [text for text in caplog.messages if "Starting new" in text or "Resetting" in text]
    assert len(made) == 1


@pytest.mark.parametrize("status", [403, 405, 501])
def test_a_dav_server_that_keeps_no_properties(
    flaky_dav: FsspecStore, dav_proxy: Any, status: int
) -> None:
    refusal = {"match": "^PROPPATCH ", "action": "status", "status": status}
    dav_proxy.rules = [refusal]
    for content in (b"new", b"over it"):
        stored = flaky_dav.store_fileobject(io.BytesIO(content), "/file", modified=1_000_000_000)
        assert flaky_dav.get_metadata("/file") == stored
        assert flaky_dav.get_file("/file") == content

"""DropboxStore: how it takes what goes wrong; the emulator of the service does it."""

import io
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from davfusion.stores.dropbox import DropboxStore, credentials
from davfusion.stores.dropbox.content import MIB
from davfusion.stores.dropbox.credentials import Credentials
from davfusion.stores.dropbox.names import ASIDE
from davfusion.stores.errors import InvalidPathValueError, UnreachableError
from davfusion.stores.retry import RetryPolicy
from davfusion.stores.retrying import RetryingStore
from davfusion.stores.store import (
    ABSENT,
    ConflictError,
    InterruptedException,
    PartialFailureError,
    ReadableStream,
    StoreAccessError,
    StoreAutorizationError,
    StoreSpaceLimitError,
    TransientStoreError,
)
from tests import servers
from tests.conformance import Source, SourceError, contents, fail, names, put, put_all, put_tree
from tests.conformance_uploads import KeptUpload, resume
from tests.samples import SizedSource, drain

pytestmark = pytest.mark.live

TWELVE = b"0123456789ab" * MIB


@pytest.fixture
def store(dropbox: Any) -> Iterator[DropboxStore]:
    """A store that sends in parts from 8 MiB on, and does not wait between tries."""
    del dropbox
    retry = RetryPolicy(first=0, sleep=lambda _: None)
    store = DropboxStore(threshold=8 * MIB, part_size=4 * MIB, retry=retry)
    yield store
    store.reconnect()


@pytest.fixture
def patient(store: DropboxStore) -> RetryingStore:
    """As the share has it."""
    return RetryingStore(store, RetryPolicy(30, first=0, sleep=lambda _: None))


@pytest.mark.parametrize(
    ("rule", "error", "status"),
    [
        ({"status": 429, "retry_after": 7}, TransientStoreError, 503),
        ({"status": 429, "reason": "too_many_write_operations"}, TransientStoreError, 503),
        ({"status": 500}, TransientStoreError, 503),
        ({"status": 503}, TransientStoreError, 503),
        ({"drop_response_after": -1}, UnreachableError, 503),
        ({"drop_response_after": 3}, TransientStoreError, 503),
        (
            {"error": {".tag": "path", "path": {".tag": "insufficient_space"}}},
            StoreSpaceLimitError,
            507,
        ),
        (
            {"error": {".tag": "path", "path": {".tag": "no_write_permission"}}},
            StoreAutorizationError,
            403,
        ),
        ({"error": {".tag": "user_suspended"}, "status": 401}, StoreAutorizationError, 403),
        ({"error": {".tag": "nobody_knows"}}, StoreAccessError, 502),
    ],
)
def test_errors(
    store: DropboxStore,
    dropbox: Any,
    rule: dict[str, Any],
    error: type[StoreAccessError],
    status: int,
) -> None:
    dropbox.control(faults=[{"endpoint": "files/create_folder_v2", **rule}])
    with pytest.raises(error) as caught:
        store.create_directory("/dir")
    assert caught.value.status == status
    if isinstance(caught.value, TransientStoreError):
        assert caught.value.retry_after == (
            rule.get("retry_after", 1) if "429" in str(rule) else None
        )


def test_a_missing_permission_is_named(store: DropboxStore, dropbox: Any, monkeypatch: Any) -> None:
    scopes = ["account_info.read", "files.metadata.read"]
    token = dropbox.add_token("sl.u.reads-metadata-only", scopes)
    monkeypatch.setenv("DAVFUSION_DROPBOX_TOKEN", token)
    assert store.get_directory_metadata("/") == {}
    with pytest.raises(StoreAutorizationError, match=r"files\.content\.write.*app console"):
        put(store, "/file")


def test_no_secret_is_in_an_error(store: DropboxStore, dropbox: Any) -> None:
    for rule in (
        {"status": 401, "error": {".tag": "invalid_access_token"}},
        {"drop_response_after": -1},
    ):
        dropbox.control(faults=[rule])
        with pytest.raises(StoreAccessError) as caught:
            store.get_metadata("/file")
        assert dropbox.token not in repr(caught.value)


def test_a_folder_that_is_not_there(dropbox: Any) -> None:
    del dropbox
    store = DropboxStore("/none")
    with pytest.raises(StoreAccessError, match="no folder /none") as caught:
        store.check_access()
    assert caught.value.status == 502
    for question in (store.get_directory_metadata, lambda path: list(store.walk_metadata(path))):
        with pytest.raises(StoreAccessError) as caught:
            question("/")
        assert caught.value.status == 502  # a client that takes it for empty would delete all
    store.reconnect()


def test_a_body_that_breaks_off_is_no_end(store: DropboxStore, dropbox: Any) -> None:
    put(store, "/file", TWELVE[:MIB])
    dropbox.control(faults=[{"endpoint": "files/download", "drop_response_after": 300_000}])
    for size in (-1, 100_000):
        with store.open_read("/file") as stream, pytest.raises(TransientStoreError):
            drain(stream, size)


@pytest.mark.parametrize("size", [-1, 100_000, MIB])
def test_bytes_that_are_not_those_of_the_file(store: DropboxStore, dropbox: Any, size: int) -> None:
    put(store, "/file", TWELVE[:MIB])
    dropbox.emulator.store.lookup("/file").data = TWELVE[1 : MIB + 1]
    with (
        store.open_read("/file") as stream,
        pytest.raises(TransientStoreError, match="other bytes"),
    ):
        drain(stream, size)


@pytest.mark.parametrize("content", [b"small", TWELVE], ids=len)
def test_bytes_that_are_not_those_that_were_sent(
    store: DropboxStore, dropbox: Any, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    keep = type(dropbox.emulator.store).put

    def corrupt(kept: Any, commit: Any, data: bytes, digest: str) -> Any:
        del digest
        return keep(kept, commit, data[:-1] + b"?", "0" * 64)

    monkeypatch.setattr(type(dropbox.emulator.store), "put", corrupt)
    with pytest.raises(TransientStoreError, match="other bytes"):
        put(store, "/file", content)


@pytest.mark.parametrize(
    "rule",
    [
        {"endpoint": "files/upload_session/append_v2", "skip": 1, "status": 503},
        {"endpoint": "files/upload_session/append_v2", "skip": 1, "drop_request_after": MIB},
        {"endpoint": "files/upload_session/finish_batch_v2", "status": 500},
    ],
)
def test_a_failed_upload_changes_nothing(
    store: DropboxStore, dropbox: Any, rule: dict[str, Any]
) -> None:
    put(store, "/file", b"old")
    dropbox.control(faults=[rule])
    with pytest.raises(TransientStoreError):
        put(store, "/file", TWELVE)
    assert store.get_file("/file") == b"old"


def test_a_source_that_breaks_off_in_parts(store: DropboxStore) -> None:
    class Breaking(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 7 * MIB:
                raise SourceError
            return super().read(size)

    with pytest.raises(SourceError):
        store.store_fileobject(Breaking(TWELVE), "/file")
    with pytest.raises(SourceError):
        store.store_fileobject(Source(TWELVE, fail), "/file")
    assert not store.exists("/file")


@pytest.mark.parametrize("kind", [SizedSource, Source])
@pytest.mark.usefixtures("no_temporary_files")
def test_a_large_source_is_sent_while_it_comes(
    store: DropboxStore, dropbox: Any, kind: type[Source]
) -> None:
    """A part that fails is sent again, for the source cannot be rewound."""
    dropbox.control(
        faults=[
            {"endpoint": ".*append_v2", "skip": 1, "times": 1, "status": 503},
            {"endpoint": ".*append_v2", "skip": 2, "times": 1, "drop_request_after": MIB},
        ]
    )
    stored = store.store_fileobject(kind(TWELVE), "/file")
    assert stored == store.get_metadata("/file")
    assert store.get_file("/file") == TWELVE
    broken = [SizedSource(TWELVE, size) for size in (len(TWELVE) - 1, len(TWELVE) + 1)]
    for source in (*broken, kind(TWELVE, at_end=fail)):
        with pytest.raises((StoreAccessError, SourceError)):
            store.store_fileobject(source, "/file")
    assert store.get_file("/file") == TWELVE


def test_interrupting_an_upload_in_parts(store: DropboxStore) -> None:
    event = threading.Event()

    class Interrupting(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 7 * MIB:
                event.set()
            return super().read(size)

    with pytest.raises(InterruptedException):
        store.store_fileobject(Interrupting(TWELVE), "/file", event)
    assert not store.exists("/file")


def parts_sent(dropbox: Any) -> int:
    """Parts that have been acknowledged since the log was emptied."""
    calls = [call for call in dropbox.report()["log"] if not call["fate"]]
    return sum(c["endpoint"].endswith("append_v2") and c["status"] == 200 for c in calls)


def test_parts_that_were_sent_are_not_sent_again(store: DropboxStore, dropbox: Any) -> None:
    upload = KeptUpload()
    dropbox.control(faults=[{"endpoint": ".*append_v2", "skip": 2, "status": 503}])
    with pytest.raises(TransientStoreError):
        resume(store, "/file", TWELVE, upload)
    assert (parts_sent(dropbox), upload.progress) == (2, 0)
    dropbox.control(reset="faults")
    dropbox.control(reset="log")
    later = KeptUpload(upload.token)
    assert resume(store, "/file", TWELVE, later)["bytes"] == len(TWELVE) == later.progress
    assert parts_sent(dropbox) == 1
    assert store.get_file("/file") == TWELVE


@pytest.mark.parametrize("endpoint", [".*append_v2", ".*finish_batch_v2"])
def test_an_answer_that_was_lost(store: DropboxStore, dropbox: Any, endpoint: str) -> None:
    """Of the last part, or of the commit: what Dropbox has done is taken for done."""
    upload = KeptUpload()
    skipped = 2 if "append" in endpoint else 0
    lost = {"endpoint": endpoint, "skip": skipped, "times": 1, "drop_response_after": -1}
    dropbox.control(faults=[lost])
    with pytest.raises(TransientStoreError):
        resume(store, "/file", TWELVE, upload)
    dropbox.control(reset="log")
    stored = resume(store, "/file", TWELVE, KeptUpload(upload.token))
    assert parts_sent(dropbox) == 0
    assert store.get_metadata("/file") == stored
    assert store.get_file("/file") == TWELVE


def test_a_session_that_has_expired(store: DropboxStore, dropbox: Any) -> None:
    upload = KeptUpload()
    dropbox.control(faults=[{"endpoint": ".*finish_batch_v2", "times": 1, "status": 503}])
    with pytest.raises(TransientStoreError):
        resume(store, "/file", TWELVE, upload)
    dropbox.emulator.sessions.clear()
    with pytest.raises(TransientStoreError, match="expired"):
        resume(store, "/file", TWELVE, upload)
    assert upload.token is None
    resume(store, "/file", TWELVE, upload)
    assert store.get_file("/file") == TWELVE


def test_writes_of_many_threads_do_not_clash(store: DropboxStore, dropbox: Any) -> None:
    """Where any two at the same time are refused."""
    dropbox.control(settings={"contention_rate": 1.0, "contention_as": "mixed"})
    put_all(store, [f"/dir/{number}" for number in range(60)])
    assert len(names(store, "/dir")) == 60


def test_a_storm_of_refusals(patient: RetryingStore, dropbox: Any) -> None:
    dropbox.control(
        faults=[
            {"rate": 0.15, "status": 429},
            {"rate": 0.1, "status": 500},
            {"rate": 0.05, "drop_response_after": 5},
        ]
    )
    files = [f"/dir/{number}" for number in range(40)]
    put_all(patient, files)
    assert names(patient, "/dir") == {str(number) for number in range(40)}
    assert [patient.get_file(path) for path in files] == [path.encode() for path in files]
    patient.delete_many(files[:30])
    dropbox.control(reset="faults")
    assert len(names(patient, "/dir")) == 10


def test_the_pause_that_dropbox_asks_for(store: DropboxStore, dropbox: Any) -> None:
    pauses: list[float] = []
    patient = RetryingStore(store, RetryPolicy(first=0, sleep=pauses.append))
    dropbox.control(faults=[{"times": 2, "status": 429, "retry_after": 9}])
    put(patient, "/file")
    assert pauses == [9, 9]


def test_a_full_dropbox(store: DropboxStore, dropbox: Any) -> None:
    dropbox.control(settings={"quota": 1000})
    put(store, "/file", b"x" * 600)
    with pytest.raises(StoreSpaceLimitError) as caught:
        put(store, "/other", b"x" * 600)
    assert caught.value.status == 507
    with pytest.raises(StoreSpaceLimitError):
        store.duplicate("/file", "/copy")
    assert (store.get_used_space(), store.get_free_space(), store.get_overall_space()) == (
        600,
        400,
        1000,
    )
    assert contents(store, "/") == {"file": b"x" * 600}


def test_a_listing_whose_cursor_is_reset_begins_again(patient: RetryingStore, dropbox: Any) -> None:
    dropbox.control(settings={"default_page": 10})
    put_all(patient, [f"/dir/{number}" for number in range(30)])
    reset = {"endpoint": "files/list_folder/continue", "times": 1, "error": {".tag": "reset"}}
    dropbox.control(faults=[reset], settings={"short_pages": 0.5})
    assert len(names(patient, "/dir")) == 30
    dropbox.control(faults=[reset])
    assert sum(1 for _ in patient.walk_metadata("/")) == 31


def test_many_files_of_which_some_cannot_be_deleted(
    store: DropboxStore, dropbox: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [f"/dir/{number}" for number in range(30)]
    put_all(store, files)
    kept, refusal = dropbox.store, servers.testing_program("dropbox_emulator").ApiFail
    tag = {".tag": "path_write", "path_write": {".tag": "no_write_permission"}}

    def delete(path: str, parent_rev: str | None = None) -> Any:
        if path.endswith("/7"):
            raise refusal(tag)
        return type(kept).delete(kept, path, parent_rev)

    monkeypatch.setattr(kept, "delete", delete)
    with pytest.raises(PartialFailureError) as caught:
        store.delete_many([*files, "/dir/none", "/none/file"])
    assert {path: type(e) for path, e in caught.value.failures.items()} == {
        "/dir/7": StoreAutorizationError
    }
    assert names(store, "/dir") == {"7"}


def test_a_folder_of_more_entries_than_dropbox_deletes_at_once(
    store: DropboxStore, dropbox: Any
) -> None:
    put_all(store, [f"/dir/{number % 3}/{number}" for number in range(40)])
    dropbox.control(settings={"max_relocation": 10})
    store.delete("/dir", is_dir=True)
    assert names(store, "/") == set()


@pytest.mark.parametrize("endpoint", ["files/move_v2", "files/copy_v2"])
def test_what_was_to_be_replaced_comes_back(
    store: DropboxStore, dropbox: Any, endpoint: str
) -> None:
    put_tree(store, "/src", {"file": b"new"})
    put_tree(store, "/dst", {"file": b"old"})
    skip = 2 if endpoint == "files/move_v2" else 1
    dropbox.control(faults=[{"endpoint": endpoint, "skip": skip, "times": 1, "status": 503}])
    transfer = store.move if endpoint == "files/move_v2" else store.duplicate
    with pytest.raises(TransientStoreError):
        transfer("/src", "/dst")
    assert contents(store, "/") == {
        "src": None,
        "src/file": b"new",
        "dst": None,
        "dst/file": b"old",
    }
    transfer("/src", "/dst")
    assert store.get_file("/dst/file") == b"new"


@pytest.mark.parametrize("dst", ["/new", "/SRC", "/file", "/dir"])
@pytest.mark.parametrize("lost", [-1, 20])
def test_a_move_whose_answer_was_lost(
    patient: RetryingStore, dropbox: Any, dst: str, lost: int
) -> None:
    put(patient, "/src", b"moved")
    put(patient, "/file", b"old")
    put(patient, "/dir/file", b"old")
    rule = {"endpoint": "files/move_v2", "times": 1, "drop_response_after": lost}
    dropbox.control(faults=[{**rule, "skip": skip} for skip in range(3)])
    patient.move("/src", dst)
    assert patient.get_file(dst) == b"moved"
    assert names(patient, "/") == {"src", "file", "dir", dst[1:]} - {"src"}


def test_what_another_device_stores_in_the_source_of_a_move_stays(
    store: DropboxStore, dropbox: Any
) -> None:
    put(store, "/src", b"first")
    put(store, "/dst", b"old")
    read = store.open_read

    def read_late(path: str, *args: Any, **given: Any) -> ReadableStream:
        stream = read(path, *args, **given)
        dropbox.other.put("/src", b"second")
        return stream

    store.open_read = read_late  # type: ignore[method-assign] # a slow download
    with pytest.raises(TransientStoreError):
        store.move("/src", "/dst")
    assert contents(store, "/") == {"src": b"second", "dst": b"first"}


@pytest.mark.parametrize("name", ["ΦΑΚΕΛΟΣ", "İstanbul"])
def test_a_walk_enters_folders_whatever_dropbox_makes_of_their_names(
    store: DropboxStore, name: str
) -> None:
    put(store, f"/{name}/{name}/file", b"content")
    found = {path for path, _ in store.walk_metadata(f"/{name}")}
    assert found == {f"/{name}/{name}", f"/{name}/{name}/file"}
    assert len(list(store.walk_metadata("/"))) == 3


def test_another_login_is_another_share(
    store: DropboxStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del store
    token = credentials.find().access_token
    monkeypatch.delenv(credentials.TOKEN)
    login = tmp_path / "login.json"
    credentials.keep(Credentials(token, account="first@example.com"), login)
    share = DropboxStore(token_file=login)
    put(share, "/file", b"content")
    credentials.keep(Credentials(token, account="second@example.com"), login)
    share.reconnect()
    with pytest.raises(StoreAutorizationError, match=r"second@example\.com"):
        share.get_metadata("/file")
    share.reconnect()


@pytest.mark.parametrize("content", [b"ours", TWELVE], ids=len)
def test_a_conflict_with_another_device(store: DropboxStore, dropbox: Any, content: bytes) -> None:
    base = put(store, "/file", b"base")["etag"]
    dropbox.other.put("/file", b"theirs")
    for stale in (base, ABSENT):
        with pytest.raises(ConflictError):
            put(store, "/file", content, if_etag=stale)
    dropbox.other.delete("/file")
    with pytest.raises(ConflictError):
        put(store, "/file", content, if_etag=base)
    assert names(store, "/") == set()


@pytest.mark.parametrize(
    "name", ["a\\b", "end ", "end\t", "x" * 256, "Desktop.ini", ".DS_Store", "a\x7f", ASIDE]
)
def test_names_that_are_refused(store: DropboxStore, dropbox: Any, name: str) -> None:
    put(store, "/file")
    dropbox.control(reset="log")
    for write in (put, DropboxStore.create_directory, DropboxStore.require_storable):
        with pytest.raises(InvalidPathValueError, match="Dropbox takes no name"):
            write(store, f"/{name}/below")
    for transfer in (store.move, store.duplicate):
        with pytest.raises(InvalidPathValueError, match="Dropbox takes no name"):
            transfer("/file", f"/{name}")
    assert dropbox.report()["log"] == []
    assert not store.exists(f"/{name}")
    store.delete(f"/{name}")


def test_threads_may_read_while_others_write(store: DropboxStore) -> None:
    put(store, "/file", TWELVE)
    with ThreadPoolExecutor(4) as pool:
        reading = [pool.submit(store.get_file, "/file") for _ in range(3)]
        writing = [pool.submit(put, store, f"/{number}", TWELVE) for number in range(2)]
        assert all(each.result() == TWELVE for each in reading)
        assert all(each.result()["bytes"] == len(TWELVE) for each in writing)

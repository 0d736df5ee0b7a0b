"""The commands about caches as users run them, beside a real server and without one."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from davfusion.cache.folder import CacheFolder
from davfusion.cache.outbox import Outbox
from davfusion.cache.pending import SMALL
from davfusion.commands.caches import Selection, chosen_caches
from davfusion.config import ShareConfig
from davfusion.share import ShareError
from davfusion.share_note import note_share, read_note
from davfusion.stores.store import StoreSpaceLimitError
from tests.live.serving import Serving, free_port, serving, started
from tests.servers import S3Server, fault_proxy
from tests.test_cli import environment, give_keys

__all__ = ["environment"]
live = pytest.mark.live
DAVFUSION = (sys.executable, "-m", "davfusion")
LATER = ("--write-mode", "back", "--write-back-delay", "600")


class Share:
    """A folder that is served with write-back, and the cache between."""

    def __init__(self, tmp_path: Path) -> None:
        self.files = tmp_path / "files"
        self.files.mkdir()
        self._place = tmp_path / "server"
        self._place.mkdir()
        self.caches = self._place / "cache"

    @contextmanager
    def served(self, target: str | None = None) -> Iterator[Serving]:
        with serving(target or str(self.files), self._place, *LATER) as server:
            yield server

    def folder(self) -> CacheFolder:
        (path,) = self.caches.iterdir()
        return CacheFolder(self.caches, path.name)

    def run(self, *arguments: object) -> "subprocess.CompletedProcess[str]":
        command = [*DAVFUSION, *map(str, arguments), "--cache-dir", str(self.caches)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def status(self) -> dict[str, Any]:
        (found,) = json.loads(self.run("status", "--json").stdout)["caches"]
        return dict(found)

    def stored(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.files.iterdir() if path.is_file()}

    def fail(self) -> None:
        """Have what waits fail for good."""
        journal = self.folder().journal(0)
        outbox = Outbox(journal, self.folder().spool)
        with journal.database.transaction() as db:
            db.execute("UPDATE pending SET due = 0")
        for row in outbox.take({SMALL: 100, "large": 0, "deletions": 0}):
            outbox.failed(row, StoreSpaceLimitError("the quota is used up"))
        journal.close()


@pytest.fixture
def share(tmp_path: Path, environment: None) -> Share:
    return Share(tmp_path)


def upload(server: Serving, name: str, content: bytes = b"content") -> None:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("PUT", f"/{name}", content)
    assert connection.getresponse().status == 201
    connection.close()


@live
def test_beside_a_server(share: Share) -> None:
    with share.served() as server:
        for name in ("a", "b"):
            upload(server, name)
        assert share.stored() == {}
        found = share.status()
        assert found["target"] == str(share.files)
        assert found["in_use"]
        assert found["pid"] == server.process.pid
        assert found["pending"]["files"] == 2
        assert found["pending"]["bytes"] == found["spool_bytes"] == 14
        assert "2 files; 14 B" in share.run("status", share.files).stdout
        assert share.run("check").returncode == 0
        assert share.run("check", "--repair").returncode == 0
        assert share.run("cache", "clear").returncode == 0
        ended = share.run("drain")
        assert (ended.returncode, ended.stderr) == (0, "")
        assert "the store has everything" in ended.stdout
        assert share.stored() == {"a": b"content", "b": b"content"}
        assert share.status()["pending"]["files"] == 0
        assert share.run("drain").returncode == 0


@live
def test_without_a_server(share: Share) -> None:
    with share.served() as server:
        upload(server, "a")
        server.kill()
    assert not share.status()["in_use"]
    assert "not running" in share.run("status").stdout
    assert share.run("check").returncode == 0
    assert "0 B" in share.run("cache", "clear").stdout
    assert share.run("drain", share.files).returncode == 0
    assert share.stored() == {"a": b"content"}
    with share.served():
        assert share.status()["in_use"]


@live
def test_what_failed_is_told_and_tried_again(share: Share) -> None:
    with share.served() as server:
        upload(server, "a")
        upload(server, "b")
        server.kill()
    share.fail()
    assert share.run("status").returncode == 1
    ended = share.run("drain")
    assert ended.returncode == 1
    assert "/a: the quota is used up" in ended.stdout
    assert "davfusion retry" in ended.stdout
    assert "1 change" in share.run("retry", "--path", "/a").stdout
    assert share.status()["failed"]["count"] == 1
    assert share.run("retry", "--path", "a").returncode == 2
    assert "nothing has failed" in share.run("retry", "--path", "/none").stdout
    with share.served():  # a start tries again what failed
        assert share.run("drain").returncode == 0
        assert "nothing has failed" in share.run("retry").stdout
    assert share.stored().keys() == {"a", "b"}


@live
def test_a_drain_that_is_left_alone_by_its_server_goes_on_by_itself(share: Share) -> None:
    with share.served() as server:
        upload(server, "a")
        folder = share.folder()
        journal = folder.journal(0)
        with journal.database.transaction() as db:  # the mover waits for whoever holds it
            db.execute("INSERT INTO sending VALUES ('/a')")
        journal.close()
        command = [*DAVFUSION, "drain", "--cache-dir", str(share.caches)]
        draining = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert draining.stdout is not None
        assert "1 change" in draining.stdout.readline()
        server.kill()
        printed = draining.communicate(timeout=60)[0]
    assert draining.returncode == 0, printed
    assert share.stored() == {"a": b"content"}


@live
def test_a_store_that_does_not_answer(
    share: Share, s3_server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_keys(monkeypatch, s3_server)
    port = int(s3_server.endpoint.rpartition(":")[2])
    with fault_proxy(port) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        with share.served(f"s3://{bucket}/prefix") as server:
            upload(server, "a")
            server.kill()
        monkeypatch.delenv("AWS_ENDPOINT_URL")  # the note has it
        proxy.rules = [{"action": "hang"}]
        start = time.monotonic()
        ended = share.run("drain", "--timeout", "3")
        assert time.monotonic() - start < 20, "some process still has the output open"
        assert ended.returncode == 1
        assert "does not answer" in ended.stdout
        assert "1 change (7 B) not sent yet" in ended.stdout
    command = [*DAVFUSION, "drain", "--cache-dir", str(share.caches)]
    draining = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert draining.stdout is not None
    assert "1 change" in draining.stdout.readline()
    draining.send_signal(signal.SIGINT)
    assert "not sent yet" in draining.communicate(timeout=30)[0]
    assert draining.returncode == 1
    assert not share.folder().is_in_use()
    assert share.status()["pending"]["files"] == 1
    ended = share.run(
        "drain",
        f"s3://{bucket}/prefix",
        "--cache-id",
        share.folder().path.name,
        "--s3-endpoint-url",
        s3_server.endpoint,
    )
    assert ended.returncode == 0, ended
    stored: Any = s3_server.client().get_object(Bucket=bucket, Key="prefix/a")
    assert stored["Body"].read() == b"content"


@live
def test_lost_writes_come_back(share: Share) -> None:
    with share.served() as server:
        upload(server, "a")
        server.kill()
    folder = share.folder()
    for path in folder.path.glob("journal.sqlite*"):
        path.unlink()
    with share.served():
        ended = share.run("status")
        assert ended.returncode == 1
        assert "1 file: run `davfusion check`" in ended.stdout
        ended = share.run("check")
        assert ended.returncode == 1
        assert "it holds /a, 7 bytes" in ended.stdout
        ended = share.run("check", "--repair")
        assert ended.returncode == 0
        assert "repaired" in ended.stdout
        assert share.run("drain").returncode == 0
    assert share.stored() == {"a": b"content"}


def test_a_journal_that_cannot_be_read(share: Share) -> None:
    folder = CacheFolder(share.caches, "broken")
    folder.claim()
    folder.release()
    folder.journal_path.write_bytes(b"no database at all " * 1000)
    for command in ("status", "drain", "retry", "check"):
        ended = share.run(command)
        assert ended.returncode == 1
        assert "davfusion check" in ended.stdout, command
        assert not ended.stderr
    assert "not a database" in share.status()["problem"]


def test_nobody_knows_whose_cache_it_is(share: Share) -> None:
    folder = CacheFolder(share.caches, "unknown")
    folder.claim()
    journal = folder.journal(0)
    with journal.change() as change:
        change.make_directories(["/new"])
    folder.release()
    journal.close()
    (folder.path / "share.json").write_text("{}")
    assert share.status()["target"] is None
    ended = share.run("drain")
    assert ended.returncode == 1
    assert "drain TARGET --cache-id unknown" in ended.stdout
    assert share.run("drain", "memory:", "--cache-id", "unknown").returncode == 1
    assert share.run("drain", share.files, "--cache-id", "unknown").returncode == 0
    assert (share.files / "new").is_dir()


@live
def test_a_configuration_file_names_the_caches(share: Share, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    port, file = free_port(), tmp_path / "davfusion.yaml"
    late = "write_mode: back, write_back_delay: 600"
    file.write_text(
        f"port: {port}\ncache_dir: {share.caches}\nshares:\n"
        f"  one: {{target: files, {late}}}\n  two: {{target: other, {late}}}\n"
    )
    config = ("--config", str(file))

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [*DAVFUSION, *arguments, *config]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    command = [*DAVFUSION, "serve", *config]
    server = Serving(command, os.environ, port, tmp_path / "log", share.caches)
    with started(server):
        upload(server, "one/a")
        upload(server, "two/b")
    found = json.loads(run("status", "--json").stdout)["caches"]
    assert [(each["share"], each["pending"]["files"]) for each in found] == [("one", 1), ("two", 1)]
    assert run("status").stdout.splitlines()[0] == f"one: {share.files}"
    assert run("drain", "two").returncode == 0
    assert (tmp_path / "other" / "b").read_bytes() == b"content"
    assert share.stored() == {}
    assert run("drain").returncode == 0
    assert share.stored() == {"a": b"content"}
    assert "two: " in run("check", "two").stdout
    missing = run("status", "three")
    assert (missing.returncode, "one, two" in missing.stderr) == (1, True)


def test_caches_that_are_not_there(share: Share) -> None:
    assert share.run("status").stdout == "There are no caches.\n"
    for arguments in ((share.files,), ("--cache-id", "none")):
        ended = share.run("status", *arguments)
        assert ended.returncode == 1
        assert len(ended.stderr.splitlines()) == 1
        assert "--cache-dir" in ended.stderr


@pytest.mark.parametrize("command", [("drain",), ("retry",), ("check",), ("cache", "clear")])
def test_nothing_is_said_of_caches_that_are_elsewhere(
    share: Share, command: tuple[str, ...]
) -> None:
    """Who looks in the wrong folder must not take it that the store has everything."""
    ended = share.run(*command)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "there are no caches: check --cache-dir" in ended.stderr


def test_caches_of_another_user(share: Share) -> None:
    share.caches.mkdir(mode=0o000)
    selection = Selection(None, None, share.caches, None, None, None)
    user = os.geteuid()
    if user == 0:  # who may look everywhere
        os.seteuid(65534)
    try:
        with pytest.raises(ShareError, match=r"Permission denied.*run this as the server's user"):
            chosen_caches(selection)
    finally:
        os.seteuid(user)


def test_the_note_of_a_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = CacheFolder(tmp_path, "id")
    folder.prepare()
    assert read_note(folder.path) is None
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    options = {"path_style": True, "secret_access_key": "secret"}
    config = ShareConfig("s3://bucket", options, cache_size=7)
    note_share(folder, config, "photos")
    note = read_note(folder.path)
    assert note is not None
    assert note.name == "photos"
    assert note.options == {"path_style": True, "endpoint_url": "http://127.0.0.1:9"}
    assert note.config(folder.path).cache_size == 7
    assert note.config(folder.path).cache_id == "id"
    file = folder.path / "share.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    monkeypatch.chdir(tmp_path)
    note_share(folder, ShareConfig("some/folder"))
    note = read_note(folder.path)
    assert note is not None
    assert note.target == str(tmp_path / "some" / "folder")
    for damage in ("", "[]", '{"target": 1', '{"target": "a"}'):
        file.write_text(damage)
        assert read_note(folder.path) is None

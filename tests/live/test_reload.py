"""SIGHUP: users, rights and shares change, and no request under way is dropped."""

import hashlib
import os
import signal
import sys
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection, HTTPException, RemoteDisconnected
from pathlib import Path

import bcrypt
import pytest

from tests.live.drive import eventually
from tests.live.serving import Serving, free_port, started

pytestmark = pytest.mark.live
PATIENCE = 20.0
USERS = {
    name: bcrypt.hashpw(f"{name}'s".encode(), bcrypt.gensalt(4)).decode()
    for name in ("alice", "bob", "carol")
}
BIG = hashlib.sha256(b"seed").digest() * 700_000


class Server:
    """A server of a configuration file, and its clients."""

    def __init__(self, folder: Path, http_name: str) -> None:
        self.folder = folder
        self.file = folder / "davfusion.yaml"
        self._port = free_port()
        self._top = f"port: {self._port}\nserver: {http_name}\ncache_dir: cache\n"
        command = [sys.executable, "-m", "davfusion", "serve", "--config", str(self.file)]
        self.serving = Serving(command, os.environ, self._port, folder / "log", folder / "cache")

    def write(self, *shares: str, users: tuple[str, ...] = ("alice", "bob")) -> None:
        """A configuration with these users and lines of shares; makes their folders."""
        lines = [f"  {user}: {USERS[user]}" for user in users]
        text = self._top + "\n".join(["users:", *lines, "shares:", *(f"  {s}" for s in shares)])
        for name in "abc":
            (self.folder / name).mkdir(exist_ok=True)
        self.file.write_text(text + "\n")

    def reload(self, *, refused: bool = False) -> None:
        """Return when it has read the file again."""
        said = "not reloaded" if refused else "INFO reloaded"
        before = self.count(said)
        self.serving.process.send_signal(signal.SIGHUP)
        assert eventually(lambda: self.count(said) > before), self.log()

    def count(self, said: str) -> int:
        return self.log().count(said)

    def log(self) -> str:
        return self.serving.log.read_text()

    def connect(self) -> HTTPConnection:
        return HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)

    def ask(
        self, user: str, path: str, method: str = "GET", body: bytes = b""
    ) -> tuple[int, bytes]:
        with closing(self.connect()) as connection:
            return ask(connection, user, path, method, body)

    def status(self, user: str, path: str) -> int:
        return self.ask(user, path)[0]


def credentials(user: str) -> dict[str, str]:
    return {"Authorization": "Basic " + b64encode(f"{user}:{user}'s".encode()).decode()}


def ask(
    connection: HTTPConnection, user: str, path: str, method: str = "GET", body: bytes = b""
) -> tuple[int, bytes]:
    connection.request(method, path, body, credentials(user))
    answer = connection.getresponse()
    return answer.status, answer.read()


@pytest.fixture
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    """On each HTTP server for the tests that ask for it, else on cheroot."""
    on_each = "http_name" in request.fixturenames
    server = Server(tmp_path, request.getfixturevalue("http_name") if on_each else "cheroot")
    server.write("a: {target: a, write: [alice], read: [bob]}")
    (tmp_path / "a" / "f").write_bytes(b"content")
    (tmp_path / "a" / "big").write_bytes(BIG)
    with started(server.serving):
        yield server


def test_users_and_rights_change(server: Server) -> None:
    for _ in range(3):  # so that the answer is one that is given again
        assert server.status("bob", "/a/f") == 200
    assert server.status("carol", "/a/f") == 401
    server.write("a: {target: a, write: [alice, carol]}", users=("bob", "carol"))
    server.reload(refused=True)  # there is no alice
    assert "shares.a.write.0: there is no user 'alice'" in server.log()
    assert server.status("bob", "/a/f") == 200
    server.write("a: {target: a, write: [carol]}", users=("bob", "carol"))
    server.reload()
    assert eventually(lambda: server.status("bob", "/a/f") == 404)
    asked = [server.status(user, "/a/f") for user in ("alice", "bob", "bob", "carol", "carol")]
    assert asked == [401, 404, 404, 200, 200]
    assert eventually(lambda: len(server.serving.pids()) == 3)  # the old ones have ended
    assert not any(hashed in server.log() for hashed in USERS.values())


def test_shares_come_and_go(server: Server) -> None:
    server.write("a: {target: a}", "b: {target: b}", "m: {target: 'memory:'}")
    server.reload()
    assert eventually(lambda: server.ask("bob", "/b/new", "PUT", b"1")[0] == 201)
    assert server.ask("bob", "/m/new", "PUT", b"2")[0] == 201
    server.write("b: {target: b}", "m: {target: 'memory:'}", "c: {target: no-such-folder}")
    server.reload(refused=True)
    assert "share c:" in server.log()
    assert server.status("bob", "/a/f") == 200
    server.write("c: {target: b}", "m: {target: 'memory:'}")
    server.reload()
    assert eventually(lambda: server.status("bob", "/b/new") == 404)
    asked = [server.status("bob", path) for path in ("/a/f", "/b/new", "/c/new", "/m/new")]
    assert asked == [404, 404, 200, 200]


def test_requests_under_way_are_finished(server: Server, http_name: str) -> None:
    with closing(server.connect()) as upload, closing(server.connect()) as download:
        upload.putrequest("PUT", "/a/slow")
        for name, value in credentials("alice").items():
            upload.putheader(name, value)
        upload.putheader("Content-Length", "6")
        upload.endheaders(b"abc")
        download.request("GET", "/a/big", headers=credentials("alice"))
        answer = download.getresponse()
        got = answer.read(100_000)
        server.write("b: {target: b}")
        server.reload()
        assert eventually(lambda: server.status("alice", "/a/f") == 404)
        upload.send(b"def")
        assert upload.getresponse().status == 201
        got += answer.read()
    assert got == BIG
    assert (server.folder / "a" / "slow").read_bytes() == b"abcdef"


def test_clients_notice_nothing_of_reloads(server: Server, http_name: str) -> None:
    """Each asks on one connection until the server says that it closes it.

    granian does not say so: there a client has to ask again, as RFC 9110 section 9.2.2 has it.
    """
    closed = (RemoteDisconnected, ConnectionError) if http_name == "granian" else ()
    is_over, failures, answers = threading.Event(), list[object](), list[int]()

    def client(path: str) -> None:
        connection = server.connect()
        while not is_over.is_set():
            try:
                answers.append(ask(connection, "alice", path)[0])
            except closed:
                connection.close()
            except (OSError, HTTPException) as error:
                failures.append(error)
                connection.close()
        connection.close()

    threads = [threading.Thread(target=client, args=(path,)) for path in ("/a/f", "/a/big") * 3]
    for thread in threads:
        thread.start()
    for _ in range(4):
        server.reload()
    is_over.set()
    for thread in threads:
        thread.join()
    assert set(answers) == {200}
    assert failures == []


def test_what_a_removed_share_has_not_sent_is_sent(server: Server) -> None:
    late = "b: {target: b, write_mode: back, write_back_delay: 3}"
    server.write("a: {target: a}", late)
    server.reload()
    assert eventually(lambda: server.status("bob", "/b/") == 200)
    assert server.ask("bob", "/b/pending", "PUT", b"acknowledged")[0] == 201
    assert not (server.folder / "b" / "pending").exists()
    server.write("a: {target: a}")
    server.reload()
    assert eventually(lambda: server.status("bob", "/b/pending") == 404)
    assert eventually((server.folder / "b" / "pending").exists)
    assert (server.folder / "b" / "pending").read_bytes() == b"acknowledged"
    server.write("a: {target: a}", late)
    server.reload()
    assert eventually(lambda: server.ask("bob", "/b/pending") == (200, b"acknowledged"))


def test_what_takes_a_restart_is_refused(server: Server) -> None:
    server.write("a: {target: a, cache_id: one}")
    server.reload()
    for line in (
        "a: {target: b, cache_id: one}",
        "a: {target: a, cache_id: one, write_mode: back}",
    ):
        server.write(line)
        server.reload(refused=True)
    server.write("a: {target: a, cache_id: one}")
    server.file.write_text(server.file.read_text().replace("port: ", "port: 1"))
    server.reload(refused=True)
    assert server.status("bob", "/a/f") == 200

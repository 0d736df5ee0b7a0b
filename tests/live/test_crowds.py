"""Many clients that are idle or slow: on each HTTP server, all others are served."""

import resource
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from tests.http_serving import Client
from tests.live.serving import Serving, serving

pytestmark = pytest.mark.live
CROWD = 1_000
SLOW = 200
LARGE = 16 << 20


@pytest.fixture(scope="module")
def server(http_name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """Two workers, which outlive each crowd."""
    with serving("memory:", tmp_path_factory.mktemp("crowds"), "--server", http_name) as running:
        assert ask(running, b"PUT", b"/file", b"0123456789") == 201
        assert ask(running, b"PUT", b"/large", bytes(LARGE)) == 201
        processes = running.pids()
        yield running
        assert running.pids() == processes
        assert ask(running, b"GET", b"/file") == 200


@pytest.fixture(autouse=True)
def many_files() -> Iterator[None]:
    """This process may have connections enough; the servers may not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2 * CROWD)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def ask(server: Serving, method: bytes, path: bytes, body: bytes = b"") -> int:
    """The status."""
    head = b"%b %b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n"
    with closing(Client(server.port)) as client:
        return client.ask(head % (method, path, len(body)) + body)


@pytest.mark.parametrize(
    ("beginning", "number"),
    [
        (b"", CROWD),
        (b"GET /file HTTP/1.1\r\nHost:", CROWD),
        (b"PUT /slow HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9000\r\n\r\nx", SLOW),
        (b"PROPFIND / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9000\r\n\r\n<", SLOW),
        (b"PUT /s HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nF", SLOW),
        (b"GET /large HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", SLOW // 2),
    ],
    ids=["idle", "heads", "uploads", "questions", "chunks", "readers"],
)
def test_the_others_are_served(server: Serving, beginning: bytes, number: int) -> None:
    with ExitStack() as stack:
        for _ in range(number):
            stack.enter_context(closing(Client(server.port))).send(beginning)
        for _ in range(4):
            assert ask(server, b"GET", b"/file") == 200
        assert ask(server, b"PUT", b"/other", b"x") in (201, 204)

"""Uploads whose connection breaks at a random point leave the old content (row C13)."""

import random
import socket

import pytest

from tests.live.drive import eventually
from tests.live.serving import Serving
from tests.spooled import sizes

pytestmark = [pytest.mark.live, pytest.mark.slow]
CUTS = 100
"""Of each kind: with Content-Length, and chunked."""
SIZE = 300_000
OLD = b"the old content"


def request(server: Serving, head: str, body: bytes = b"") -> tuple[int, dict[str, str], bytes]:
    """One request on a connection of its own: status, headers in lower case, body."""
    with socket.create_connection(("127.0.0.1", server.port), 30) as sock:
        sock.sendall(f"{head}\r\nHost: 127.0.0.1:{server.port}\r\n".encode())
        sock.sendall(f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    lines, _, content = answer.partition(b"\r\n\r\n")
    status, *headers = lines.decode().split("\r\n")
    pairs = (line.partition(": ") for line in headers)
    return int(status.split()[1]), {name.lower(): value for name, _, value in pairs}, content


def chunked(body: bytes, rng: random.Random) -> bytes:
    pieces = []
    while body:
        size = rng.randrange(1, 60_000)
        piece, body = body[:size], body[size:]
        pieces.append(b"%x\r\n%s\r\n" % (len(piece), piece))
    return b"".join(pieces) + b"0\r\n\r\n"


def cut_upload(server: Serving, framing: str, sent: bytes, *, reset: bool) -> bytes:
    """Send a part of a body, break off, and return what the server still answers."""
    with socket.create_connection(("127.0.0.1", server.port), 30) as sock:
        sock.sendall(f"PUT /f HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n".encode() + sent)
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            return b""
        sock.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: sock.recv(65536), b""))


@pytest.mark.parametrize("kind", ["length", "chunked"])
def test_the_old_content_stands(s3_share: Serving, kind: str) -> None:
    rng = random.Random(kind)
    assert request(s3_share, "PUT /f HTTP/1.1", OLD)[0] == 201
    etag = request(s3_share, "HEAD /f HTTP/1.1")[1]["etag"]
    for number in range(CUTS):
        body = rng.randbytes(SIZE)
        framing = f"Content-Length: {SIZE}"
        if kind == "chunked":
            body, framing = chunked(body, rng), "Transfer-Encoding: chunked"
        sent = body[: rng.randrange(len(body))]
        answer = cut_upload(s3_share, framing, sent, reset=number % 2 == 0)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), answer
        status, headers, content = request(s3_share, "GET /f HTTP/1.1")
        assert (status, headers["etag"], content) == (200, etag, OLD)
    assert request(s3_share, "PUT /f HTTP/1.1", b"new")[0] == 204
    assert request(s3_share, "GET /f HTTP/1.1")[2] == b"new"
    (spool,) = s3_share.cache.glob("*/spool")
    assert eventually(lambda: not sizes(spool))

"""The bytes of an answer's head, made once and sent as often as the answer is given."""

import time
from collections.abc import Iterable
from email.utils import formatdate
from functools import lru_cache
from typing import NamedTuple

from davfusion.access_log import Logged


class Head(NamedTuple):
    """A head on both sides of its date, which is that of the sending (RFC 9110 section 6.6.1)."""

    before: bytes
    after: bytes

    def then(self, body: bytes) -> bytes:
        """The head as of now, and the body."""
        return b"".join((self.before, _date(int(time.time())), self.after, body))


def make_head(status: bytes, fields: Iterable[tuple[bytes, bytes]]) -> Head:
    """The head of an answer with that status line's end; a Date among the fields is left out."""
    lines = b"".join(
        b"%b: %b\r\n" % (name, value) for name, value in fields if name.lower() != b"date"
    )
    return Head(b"HTTP/1.1 %b\r\n%bDate: " % (status, lines), b"\r\n\r\n")


@lru_cache(maxsize=2)
def _date(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()


class Answer(NamedTuple):
    """A whole answer, and what the access log says of it."""

    head: Head
    body: bytes
    logged: Logged | None

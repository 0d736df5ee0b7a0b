"""Bodies that are read while they are sent, which the SDK cannot: it takes `bytes` and holds them.

It posts by a session that it is given, and posts again once it has renewed a token.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

import dropbox
import requests

LARGEST_REQUEST: Final = 150 * 1024 * 1024
"""Bytes of one request: "must be at most 150 MiB" (UploadError.payload_too_large of the SDK)."""


class Streamed(bytes):
    """Stands for a body of `size` bytes, all that `pieces` gives each time it is called.

    It is empty itself: sent by any other session, it would be refused for its content_hash.
    """

    size: int
    pieces: Callable[[], Iterator[bytes]]
    is_answered: bool
    """Whether the last request with it has been answered, by whatever."""

    def __new__(cls, size: int, pieces: Callable[[], Iterator[bytes]]) -> "Streamed":
        self = super().__new__(cls)
        self.size, self.pieces, self.is_answered = size, pieces, False
        return self


class StreamingSession(requests.Session):
    """Posts what a Streamed stands for, with its Content-Length.

    What `pieces` raises ends the connection, so that nobody takes a part for the whole, and comes
    out; in place of an OSError a _PiecesError.
    """

    def post(self, url: Any, data: Any = None, json: Any = None, **given: Any) -> requests.Response:
        """As requests.Session.post."""
        if not isinstance(data, Streamed):
            return super().post(url, data=data, json=json, **given)
        data.is_answered = False
        answer = super().post(url, data=_Body(data) if data.size else b"", json=json, **given)
        data.is_answered = True
        return answer


class _Body:
    """What `requests` asks for its length, and urllib3 sends as it comes.

    A file would be read by 16 KiB.
    """

    def __init__(self, streamed: Streamed) -> None:
        self._streamed = streamed

    def __len__(self) -> int:
        return self._streamed.size

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._streamed.pieces()
        except OSError as error:
            # It would be taken for the connection's: after some, urllib3 waits for an answer.
            raise _PiecesError from error


class _PiecesError(Exception):
    """What is to be sent cannot be read."""


def streaming_session(connections: int) -> requests.Session:
    """The SDK's own session of so many connections, but for the bodies."""
    session, made = StreamingSession(), dropbox.create_session(connections)
    session.verify = made.verify
    for prefix, adapter in made.adapters.items():
        session.mount(prefix, adapter)
    return session

"""PieceStream: what a generator yields, as a stream."""

from collections.abc import Generator
from typing import Self

from davfusion.stores.store import COPY_BUFFER


class PieceStream:
    """Pieces of bytes as a stream; the first is asked for at once, so that its errors show now."""

    def __init__(self, pieces: Generator[bytes, None, None]) -> None:
        self._pieces = pieces
        self._piece = next(pieces, b"")
        self._at = 0

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, fewer where a piece ends; all of them for -1; b"" at the end."""
        if size < 0:
            return b"".join(iter(lambda: self.read(COPY_BUFFER), b""))
        if self._at >= len(self._piece):
            self._piece, self._at = next(self._pieces, b""), 0
        start, self._at = self._at, self._at + size
        return self._piece[start : self._at]  # no copy where that is all of it

    def close(self) -> None:
        """Stop fetching."""
        self._pieces.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

"""Which blocks of a file a range of bytes touches: pure arithmetic.

A file is cut into segments, and a segment into pieces. What is read through is kept by segment,
since few large blocks cost less than many small ones; what is picked out is kept by piece, so that
a small read fetches little more than it needs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

PIECE: Final = 32 * 1024
"""A read of 64 KiB or more touches pieces of less than twice its size."""
SEGMENT: Final = 64 * PIECE


@dataclass(frozen=True, slots=True)
class Block:
    """Bytes `start` to `end` of a file, a whole segment or a whole piece of it."""

    start: int
    end: int
    is_segment: bool

    @property
    def length(self) -> int:
        return self.end - self.start

    @property
    def name(self) -> str:
        """Distinct among all blocks of one file."""
        return f"s{self.start // SEGMENT}" if self.is_segment else f"p{self.start // PIECE}"


def segment_at(offset: int, size: int) -> Block:
    """The segment that holds byte `offset` of a file of `size` bytes."""
    start = offset - offset % SEGMENT
    return Block(start, min(start + SEGMENT, size), is_segment=True)


def pieces_of(start: int, end: int, size: int) -> Iterator[Block]:
    """The pieces that bytes `start` to `end` touch."""
    for first in range(start - start % PIECE, end, PIECE):
        yield Block(first, min(first + PIECE, size), is_segment=False)


def cut(start: int, end: int, size: int) -> Iterator[tuple[Block, int, int]]:
    """(segment, start, end) for the part of a range that each of its segments holds, in order."""
    while start < end:
        segment = segment_at(start, size)
        stop = min(end, segment.end)
        yield segment, start, stop
        start = stop

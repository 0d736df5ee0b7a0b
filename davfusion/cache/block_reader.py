"""Reading a file through the block cache: what is missing is fetched, and kept, by ranges.

The first bytes are passed on as they come. Where a reader goes on from where it was, a window of
segments ahead of it is fetched over several connections; it doubles as long as that lasts, and a
seek ends it.
"""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event
from typing import Final, Self

from davfusion.cache.block_cache import BlockCache
from davfusion.cache.blocks import SEGMENT, Block, cut, pieces_of, segment_at
from davfusion.stores.errors import StoreAccessError, TransientStoreError
from davfusion.stores.store import COPY_BUFFER, ReadableStream

RUN: Final = 4
"""Segments fetched by one request."""
MAX_WINDOW: Final = 4 * RUN
"""Segments fetched ahead of a reader at most."""
CONNECTIONS: Final = 8
CLAIM_SECONDS: Final = 20.0
"""After this long another worker's fetch is taken for dead."""
_POLL_SECONDS: Final = 0.01
_REMEMBERED: Final = 256

logger = logging.getLogger(__name__)
OpenRange = Callable[[int, int], ReadableStream]
"""(offset, length) -> the store's bytes of one version of the file."""


@dataclass(frozen=True)
class Version:
    """One version of a file, and how the store reads it."""

    path: str
    etag: str
    size: int
    open_range: OpenRange

    def key(self, block: Block) -> str:
        return f"{self.path}\0{self.etag}\0{block.name}"


class BlockReader:
    """Serves ranges of files from `cache`, or from the store into it."""

    def __init__(self, cache: BlockCache, sleep: Callable[[float], None] = time.sleep) -> None:
        self._cache = cache
        self._sleep = sleep
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._fetching: dict[str, Event] = {}
        self._positions: OrderedDict[tuple[str, str], tuple[int, int]] = OrderedDict()

    def read(self, version: Version, start: int, end: int) -> Generator[bytes, None, None]:
        """Bytes `start` to `end`, in order; `end` is at most the file's size."""
        window = self._window(version, start, end)
        goes_on = window > 0 or end == version.size
        # What was picked out is no reason to fetch more than was asked for.
        limit = version.size if goes_on else segment_at(end, version.size).start
        ahead = start
        for segment, first, last in cut(start, end, version.size):
            stop = min(limit, window * SEGMENT + last)
            ahead = self._fetch_ahead(version, max(ahead, segment.end), stop)
            yield from self._part(version, segment, first, last)
            window = min(MAX_WINDOW, max(1, 2 * window))

    def keep(self, version: Version, source: ReadableStream) -> None:
        """Keep a whole file that was just stored, read from its copy on the local disk."""
        for segment, _, _ in cut(0, version.size, version.size):
            self._cache.put(version.key(segment), _exactly(source, segment.length))

    def close(self) -> None:
        """End the fetches that have not begun."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(cancel_futures=True)  # those under way need the lock to end

    def _window(self, version: Version, start: int, end: int) -> int:
        """Segments to fetch ahead; grows with each request that goes on where the last ended."""
        who = (version.path, version.etag)
        with self._lock:
            expected, window = self._positions.pop(who, (0, 0))
            goes_on = start == expected if start else end > SEGMENT
            window = min(MAX_WINDOW, max(1, 2 * window)) if goes_on else 0
            self._positions[who] = (end, window)
            if len(self._positions) > _REMEMBERED:
                self._positions.popitem(last=False)
        return window

    def _fetch_ahead(self, version: Version, offset: int, stop: int) -> int:
        """Start to fetch the missing segments from `offset` on; returns where they end."""
        run: list[Block] = []
        if offset < stop and self._cache.make_room(SEGMENT) < SEGMENT:
            return offset  # nothing could be kept until it is read
        while offset < stop:
            segment = segment_at(offset, version.size)
            if self._reserve(version.key(segment)):
                run.append(segment)
            if run and (run[-1] != segment or len(run) == RUN):
                self._start(version, run)
                run = []
            offset = segment.end
        if run:
            self._start(version, run)
        return offset

    def _reserve(self, key: str) -> bool:
        """Whether this process has to fetch the block, and then nobody else in it does."""
        with self._lock:
            if key in self._fetching:
                return False
            self._fetching[key] = Event()
        if not self._cache.has(key):
            return True
        self._arrived(key)
        return False

    def _arrived(self, key: str) -> None:
        """The block is there, or nobody is fetching it any more."""
        with self._lock:
            arrival = self._fetching.pop(key, None)
        if arrival is not None:
            arrival.set()

    def _part(self, version: Version, segment: Block, first: int, last: int) -> Iterator[bytes]:
        data = self._known(version, segment)
        whole = (first, last) == (segment.start, segment.end)
        if data is None and whole:
            yield from self._stream(version, segment)
        elif data is None:
            yield from self._pieces(version, first, last)
        else:
            yield data if whole else _overlap(data, segment, first, last)

    def _known(self, version: Version, segment: Block) -> bytes | None:
        """A segment that is in the cache, or on its way there in this process."""
        key = version.key(segment)
        with self._lock:
            arrival = self._fetching.get(key)
        if arrival is not None:
            arrival.wait(CLAIM_SECONDS)
        return self._cache.get(key)

    def _stream(self, version: Version, segment: Block) -> Iterator[bytes]:
        """A segment's bytes as they come; then it is kept."""
        key = version.key(segment)
        data = self._await_other(key)
        if data is not None:
            yield data
            return
        gathered = bytearray()
        try:
            with version.open_range(segment.start, segment.length) as stream:
                for data in _pieces_of(stream, segment.length):
                    gathered += data
                    if len(gathered) == segment.length:
                        # Before its last bytes: a reader that has them does not come back.
                        self._cache.put(key, bytes(gathered))
                    yield data
        finally:
            self._cache.release(key)

    def _await_other(self, key: str) -> bytes | None:
        """What another reader's fetch of the block brings; None once the caller has claimed it."""
        for _ in range(int(CLAIM_SECONDS / _POLL_SECONDS)):
            if self._cache.claim(key, CLAIM_SECONDS):
                # It may have come in between.
                if (data := self._cache.get(key)) is not None:
                    self._cache.release(key)
                return data
            self._sleep(_POLL_SECONDS)
            if (data := self._cache.get(key)) is not None:
                return data
        return None

    def _pieces(self, version: Version, first: int, last: int) -> Iterator[bytes]:
        """Part of a segment: neighbouring pieces that are missing are fetched together."""
        missing: list[Block] = []
        for piece in pieces_of(first, last, version.size):
            data = self._cache.get(version.key(piece))
            if data is None:
                missing.append(piece)
                continue
            yield from self._fetch_pieces(version, missing, first, last)
            missing = []
            yield _overlap(data, piece, first, last)
        yield from self._fetch_pieces(version, missing, first, last)

    def _fetch_pieces(
        self, version: Version, pieces: list[Block], first: int, last: int
    ) -> Iterator[bytes]:
        if not pieces:
            return
        length = pieces[-1].end - pieces[0].start
        with version.open_range(pieces[0].start, length) as stream:
            for piece in pieces:
                data = _exactly(stream, piece.length)
                self._cache.put(version.key(piece), data)
                yield _overlap(data, piece, first, last)

    def _start(self, version: Version, run: list[Block]) -> None:
        """Fetch neighbouring segments by one request, each of them ready when it has come."""
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(CONNECTIONS, "read-ahead")
            self._pool.submit(self._fetch, version, run)

    def _fetch(self, version: Version, run: list[Block]) -> None:
        keys = [version.key(segment) for segment in run]
        claimed: list[str] = []
        try:
            missing = run[: self._claim_missing(keys, claimed)]
            if missing:
                length = missing[-1].end - run[0].start
                with version.open_range(run[0].start, length) as stream:
                    for key, segment in zip(keys, missing, strict=False):
                        self._cache.put(key, _exactly(stream, segment.length))
                        self._arrived(key)
        except StoreAccessError as error:
            # Who needs the bytes asks for them, and gets the error that there is then.
            logger.debug("reading ahead in %s: %s", version.path, error)
        finally:
            for key in claimed:
                self._cache.release(key)
            for key in keys:
                self._arrived(key)

    def _claim_missing(self, keys: list[str], claimed: list[str]) -> int:
        """How many of the blocks, from the first on, no other worker has or is fetching."""
        for number, key in enumerate(keys):
            if not self._cache.claim(key, CLAIM_SECONDS):
                return number
            claimed.append(key)
            if self._cache.has(key):
                return number
        return len(keys)


class PieceStream:
    """Pieces of bytes as a stream; the first is asked for at once, so that its errors show now."""

    def __init__(self, pieces: Generator[bytes, None, None]) -> None:
        self._pieces = pieces
        self._left = memoryview(next(pieces, b""))

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, fewer where a piece ends; all of them for -1; b"" at the end."""
        if size < 0:
            return b"".join(iter(lambda: self.read(COPY_BUFFER), b""))
        if not self._left:
            self._left = memoryview(next(self._pieces, b""))
        data, self._left = self._left[:size], self._left[size:]
        return data.tobytes()

    def close(self) -> None:
        """Stop fetching."""
        self._pieces.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def _pieces_of(stream: ReadableStream, length: int) -> Iterator[bytes]:
    """`length` bytes as they come; TransientStoreError if there are fewer."""
    while length:
        data = stream.read(min(COPY_BUFFER, length))
        if not data:
            raise TransientStoreError("the store's answer ended early")
        length -= len(data)
        yield data


def _exactly(stream: ReadableStream, length: int) -> bytes:
    return b"".join(_pieces_of(stream, length))


def _overlap(data: bytes, block: Block, first: int, last: int) -> bytes:
    return data[max(first, block.start) - block.start : min(last, block.end) - block.start]

"""Reading a file through the block cache: what is missing is fetched, and kept, by ranges.

The first bytes are passed on as they come. Behind them a window ahead of the reader is fetched over
several connections: of what was asked for at once, and beyond it as much as was read in a row; a
seek ends it.
"""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from threading import Event
from typing import Final, NamedTuple

from davfusion.cache.block_cache import BlockCache
from davfusion.cache.blocks import SEGMENT, Block, cut, pieces_of, segment_at
from davfusion.platform import trim_memory
from davfusion.stores.errors import StoreAccessError, TransientStoreError
from davfusion.stores.store import COPY_BUFFER, ReadableStream

RUN: Final = 4
"""Segments fetched by one request at most."""
CONNECTIONS: Final = 16
_RUN: Final = RUN * SEGMENT
_MAX_WINDOW: Final = CONNECTIONS * _RUN
"""Bytes fetched ahead of a reader at most."""
_MIN_WINDOW: Final = 2 * _RUN
_RATE: Final = 5e9
"""Bytes a second. What would come at this rate until a request is answered is enough ahead: near
the store, more connections only cost time and memory."""
CLAIM_SECONDS: Final = 20.0
"""After this long another worker's fetch is taken for dead."""
LOADERS: Final = 16
"""Readers whose next block is read from the disk while the one before is sent."""
_MOST_BEHIND: Final = 256
"""Blocks that are on their way to the disk or from the store; then readers wait for the disk."""
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


class _Ahead(NamedTuple):
    """Until where to fetch ahead: by whole runs of `run` bytes, until `limit` ends the last one."""

    stop: int
    limit: int
    run: int

    def run_end(self, offset: int) -> int:
        return min(self.limit, offset - offset % self.run + self.run)


class BlockReader:
    """Serves ranges of files from `cache`, or from the store into it."""

    def __init__(
        self,
        cache: BlockCache,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cache = cache
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._fetchers: ThreadPoolExecutor | None = None
        self._loaders: ThreadPoolExecutor | None = None
        self._fetching: dict[str, Future[bytes | None]] = {}
        self._latency = float("inf")
        self._positions: OrderedDict[tuple[str, str], tuple[int, int]] = OrderedDict()

    def read(self, version: Version, start: int, end: int) -> Generator[bytes, None, None]:
        """Bytes `start` to `end`, in order; `end` is at most the file's size.

        Closed before its end, it also ends the fetches that it has begun.
        """
        limit = self._limit(version, start, end)
        ahead, window, following, leaving = start, 2 * _MIN_WINDOW, None, Event()
        try:
            for segment, first, last in cut(start, end, version.size):
                data = following.result() if following else self._known(version, segment)
                pieces = self._part(version, segment, first, last, data)
                if data is None:
                    yield next(pieces)  # what is asked for comes before what is only ahead
                wanted = _Ahead(min(limit, last + window), limit, self._run(window))
                ahead = self._fetch_ahead(version, max(ahead, segment.end), wanted, leaving)
                following = self._look_ahead(version, last, end)
                yield from pieces
                window = min(self._enough(), 2 * window)
        except GeneratorExit:
            if last < end:
                leaving.set()
            raise
        finally:
            if end - start > _RUN:
                trim_memory()

    def keep(self, version: Version, source: ReadableStream) -> None:
        """Keep a whole file that was just stored, read from its copy on the local disk."""
        for segment, _, _ in cut(0, version.size, version.size):
            self._cache.put(version.key(segment), _exactly(source, segment.length))

    def close(self) -> None:
        """End the fetches that have not begun."""
        with self._lock:
            fetchers, loaders = self._fetchers, self._loaders
            self._fetchers = self._loaders = None
        if fetchers is not None:
            fetchers.shutdown(cancel_futures=True)
        for key in list(self._fetching):  # of what was cancelled
            self._settle(key)
        if loaders is not None:
            loaders.shutdown()

    def _limit(self, version: Version, start: int, end: int) -> int:
        """Where fetching ahead ends.

        What was picked out is no reason to fetch more than was asked for; who goes on from where
        the last request ended may do so for as long again.
        """
        who = (version.path, version.etag)
        with self._lock:
            expected, behind = self._positions.pop(who, (0, 0))
            behind = min(_MAX_WINDOW, behind + end - start) if start == expected else 0
            self._positions[who] = (end, behind)
            if len(self._positions) > _REMEMBERED:
                self._positions.popitem(last=False)
        limit = end + behind
        if limit >= version.size:
            return version.size
        return max(limit - limit % _RUN, segment_at(end, version.size).start)

    def _enough(self) -> int:
        """Bytes to fetch ahead at most."""
        return int(min(_MAX_WINDOW, max(_MIN_WINDOW, _RATE * self._latency)))

    def _run(self, window: int) -> int:
        """Bytes of one request: less of a small window, so that all connections share it."""
        share = min(RUN, max(1, RUN * window // self._enough()))
        return SEGMENT << share.bit_length() - 1

    def _open(self, version: Version, start: int, length: int) -> ReadableStream:
        began = self._clock()
        stream = version.open_range(start, length)
        # The best counts, as it says most of the distance; slowly forgotten, since that may change.
        self._latency = min(self._clock() - began, 1.05 * self._latency)
        return stream

    def _look_ahead(self, version: Version, offset: int, end: int) -> Future[bytes | None] | None:
        """Have the next segment looked up while this one is being sent; None after the last."""
        if offset == end:
            return None
        with self._lock:
            following = segment_at(offset, version.size)
            return self._disk_threads().submit(self._known, version, following)

    def _fetch_ahead(self, version: Version, offset: int, wanted: "_Ahead", leaving: Event) -> int:
        """Start to fetch the missing segments from `offset` on; returns where they end."""
        while (end := wanted.run_end(offset)) <= wanted.stop and offset < end:
            if self._cache.make_room(end - offset) < end - offset:
                return offset  # nothing could be kept until it is read
            run: list[Block] = []
            for segment, _, _ in cut(offset, end, version.size):
                if self._reserve(version.key(segment)):
                    run.append(segment)
                elif run:
                    self._start(version, run, leaving)
                    run = []
            if run:
                self._start(version, run, leaving)
            offset = end
        return offset

    def _reserve(self, key: str) -> bool:
        """Whether this process has to fetch the block, and then nobody else in it does."""
        with self._lock:
            if key in self._fetching:
                return False
            self._fetching[key] = Future()
        if not self._cache.has(key):
            return True
        self._settle(key)
        return False

    def _settle(self, key: str) -> None:
        """Nobody is fetching the block any more."""
        with self._lock:
            arrival = self._fetching.pop(key, None)
        if arrival is not None and not arrival.done():
            arrival.set_result(None)

    def _part(
        self, version: Version, segment: Block, first: int, last: int, data: bytes | None
    ) -> Iterator[bytes]:
        """Bytes `first` to `last`, of a segment that is `data` if it is known."""
        whole = (first, last) == (segment.start, segment.end)
        if data is not None:
            yield data if whole else _overlap(data, segment, first, last)
        elif whole:
            yield from self._stream(version, segment)
        else:
            yield from self._pieces(version, first, last)

    def _known(self, version: Version, segment: Block) -> bytes | None:
        """A segment that is in the cache, or on its way there in this process."""
        key = version.key(segment)
        with self._lock:
            arrival = self._fetching.get(key)
        if arrival is not None and wait([arrival], CLAIM_SECONDS).done:
            data = arrival.result()
            if data is not None:
                return data
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
            with self._open(version, segment.start, segment.length) as stream:
                for data in _pieces_of(stream, segment.length):
                    gathered += data
                    if len(gathered) == segment.length:
                        # Before its last bytes: a reader that has them does not come back.
                        self._cache.put(key, bytes(gathered))
                    yield data
        finally:
            self._cache.release([key])

    def _await_other(self, key: str) -> bytes | None:
        """What another reader's fetch of the block brings; None once the caller has claimed it."""
        for _ in range(int(CLAIM_SECONDS / _POLL_SECONDS)):
            if self._cache.claim(key, CLAIM_SECONDS):
                # It may have come in between.
                if (data := self._cache.get(key)) is not None:
                    self._cache.release([key])
                return data
            self._sleep(_POLL_SECONDS)
            if (data := self._cache.get(key)) is not None:
                return data
        return None

    def _pieces(self, version: Version, first: int, last: int) -> Iterator[bytes]:
        """Part of a segment: neighbouring pieces that are missing are fetched together."""
        missing: list[Block] = []
        for piece in pieces_of(first, last, version.size):
            data = self._known(version, piece)
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
        received: list[tuple[str, bytes]] = []
        try:
            with self._open(version, pieces[0].start, length) as stream:
                for piece in pieces:
                    data = _exactly(stream, piece.length)
                    received.append((version.key(piece), data))
                    yield _overlap(data, piece, first, last)
        finally:
            self._keep_behind(received)

    def _keep_behind(self, received: list[tuple[str, bytes]]) -> None:
        """Have blocks kept that the reader has already; until then they are found in memory."""
        if not received:
            return
        with self._lock:
            for key, data in received:
                self._fetching.setdefault(key, _done(data))
            if len(self._fetching) <= _MOST_BEHIND:
                self._disk_threads().submit(self._keep, received)
                return
        self._keep(received)

    def _keep(self, received: list[tuple[str, bytes]]) -> None:
        self._cache.put_all(received)
        for key, _ in received:
            self._settle(key)

    def _disk_threads(self) -> ThreadPoolExecutor:
        """To be called with the lock."""
        if self._loaders is None:
            self._loaders = ThreadPoolExecutor(LOADERS, "read-blocks")
        return self._loaders

    def _start(self, version: Version, run: list[Block], leaving: Event) -> None:
        """Fetch neighbouring segments by one request, each of them ready when it has come."""
        with self._lock:
            if self._fetchers is None:
                self._fetchers = ThreadPoolExecutor(CONNECTIONS, "read-ahead")
            self._fetchers.submit(self._fetch, version, run, leaving)

    def _fetch(self, version: Version, run: list[Block], leaving: Event) -> None:
        keys = [version.key(segment) for segment in run]
        claimed = 0 if leaving.is_set() else self._cache.claim_missing(keys, CLAIM_SECONDS)
        missing = run[:claimed]
        try:
            if missing:
                length = missing[-1].end - run[0].start
                with self._open(version, run[0].start, length) as stream:
                    for key, segment in zip(keys, missing, strict=False):
                        if leaving.is_set():
                            break
                        self._receive(key, _exactly(stream, segment.length))
        except StoreAccessError as error:
            # Who needs the bytes asks for them, and gets the error that there is then.
            logger.debug("reading ahead in %s: %s", version.path, error)
        finally:
            self._cache.release(keys[:claimed])
            for key in keys:
                self._settle(key)
            if not self._fetching:
                trim_memory()

    def _receive(self, key: str, data: bytes) -> None:
        """Who waits for a block has it before the disk."""
        self._fetching[key].set_result(data)
        self._cache.put(key, data)
        self._settle(key)


def _done(data: bytes) -> Future[bytes | None]:
    future: Future[bytes | None] = Future()
    future.set_result(data)
    return future


def _pieces_of(stream: ReadableStream, length: int) -> Iterator[bytes]:
    """`length` bytes as they come; TransientStoreError if there are fewer."""
    while length:
        data = stream.read(min(COPY_BUFFER, length))
        if not data:
            raise TransientStoreError("the store's answer ended early")
        length -= len(data)
        yield data


def _exactly(stream: ReadableStream, length: int) -> bytes:
    data = stream.read(length)
    rest = length - len(data)
    return b"".join([data, *_pieces_of(stream, rest)]) if rest else data


def _overlap(data: bytes, block: Block, first: int, last: int) -> bytes:
    return data[max(first, block.start) - block.start : min(last, block.end) - block.start]

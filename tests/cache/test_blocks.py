"""The block cache: what is fetched, what is kept, and what damage does (rows C8, C9, C23)."""

import io
import itertools
import random
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import diskcache
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from davfusion.cache.block_cache import BlockCache
from davfusion.cache.block_reader import RUN, BlockReader, Version
from davfusion.cache.blocks import PIECE, SEGMENT, cut, pieces_of
from davfusion.stores.errors import TransientStoreError

MEGABYTE = 1 << 20


@given(st.integers(0, 5 * SEGMENT), st.integers(0, 5 * SEGMENT), st.integers(0, 5 * SEGMENT))
def test_a_range_is_cut_into_its_blocks(one: int, two: int, more: int) -> None:
    start, end = sorted((one, two))
    size = end + more
    parts = list(cut(start, end, size))
    assert [p for _, p, _ in parts][:1] == [start][: len(parts)]
    assert sum(last - first for _, first, last in parts) == end - start
    for segment, first, last in parts:
        assert segment.start <= first < last <= segment.end <= size
        pieces = list(pieces_of(first, last, size))
        assert pieces[0].start <= first
        assert pieces[-1].end >= last
        assert sum(piece.length for piece in pieces) < last - first + 2 * PIECE


class Service:
    """One version of a file, and a record of the ranges asked for."""

    def __init__(self, size: int, name: str = "/f", etag: str = "1") -> None:
        self.content = random.Random(etag).randbytes(size)
        self.asked: list[tuple[int, int]] = []
        self.short = False
        self.version = Version(name, etag, size, self.open_range)

    def open_range(self, offset: int, length: int) -> io.BytesIO:
        self.asked.append((offset, length))
        return io.BytesIO(self.content[offset : offset + (length // 2 if self.short else length)])

    @property
    def fetched(self) -> int:
        return sum(length for _, length in self.asked)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[BlockCache]:
    cache = BlockCache(tmp_path / "blocks", 64 * MEGABYTE)
    yield cache
    cache.close()


@pytest.fixture
def reader(cache: BlockCache) -> Iterator[BlockReader]:
    """Of a store that is near: it answers in no time."""
    reader = BlockReader(cache, clock=lambda: 0.0)
    yield reader
    reader.close()


def read(reader: BlockReader, service: Service, start: int, end: int) -> bytes:
    return b"".join(reader.read(service.version, start, end))


def test_a_second_read_asks_nothing(reader: BlockReader) -> None:
    service = Service(3 * SEGMENT + 12345)
    size = service.version.size
    assert read(reader, service, 0, size) == service.content
    assert service.fetched == size
    service.asked.clear()
    assert read(reader, service, 0, size) == service.content
    assert read(reader, service, 100, SEGMENT + 7) == service.content[100 : SEGMENT + 7]
    assert service.asked == []


def test_a_range_is_kept_without_the_rest(reader: BlockReader) -> None:
    service = Service(20 * SEGMENT)
    at = 7 * SEGMENT + 1000
    for _ in range(2):
        assert read(reader, service, at, at + PIECE) == service.content[at : at + PIECE]
    assert service.fetched == 2 * PIECE


def test_random_reads_fetch_at_most_twice_what_they_need(reader: BlockReader) -> None:
    service, rng = Service(40 * SEGMENT), random.Random(9)
    offsets = [rng.randrange(0, 40 * SEGMENT - PIECE) for _ in range(100)]
    for offset in offsets:
        got = read(reader, service, offset, offset + PIECE)
        assert got == service.content[offset : offset + PIECE]
    assert service.fetched <= 2 * PIECE * len(offsets)


@given(
    st.lists(st.tuples(st.integers(1, 4 * SEGMENT), st.integers(65536, 3 * SEGMENT)), min_size=1)
)
@settings(max_examples=25, deadline=None)
def test_no_random_read_fetches_twice_what_it_needs(reads: list[tuple[int, int]]) -> None:
    service, ended = Service(8 * SEGMENT), 0
    with tempfile.TemporaryDirectory() as folder:
        cache = BlockCache(Path(folder) / "blocks", 64 * MEGABYTE)
        for start, length in reads:
            assume(start != ended)
            ended = start + length
            reader = BlockReader(cache)
            service.asked.clear()
            assert read(reader, service, start, ended) == service.content[start:ended]
            reader.close()
            assert service.fetched < 2 * length
        cache.close()


def test_a_long_range_is_fetched_ahead_but_not_beyond_its_end(reader: BlockReader) -> None:
    service = Service(30 * SEGMENT)
    start, end = 2 * SEGMENT + 1, 20 * SEGMENT + 1
    assert read(reader, service, start, end) == service.content[start:end]
    assert max(length for _, length in service.asked) == RUN * SEGMENT
    assert service.fetched < end - start + 2 * PIECE


def test_a_file_is_fetched_by_few_requests(reader: BlockReader) -> None:
    service = Service(6 * RUN * SEGMENT + 5)
    assert read(reader, service, 0, service.version.size) == service.content
    assert service.fetched == service.version.size
    assert len(service.asked) == 1 + 7  # its beginning, and the runs after it


def test_far_away_a_beginning_is_shared_by_many_connections(cache: BlockCache) -> None:
    """The reader waits for the first of them only, so that must not be long."""
    moments = itertools.count(0, 0.02)  # an answer is 20 ms away
    reader = BlockReader(cache, clock=lambda: next(moments))
    service = Service(24 * SEGMENT)
    assert read(reader, service, 0, 24 * SEGMENT) == service.content
    reader.close()
    near, far = 17 * SEGMENT, 18 * SEGMENT
    assert {length for offset, length in service.asked if offset < near} == {SEGMENT}
    assert {length for offset, length in service.asked if offset >= far} == {2 * SEGMENT}


def test_who_leaves_early_has_nothing_more_fetched(cache: BlockCache, reader: BlockReader) -> None:
    service = Service(20 * SEGMENT)
    may_go_on = threading.Event()

    def open_range(offset: int, length: int) -> io.BytesIO:
        assert offset == 0 or may_go_on.wait(60)
        return service.open_range(offset, length)

    version = replace(service.version, open_range=open_range)
    pieces = reader.read(version, 0, version.size)
    assert service.content.startswith(next(pieces) + next(pieces))
    pieces.close()
    may_go_on.set()
    reader.close()
    segments = [segment for segment, _, _ in cut(0, version.size, version.size)]
    assert not any(cache.has(version.key(segment)) for segment in segments)


def test_nothing_is_fetched_ahead_where_it_could_not_be_kept(tmp_path: Path) -> None:
    service = Service(12 * SEGMENT)
    cache = BlockCache(tmp_path / "blocks", 64 * MEGABYTE, spooled=lambda: 64 * MEGABYTE)
    reader = BlockReader(cache)
    assert read(reader, service, 0, 12 * SEGMENT) == service.content
    assert service.fetched == 12 * SEGMENT
    reader.close()
    cache.close()


def test_reading_on_fetches_ahead_and_a_seek_ends_it(reader: BlockReader) -> None:
    service = Service(60 * SEGMENT)
    step = SEGMENT // 4
    for offset in range(0, 12 * SEGMENT, step):
        assert read(reader, service, offset, offset + step) == service.content[offset:][:step]
    reader.close()
    ahead = max(offset + length for offset, length in service.asked)
    assert 12 * SEGMENT < ahead <= 29 * SEGMENT
    service.asked.clear()
    at = 50 * SEGMENT
    assert read(reader, service, at, at + 100) == service.content[at : at + 100]
    assert service.asked == [(at, PIECE)]


@pytest.mark.parametrize("workers", [1, 2])
def test_readers_at_one_time_fetch_once(tmp_path: Path, workers: int) -> None:
    service = Service(4 * SEGMENT)
    barrier = threading.Barrier(6)
    caches = [BlockCache(tmp_path / "blocks", 64 * MEGABYTE) for _ in range(workers)]
    readers = [BlockReader(cache) for cache in caches]

    def one(number: int) -> bytes:
        barrier.wait()
        return read(readers[number % workers], service, 0, 4 * SEGMENT)

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(one, range(6))) == {service.content}
    assert service.fetched == 4 * SEGMENT
    for reader, cache in zip(readers, caches, strict=True):
        reader.close()
        cache.close()


def test_versions_never_mix(reader: BlockReader) -> None:
    old, new = Service(2 * SEGMENT, etag="1"), Service(2 * SEGMENT, etag="2")
    read(reader, old, 0, SEGMENT)
    assert read(reader, new, 0, 2 * SEGMENT) == new.content
    assert read(reader, old, 0, 2 * SEGMENT) == old.content


def test_a_flipped_byte_is_a_miss(tmp_path: Path, cache: BlockCache, reader: BlockReader) -> None:
    service = Service(SEGMENT)
    read(reader, service, 0, SEGMENT)
    [block] = [f for f in (tmp_path / "blocks").rglob("*.val") if f.stat().st_size == SEGMENT]
    data = bytearray(block.read_bytes())
    data[5000] ^= 1
    block.write_bytes(data)
    service.asked.clear()
    assert read(reader, service, 0, SEGMENT) == service.content
    assert service.fetched == SEGMENT
    assert cache.statistics()[0] == 0


def test_what_was_just_stored_is_not_fetched_back(reader: BlockReader) -> None:
    service = Service(2 * SEGMENT + 5)
    reader.keep(service.version, io.BytesIO(service.content))
    assert read(reader, service, 0, service.version.size) == service.content
    assert service.asked == []


def test_an_answer_that_ends_early_is_an_error_and_not_kept(reader: BlockReader) -> None:
    service = Service(2 * SEGMENT)
    service.short = True
    with pytest.raises(TransientStoreError):
        read(reader, service, 0, 2 * SEGMENT)
    service.short = False
    assert read(reader, service, 0, 2 * SEGMENT) == service.content


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    clock = itertools.count(0, 61)
    cache = BlockCache(tmp_path / "blocks", 40 * MEGABYTE, lambda: float(next(clock)))
    data = bytes(MEGABYTE)
    for number in range(120):
        cache.put(f"b{number}", data)
        assert cache.get("b0") == data
        assert cache.volume() <= 41 * MEGABYTE
    assert cache.get("b0") == data
    assert cache.get("b1") is None
    cache.close()


def test_nothing_pickled_is_ever_read(tmp_path: Path, cache: BlockCache) -> None:
    """Whoever can write the folder must not get code run by it."""
    with pytest.raises(TypeError):
        cache.put("k", ["a list"])  # type: ignore[arg-type]
    cache.put("k", b"x")
    cache.close()
    with diskcache.Cache(str(tmp_path / "blocks")) as foreign:
        foreign.set("k", {"pickled": True})
    assert cache.get("k") is None
    connection = sqlite3.connect(tmp_path / "blocks" / "cache.db")
    assert connection.execute("SELECT count(*) FROM Cache").fetchone() == (1,)
    connection.close()

"""What becomes of a block cache that was damaged, cleared, checked, or left by a killed process."""

import io
import multiprocessing
import os
import random
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from davfusion.cache.block_cache import BlockCache
from davfusion.cache.block_check import Checked
from davfusion.cache.block_reader import BlockReader, Version
from davfusion.cache.blocks import segment_at

LIMIT = 64 << 20
SIZES = [1 << 20, 65536, 33_000, 5_000, 700]
CONTENTS = {f"b{n}": random.Random(n).randbytes(SIZES[n % len(SIZES)]) for n in range(60)}


def put_all(cache: BlockCache) -> None:
    for key, data in CONTENTS.items():
        cache.put(key, data)


def right(cache: BlockCache) -> int:
    """How many blocks are there; never one that is wrong."""
    found = {key: cache.get(key) for key in CONTENTS}
    assert all(data in (None, CONTENTS[key]) for key, data in found.items())
    return sum(data is not None for data in found.values())


@pytest.fixture
def blocks(tmp_path: Path) -> Path:
    return tmp_path / "blocks"


@pytest.fixture
def cache(blocks: Path) -> Iterator[BlockCache]:
    cache = BlockCache(blocks, LIMIT)
    put_all(cache)
    yield cache
    cache.close()


def empty(path: Path) -> None:
    os.truncate(path, 0)


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def zero(path: Path) -> None:
    overwrite(path, bytes(path.stat().st_size))


def garble(path: Path) -> None:
    overwrite(path, random.Random(1000).randbytes(path.stat().st_size))


def garble_in_the_middle(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for at in range(4096, len(data), 3):
        data[at] ^= 0x5A
    overwrite(path, bytes(data))


def overwrite(path: Path, data: bytes) -> None:
    with path.open("r+b") as file:
        file.write(data)


def run_until_killed(target: Callable[..., None], *args: object) -> None:
    process = multiprocessing.get_context("spawn").Process(target=target, args=args)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def fill_and_die(blocks: Path) -> None:
    put_all(BlockCache(blocks, LIMIT))
    os.kill(os.getpid(), signal.SIGKILL)


DAMAGES = [empty, halve, zero, garble, garble_in_the_middle, Path.unlink]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["cache.db", "cache.db-wal"])
def test_a_damaged_index_between_two_runs(
    blocks: Path, name: str, damage: Callable[[Path], None]
) -> None:
    run_until_killed(fill_and_die, blocks)  # it leaves the log beside the index
    damage(blocks / name)
    works_again(blocks)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["cache.db", "cache.db-wal"])
def test_an_index_that_is_damaged_while_two_processes_use_it(
    cache: BlockCache, blocks: Path, name: str, damage: Callable[[Path], None]
) -> None:
    # A shell's damage: SQLite's locks of this process must not be lost by closing the file here.
    with Elsewhere(blocks) as other:
        assert other.do("right") == right(cache) == len(CONTENTS)
        in_another_process(damage, blocks / name)
        for _ in range(3):
            right(cache)
            other.do("right")
            put_all(cache)
            other.do("put_all")
        assert right(cache) == other.do("right") == len(CONTENTS)
    assert not list(blocks.parent.glob("blocks.removed-*"))


def works_again(blocks: Path) -> None:
    one, two = BlockCache(blocks, LIMIT), BlockCache(blocks, LIMIT)
    for _ in range(2):
        right(one)
        right(two)
        put_all(one)
    assert right(two) == right(one) == len(CONTENTS)
    for path in blocks.glob("*/*.val"):
        os.utime(path, (0, 0))
    one.check(repair=True)
    assert one.check() == two.check() == Checked(len(CONTENTS))
    one.close()
    two.close()


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_blocks_are_misses_and_found_by_a_check(
    cache: BlockCache, blocks: Path, damage: Callable[[Path], None]
) -> None:
    files = [path for path in blocks.glob("*/*.val") if path.stat().st_size > 4096][:7]
    for path in files:
        damage(path)
    assert right(cache) == len(CONTENTS) - len(files)
    found = cache.check()
    assert (found.blocks, len(found.damaged)) == (len(CONTENTS), len(files))
    assert cache.check(repair=True).damaged == found.damaged
    assert cache.check() == Checked(len(CONTENTS) - len(files))
    put_all(cache)
    assert right(cache) == len(CONTENTS)


def test_an_index_that_names_another_block_is_a_miss(cache: BlockCache, blocks: Path) -> None:
    connection = sqlite3.connect(blocks / "cache.db")
    swap = "UPDATE Cache SET key = CASE key WHEN 'b0' THEN 'b5' ELSE 'b0' END WHERE key IN (?, ?)"
    with connection:
        connection.execute("DROP INDEX Cache_key_raw")
        connection.execute(swap, ("b0", "b5"))
        connection.execute("CREATE UNIQUE INDEX Cache_key_raw ON Cache(key, raw)")
    connection.close()
    assert cache.get("b0") is None
    assert cache.get("b5") is None


def test_files_that_no_block_has_are_found_once_they_are_settled(
    cache: BlockCache, blocks: Path
) -> None:
    orphan = blocks / "ab" / "0123.val"
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(b"left by a killed process")
    assert cache.check(repair=True).orphans == ()
    os.utime(orphan, (0, 0))
    assert cache.check().orphans == (orphan,)
    assert orphan.exists()
    assert cache.check(repair=True) == Checked(len(CONTENTS), orphans=(orphan,))
    assert not orphan.exists()
    assert right(cache) == len(CONTENTS)


def test_a_check_beside_writers_finds_nothing(cache: BlockCache, blocks: Path) -> None:
    other, ended = BlockCache(blocks, LIMIT), threading.Event()

    def rewrite() -> None:
        while not ended.is_set():
            put_all(other)

    writer = threading.Thread(target=rewrite)
    writer.start()
    found = [cache.check(repair=True) for _ in range(3)]
    ended.set()
    writer.join()
    assert [(f.damaged, f.orphans) for f in found] == [((), ())] * 3
    other.close()


def test_a_cleared_cache_is_empty_for_all_processes(cache: BlockCache, blocks: Path) -> None:
    with Elsewhere(blocks) as other:
        assert other.do("right") == len(CONTENTS)
        cache.clear()
        assert other.do("right") == 0
        assert not list(blocks.glob("*/*.val"))
        other.do("put_all")
        assert right(cache) == len(CONTENTS)
        assert [path.name for path in blocks.parent.iterdir() if path.is_dir()] == ["blocks"]


def test_hits_and_misses_of_all_processes_are_added_up(cache: BlockCache, blocks: Path) -> None:
    with Elsewhere(blocks) as other:
        assert (cache.get("b0"), cache.get("no")) == (CONTENTS["b0"], None)
        other.do("right")
    assert cache.statistics() == (1 + len(CONTENTS), 1)
    cache.close()
    again = BlockCache(blocks, LIMIT)
    assert again.statistics() == (1 + len(CONTENTS), 1)
    again.close()


def test_counts_come_to_the_others_while_a_process_runs(tmp_path: Path) -> None:
    now = 0.0
    one = BlockCache(tmp_path / "blocks", LIMIT, lambda: now)
    other = BlockCache(tmp_path / "blocks", LIMIT)
    one.get("a")
    assert other.statistics() == (0, 0)
    now = 5.0
    one.get("a")
    assert other.statistics() == (0, 2)
    one.close()
    other.close()


def claim_and_die(blocks: Path, key: str) -> None:
    assert BlockCache(blocks, LIMIT).claim(key, 3600)
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_claim_of_a_killed_process_counts_no_longer(cache: BlockCache, blocks: Path) -> None:
    run_until_killed(claim_and_die, blocks, "k")
    assert cache.claim("k", 3600)
    other = BlockCache(blocks, LIMIT)
    assert not other.claim("k", 3600)
    cache.release(["k"])
    assert other.claim("k", 3600)
    other.close()


def test_a_reader_does_not_wait_for_a_killed_one(cache: BlockCache, blocks: Path) -> None:
    content = CONTENTS["b0"]
    version = Version("/f", "1", len(content), lambda at, n: io.BytesIO(content[at : at + n]))
    key = version.key(segment_at(0, len(content)))
    run_until_killed(claim_and_die, blocks, key)
    reader = BlockReader(cache, sleep=lambda _: pytest.fail("waited"))
    assert b"".join(reader.read(version, 0, len(content))) == content
    reader.close()


class Elsewhere:
    """A BlockCache in another process, which does what it is told."""

    def __init__(self, blocks: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, there = context.Pipe()
        self._process = context.Process(target=serve, args=(blocks, there))

    def __enter__(self) -> "Elsewhere":
        self._process.start()
        return self

    def do(self, what: str) -> Any:
        self._pipe.send(what)
        answer = self._pipe.recv()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def __exit__(self, *_error: object) -> None:
        self._pipe.send("close")
        self._process.join()
        assert self._process.exitcode == 0


def serve(blocks: Path, pipe: Any) -> None:
    cache = BlockCache(blocks, LIMIT)
    while (what := pipe.recv()) != "close":
        try:
            pipe.send({"right": right, "put_all": put_all}[what](cache))
        except BaseException as error:
            pipe.send(error)
    cache.close()


def in_another_process(damage: Callable[[Path], None], path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=damage, args=(path,))
    process.start()
    process.join()
    assert process.exitcode == 0

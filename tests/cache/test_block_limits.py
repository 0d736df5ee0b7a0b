"""The blocks' share of the cache's size: a hard limit, also beside a spool and on a full disk."""

import logging
import multiprocessing
import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from davfusion.cache import block_cache
from davfusion.cache.block_cache import BlockCache

MEGABYTE = 1 << 20
SIZES = [MEGABYTE, 65536, 33_000, 5_000, 700]


def disk_use(folder: Path) -> int:
    """As du tells it, also beside writers."""
    total = 0
    for parent, folders, files in os.walk(folder):
        for name in folders + files:
            with suppress(FileNotFoundError):
                total += Path(parent, name).lstat().st_blocks * 512
    return total


def fill(folder: Path, limit: int, total: int, seed: int) -> None:
    cache, rng, number = BlockCache(folder, limit), random.Random(seed), 0
    while total > 0:
        data = rng.randbytes(rng.choice(SIZES))
        cache.put(f"{seed}-{number}", data)
        cache.get(f"{seed}-{rng.randint(0, number)}")
        total, number = total - len(data), number + 1
    cache.close()


def test_two_processes_keep_to_the_limit_on_the_disk(tmp_path: Path) -> None:
    folder, limit = tmp_path / "blocks", 50 * MEGABYTE
    context = multiprocessing.get_context("spawn")
    writers = [
        context.Process(target=fill, args=(folder, limit, 90 * MEGABYTE, seed)) for seed in (1, 2)
    ]
    BlockCache(folder, limit).put("first", b"x")
    for writer in writers:
        writer.start()
    most = 0
    while any(writer.is_alive() for writer in writers):
        most = max(most, disk_use(folder))
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert limit // 2 < most < limit * 11 // 10
    assert limit // 2 < disk_use(folder) < limit * 11 // 10


@pytest.mark.parametrize("size", SIZES)
def test_blocks_yield_to_the_spool(tmp_path: Path, size: int) -> None:
    spooled = 0
    cache = BlockCache(tmp_path / "blocks", 16 * MEGABYTE, spooled=lambda: spooled)
    for number in range(20 * MEGABYTE // size if size > 1000 else 1000):
        cache.put(f"b{number}", bytes(size))
    for spooled in range(0, 17 * MEGABYTE, MEGABYTE):
        left = cache.make_room(MEGABYTE)
        assert left == 16 * MEGABYTE - spooled - cache.volume()
        assert left >= MEGABYTE or spooled >= 14 * MEGABYTE
        cache.put("one more", bytes(size))
        assert cache.volume() + spooled <= 16 * MEGABYTE or spooled >= 15 * MEGABYTE
    assert cache.make_room(1) < MEGABYTE
    cache.close()


def test_room_that_cannot_be_made_costs_no_block(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path / "blocks", 16 * MEGABYTE)
    cache.put("a", bytes(MEGABYTE))
    assert 14 * MEGABYTE < cache.make_room(17 * MEGABYTE) < 15 * MEGABYTE
    assert cache.has("a")
    assert cache.make_room(15 * MEGABYTE) >= 15 * MEGABYTE
    assert not cache.has("a")
    cache.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system may be mounted: {error}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_a_miss_and_one_warning(
    small_disk: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block_cache, "_SPARE", -1 << 30)
    contents = {f"b{n}": os.urandom(SIZES[n % len(SIZES)]) for n in range(100)}
    cache = BlockCache(small_disk / "blocks", 1 << 30, lambda: 0.0)
    with caplog.at_level(logging.WARNING):
        for key, data in contents.items():
            cache.put(key, data)
    while fill_up(small_disk / "rest"):
        pass
    for key, data in contents.items():
        cache.put(key, data)
    assert len(caplog.records) == 1
    assert "disk" in caplog.text or "space" in caplog.text
    found = {key: cache.get(key) for key in contents}
    assert any(found.values())
    assert all(data in (None, contents[key]) for key, data in found.items())
    for path in (small_disk / "blocks").glob("*/*.val"):
        os.utime(path, (0, 0))
    found_by_check = cache.check()
    assert (found_by_check.damaged, found_by_check.orphans) == ((), ())
    (small_disk / "rest").unlink()
    cache.clear()
    cache.put("b0", contents["b0"])
    assert cache.get("b0") == contents["b0"]
    cache.close()


def fill_up(path: Path) -> bool:
    try:
        with path.open("ab", buffering=0) as file:
            return file.write(bytes(4096)) > 0
    except OSError:
        return False

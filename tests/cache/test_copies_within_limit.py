"""Copies of what has not been sent keep within the limit of the cache, as writes do (row C10)."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from davfusion.cache.multiprocessing_caching_store import MultiprocessingCachingStore
from davfusion.stores.memory import MemoryStore
from davfusion.stores.store import StoreSpaceLimitError
from tests.cache.writeback import share

MEGABYTE = 1 << 20
SMALL = b"small" * 3000
FILES = 300
"""Which take more than half of the cache."""


@pytest.fixture
def service() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def drive(
    service: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MultiprocessingCachingStore]:
    # Nobody sends anything, so who waits for room is refused at once.
    monkeypatch.setattr("davfusion.cache.room.PATIENCE", -1)
    drive = share(service, tmp_path, megabytes=8)
    for number in range(FILES):
        drive.store_fileobject(io.BytesIO(SMALL), f"/source/{number}")
    yield drive
    drive.close()


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("is_stored", [False, True], ids=["pending folder", "stored folder"])
def test_a_copy_of_many_small_pending_files_is_refused_where_there_is_no_room(
    service: MemoryStore, drive: MultiprocessingCachingStore, tmp_path: Path, is_stored: bool
) -> None:
    spool = tmp_path / "test" / "spool"
    if is_stored:
        service.create_directory("/other")
        drive.move("/source", "/other/source")
    source = "/other" if is_stored else "/source"
    with pytest.raises(StoreSpaceLimitError):
        drive.duplicate(source, "/copy")
    assert sum(path.stat().st_size for path in files_in(spool)) <= 8 * MEGABYTE
    assert not drive.exists("/copy/0")
    assert files_in(spool / "tmp") == []

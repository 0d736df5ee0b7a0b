"""Small contents in packs: what is kept, what is thrown away, and when a pack goes."""

import io
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from davfusion import platform
from davfusion.cache import packs
from davfusion.cache.folder import CacheFolder
from davfusion.cache.journal import ROW_COST
from davfusion.cache.mover import Mover
from davfusion.cache.multiprocessing_caching_store import MultiprocessingCachingStore
from davfusion.cache.pending import FILE, Row
from davfusion.cache.recovery import LOST
from davfusion.cache.unpacking import AFTER, unpack
from davfusion.stores.memory import MemoryStore
from davfusion.stores.store import NoSuchFilesytemObjectError
from tests.cache.service import names, put
from tests.cache.writeback import mover, share
from tests.clock import Clock
from tests.spooled import sizes

NUMBERS = range(20)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def service() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def drive(
    tmp_path: Path, service: MemoryStore, clock: Clock
) -> Iterator[MultiprocessingCachingStore]:
    drive = share(service, tmp_path, clock=clock)
    yield drive
    drive.close()


@pytest.fixture
def sender(tmp_path: Path, service: MemoryStore, clock: Clock) -> Iterator[Mover]:
    sender = mover(service, tmp_path, clock=clock)
    yield sender
    sender.close()


@pytest.fixture
def folder(tmp_path: Path) -> CacheFolder:
    return CacheFolder(tmp_path, "test")


def fill(drive: MultiprocessingCachingStore) -> None:
    for number in NUMBERS:
        put(drive, f"/{number}", b"%d" % number)


def recover(folder: CacheFolder) -> None:
    folder.claim()
    folder.recover()
    folder.release()


def lose_rows(folder: CacheFolder) -> None:
    with closing(sqlite3.connect(folder.journal_path)) as db, db:
        db.execute("DELETE FROM pending")


def kept(folder: CacheFolder) -> set[bytes]:
    lost = folder.path / "spool" / "lost+found"
    return {file.read_bytes().partition(b"{")[0] for file in lost.glob("*")}


def test_a_write_costs_two_flushes(
    drive: MultiprocessingCachingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(drive, "/first")
    flushed: list[str] = []

    def noted(descriptor: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink().parent.name)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(platform, "flush", noted)
    put(drive, "/second")
    assert flushed == ["packs", "test"]


def test_what_is_larger_has_a_file_of_its_own(
    drive: MultiprocessingCachingStore, folder: CacheFolder
) -> None:
    for size in (packs.LARGEST, packs.LARGEST + 1):
        put(drive, f"/{size}", bytes(size))
        assert drive.get_file(f"/{size}") == bytes(size)
    own_file, packed = sorted(sizes(folder.spool.folder), key=packs.is_packed)
    assert folder.spool.path(own_file, "new").exists()
    assert [pack.name for pack in packs.all_packs(folder.spool)] == [packed.partition("@")[0]]


def test_a_range_is_read(drive: MultiprocessingCachingStore) -> None:
    put(drive, "/before", b"before")
    put(drive, "/f", b"0123456789")
    put(drive, "/after", b"after")
    with drive.open_read("/f", 3, 4) as content:
        assert content.read() == b"3456"
    with drive.open_read("/f", 8) as content:
        assert content.read(100) == b"89"


def test_a_copy_of_what_is_in_a_pack(
    drive: MultiprocessingCachingStore, sender: Mover, service: MemoryStore, clock: Clock
) -> None:
    put(drive, "/f", b"content")
    drive.duplicate("/f", "/copy")
    drive.delete("/f")
    assert drive.get_file("/copy") == b"content"
    clock.now += 2
    while sender.step():
        pass
    assert service.get_file("/copy") == b"content"


def test_a_pack_goes_when_all_of_it_is_sent_and_nobody_adds_to_it(
    drive: MultiprocessingCachingStore,
    sender: Mover,
    service: MemoryStore,
    clock: Clock,
    folder: CacheFolder,
) -> None:
    fill(drive)
    clock.now += 2
    while sender.step():
        pass
    assert names(service, "/") == {str(number) for number in NUMBERS}
    assert sizes(folder.spool.folder) == {}
    assert len(packs.all_packs(folder.spool)) == 1
    drive.close()
    sender.step()
    assert packs.all_packs(folder.spool) == []


def test_a_full_pack_is_followed_by_another(
    drive: MultiprocessingCachingStore, folder: CacheFolder
) -> None:
    content = bytes(packs.LARGEST)
    for number in range(2 * packs.SIZE // len(content)):
        put(drive, f"/{number}", content)
    assert len(packs.all_packs(folder.spool)) == 3
    assert len(sizes(folder.spool.folder)) == 2 * packs.SIZE // len(content)
    recover(folder)
    assert all(drive.get_file(f"/{name}") == content for name in names(drive, "/"))


def test_what_was_never_acknowledged_is_thrown_away_and_what_a_row_should_name_is_not(
    drive: MultiprocessingCachingStore, folder: CacheFolder
) -> None:
    put(drive, "/acknowledged", b"acknowledged")
    received = drive._received(io.BytesIO(b"received"), Row("/received", FILE), None)
    assert received.spool is not None
    deleted = put(drive, "/deleted", b"deleted")
    assert deleted["bytes"] == 7
    drive.delete("/deleted")
    lose_rows(folder)
    drive.close()
    recover(folder)
    assert kept(folder) == {b"acknowledged"}
    drive._settle(received.spool, is_needed=False)


def test_of_a_journal_that_is_missing_all_is_kept_that_is_whole(
    drive: MultiprocessingCachingStore, folder: CacheFolder
) -> None:
    """Also where the first start after that breaks off."""
    put(drive, "/named", b"named")
    received = drive._received(io.BytesIO(b"received"), Row("/received", FILE), None)
    put(drive, "/deleted", b"deleted")
    drive.delete("/deleted")
    drive.close()
    folder.journal_path.unlink()
    in_the_way = folder.path / "spool" / LOST
    in_the_way.touch()
    with pytest.raises(FileExistsError):
        recover(folder)
    in_the_way.unlink()
    folder.release()
    recover(folder)
    assert kept(folder) == {b"named", b"received"}
    drive._settle(received.spool or "", is_needed=False)


def test_of_a_journal_that_is_damaged_all_is_kept_that_is_whole(
    drive: MultiprocessingCachingStore, folder: CacheFolder
) -> None:
    fill(drive)
    drive.delete("/1")
    drive.close()
    (pack,) = packs.all_packs(folder.spool)
    data = bytearray(pack.read_bytes())
    found = packs.records(folder.spool)
    torn = next(record for record in found if b'"/2"' in data[record.start : record.end])
    data[torn.start - 20 : torn.end] = bytes(torn.end - torn.start + 20)
    pack.write_bytes(data)
    folder.journal_path.write_bytes(b"no database at all " * 1000)
    recover(folder)
    assert kept(folder) == {b"%d" % number for number in NUMBERS if number not in (1, 2)}
    recover(folder)
    assert packs.all_packs(folder.spool) == []
    assert len(kept(folder)) == len(NUMBERS) - 2


def test_a_pack_that_ends_early_is_noticed(
    drive: MultiprocessingCachingStore, folder: CacheFolder
) -> None:
    fill(drive)
    drive.close()
    (pack,) = packs.all_packs(folder.spool)
    record = sorted(packs.records(folder.spool), key=lambda record: record.start)[5]
    os.truncate(pack, record.start)
    recover(folder)
    failed = {row.path for row in folder.journal(0).below("/") if row.error}
    assert failed == {f"/{number}" for number in NUMBERS if number >= 5}


def test_a_start_looks_at_each_pack_once_for_all_that_is_in_it(
    drive: MultiprocessingCachingStore, folder: CacheFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in NUMBERS:
        put(drive, f"/{number}")
    drive.close()
    looked: list[Path] = []
    size_of = packs.size_of

    def noted(pack: Path) -> int:
        looked.append(pack)
        return size_of(pack)

    monkeypatch.setattr(packs, "size_of", noted)
    folder.recover()
    assert looked == packs.all_packs(folder.spool)
    assert len(looked) == 1


def test_what_waits_for_long_gives_its_pack_free(
    drive: MultiprocessingCachingStore, folder: CacheFolder, clock: Clock
) -> None:
    fill(drive)
    journal = folder.journal(0, clock)
    for number in NUMBERS[1:]:
        drive.delete(f"/{number}")
    clock.now += AFTER + 1
    unpack(journal, folder.spool)
    assert len(packs.all_packs(folder.spool)) == 1  # somebody adds to it
    drive.close()
    unpack(journal, folder.spool)
    packs.sweep(folder.spool, journal.needs_pack)
    assert packs.all_packs(folder.spool) == []
    assert drive.get_file("/0") == b"0"
    assert journal.volume() == 1 + ROW_COST
    recover(folder)
    assert drive.get_file("/0") == b"0"
    assert kept(folder) == set()
    journal.close()


def test_packs_count_as_what_they_take_of_the_disk(
    drive: MultiprocessingCachingStore, folder: CacheFolder
) -> None:
    fill(drive)
    assert drive._room.spooled() == packs.SIZE + len(NUMBERS) * ROW_COST
    drive.delete("/0")
    assert drive._room.spooled() == packs.SIZE + (len(NUMBERS) - 1) * ROW_COST
    with pytest.raises(NoSuchFilesytemObjectError):
        drive.get_file("/0")

"""What a check finds, what a repair puts right, and what neither may touch."""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from davfusion.cache import check, packs
from davfusion.cache.block_cache import BlockCache
from davfusion.cache.clear import clear_cache
from davfusion.cache.folder import CacheFolder
from davfusion.stores.memory import MemoryStore
from davfusion.stores.store import Store
from tests.cache.service import put
from tests.cache.writeback import mover, share
from tests.remote import RemoteStore


@pytest.fixture
def folder(tmp_path: Path) -> CacheFolder:
    return CacheFolder(tmp_path, "test")


@pytest.fixture
def spool(folder: CacheFolder) -> Path:
    return folder.path / "spool"


def write(tmp_path: Path, path: str, content: bytes, service: Store | None = None) -> None:
    """Acknowledged, and not sent."""
    store = share(service or MemoryStore(), tmp_path)
    put(store, path, content)
    store.close()


def look(folder: CacheFolder, wait: Callable[[float], None] = lambda _: None) -> check.Report:
    return check.check_cache(folder, wait=wait)


def repair(folder: CacheFolder) -> check.Report:
    return check.check_cache(folder, repair=True, wait=lambda _: None)


def drained(service: MemoryStore, tmp_path: Path) -> dict[str, bytes]:
    """What the store has once all is sent."""
    journal = CacheFolder(tmp_path, "test").journal(0)
    for _ in range(10):
        with journal.database.transaction() as db:
            db.execute("UPDATE pending SET due = 0")
        mover(service, tmp_path).step()
    assert not journal.has_below("/")
    journal.close()
    found = dict(service.walk_metadata("/"))
    return {path: service.get_file(path) for path, about in found.items() if not about["is_dir"]}


def only_spooled(spool: Path) -> Path:
    """The file of the one content that waits: its own, or a pack."""
    (found,) = [*(spool / "new").iterdir()] or spool.glob("packs/*")
    return found


@pytest.fixture(params=["in a pack", "in a file of its own"])
def content(request: pytest.FixtureRequest) -> bytes:
    return b"content" if request.param == "in a pack" else b"content" * packs.LARGEST


def test_all_is_well(folder: CacheFolder, tmp_path: Path) -> None:
    write(tmp_path, "/docs/a", b"content")
    report = look(folder)
    assert report.findings == ()
    assert report.contents == 1
    assert repair(folder).is_well


def test_a_folder_that_nobody_has_used(folder: CacheFolder) -> None:
    folder.path.mkdir()
    assert look(folder).is_well
    assert not list(folder.path.iterdir())


def test_a_flipped_byte_and_a_missing_file(
    folder: CacheFolder, tmp_path: Path, spool: Path, content: bytes
) -> None:
    write(tmp_path, "/a", content)
    file = only_spooled(spool)
    file.write_bytes(file.read_bytes().replace(content, b"k" + content[1:]))
    (finding,) = look(folder).findings
    assert finding.subject.startswith("/a ")
    assert "changed" in finding.problem
    file.rename(tmp_path / "elsewhere")
    assert "missing" in look(folder).findings[0].problem
    assert not repair(folder).is_well


def test_what_is_gone_by_the_second_look_was_never_wrong(
    folder: CacheFolder, tmp_path: Path, spool: Path, content: bytes
) -> None:
    write(tmp_path, "/a", content)
    file = only_spooled(spool)
    elsewhere = file.rename(tmp_path / "elsewhere")

    def meanwhile(_seconds: float) -> None:
        elsewhere.rename(file)

    assert look(folder, meanwhile).is_well


def test_a_lost_journal(folder: CacheFolder, tmp_path: Path, spool: Path, content: bytes) -> None:
    service = MemoryStore()
    write(tmp_path, "/docs/deep/a", content, service)
    folder.journal_path.unlink()
    (finding,) = look(folder).findings
    assert finding.subject.startswith(str(only_spooled(spool)))
    report = repair(folder)
    assert [finding.repaired for finding in report.findings] == [True]
    assert look(folder).is_well
    store = share(service, tmp_path)
    assert store.get_file("/docs/deep/a") == content
    store.close()
    assert drained(service, tmp_path) == {"/docs/deep/a": content}


@pytest.mark.parametrize("damage", [b"", b"no database at all " * 1000])
def test_a_damaged_journal(
    folder: CacheFolder, tmp_path: Path, damage: bytes, content: bytes
) -> None:
    service = MemoryStore()
    write(tmp_path, "/a", content, service)
    folder.journal_path.write_bytes(damage)
    assert not look(folder).is_well
    assert folder.journal_path.read_bytes() == damage
    repair(folder)
    aside = list(folder.path.glob("journal.sqlite.damaged-*"))
    assert [path.read_bytes() for path in aside] == [damage] * bool(damage)
    assert [finding.subject for finding in look(folder).findings] == list(map(str, aside))
    assert drained(service, tmp_path) == {"/a": content}


def test_beside_a_server_only_what_is_lost_and_found_comes_back(
    folder: CacheFolder, tmp_path: Path, spool: Path, content: bytes
) -> None:
    service = MemoryStore()
    write(tmp_path, "/a", content, service)
    folder.journal_path.unlink()
    server = CacheFolder(tmp_path, "test")
    server.claim()
    file = only_spooled(spool)
    assert not repair(folder).is_well
    assert file.exists()
    server.recover()  # as a server does before it serves
    assert list((spool / "lost+found").iterdir())
    assert repair(folder).is_well
    assert not list((spool / "lost+found").iterdir())
    assert drained(service, tmp_path) == {"/a": content}
    server.release()


def test_both_versions_stay(folder: CacheFolder, tmp_path: Path) -> None:
    """What comes back stands beside what was written since, pending or stored."""
    service = MemoryStore()
    write(tmp_path, "/pending", b"old", service)
    write(tmp_path, "/stored", b"old", service)
    write(tmp_path, "/same", b"stored by then", service)
    folder.journal_path.unlink()
    folder.claim()
    folder.recover()
    folder.release()
    write(tmp_path, "/pending", b"new", service)
    put(service, "/stored", b"new")
    put(service, "/same", b"stored by then")
    assert repair(folder).is_well
    found = drained(service, tmp_path)
    assert sorted(found.values()) == [b"new", b"new", b"old", b"old", b"stored by then"]
    assert found["/pending"] == found["/stored"] == b"new"


def test_a_file_stands_where_a_folder_was(
    folder: CacheFolder, tmp_path: Path, spool: Path, content: bytes
) -> None:
    write(tmp_path, "/name/a", content)
    folder.journal_path.unlink()
    write(tmp_path, "/name", b"a file")
    report = repair(folder)
    assert not report.is_well
    (kept,) = (spool / "lost+found").iterdir()
    assert kept.read_bytes().startswith(content)


def test_content_that_a_change_has_lost_finds_its_way_back(
    folder: CacheFolder, tmp_path: Path, spool: Path
) -> None:
    service = MemoryStore()
    write(tmp_path, "/a", b"content", service)
    (spool / "lost+found").mkdir()
    own_file = spool / "lost+found" / "found"
    pack = only_spooled(spool)
    (record,) = packs.records(folder.spool)
    packs.copy(folder.spool, record.name, own_file)
    pack.unlink()
    assert repair(folder).is_well
    assert drained(service, tmp_path) == {"/a": b"content"}


def test_content_of_nobody_stays(folder: CacheFolder, tmp_path: Path, spool: Path) -> None:
    write(tmp_path, "/a", b"content")
    (spool / "lost+found").mkdir()
    stranger = spool / "lost+found" / "stranger"
    stranger.write_bytes(b"cut short")
    (finding,) = repair(folder).findings
    assert finding.subject == str(stranger)
    assert not finding.repaired
    assert stranger.read_bytes() == b"cut short"


def test_a_hold_of_a_process_that_has_ended(folder: CacheFolder, tmp_path: Path) -> None:
    write(tmp_path, "/a", b"content")
    journal = folder.journal(0)
    with journal.database.transaction() as db:
        db.execute("INSERT INTO hold VALUES ('/a', 'ended')")
    assert "has ended" in look(folder).findings[0].problem
    assert repair(folder).is_well
    assert not journal.database.rows("SELECT * FROM hold")
    journal.close()


def fill_blocks(tmp_path: Path) -> MemoryStore:
    service = RemoteStore()
    put(service, "/big", os.urandom(2_000_000))
    store = share(service, tmp_path)
    store.get_file("/big")
    store.close()
    return service


def test_a_damaged_block_and_a_listing_that_is_none(folder: CacheFolder, tmp_path: Path) -> None:
    service = fill_blocks(tmp_path)
    block = next((folder.path / "blocks").rglob("*.val"))
    block.write_bytes(b"?" + block.read_bytes()[1:])
    listings = folder.path / "listings.sqlite"
    for path in folder.path.glob("listings.sqlite*"):
        path.unlink()
    listings.write_bytes(b"no database at all " * 1000)
    assert len(look(folder).findings) == 2
    assert repair(folder).is_well
    assert look(folder).findings == ()
    store = share(service, tmp_path)
    assert store.get_file("/big") == service.get_file("/big")
    store.close()


def test_locks_and_properties_that_cannot_be_read_are_left_alone(folder: CacheFolder) -> None:
    folder.prepare()
    state = folder.path / "state.sqlite"
    state.write_bytes(b"no database at all " * 1000)
    assert not repair(folder).is_well
    assert state.read_bytes().startswith(b"no database")


def test_clearing_leaves_what_is_dirty(folder: CacheFolder, tmp_path: Path) -> None:
    service = fill_blocks(tmp_path)
    store = share(service, tmp_path)  # it goes on working
    put(store, "/a", b"content")
    with sqlite3.connect(folder.path / "state.sqlite") as state:
        state.execute("CREATE TABLE property (name)")
    state.close()
    assert clear_cache(folder) > 2_000_000
    assert store.get_file("/a") == b"content"
    assert store.get_file("/big") == service.get_file("/big")
    assert set(store.get_directory_metadata("/")) == {"a", "big"}
    store.close()
    assert (folder.path / "state.sqlite").stat().st_size > 0
    assert look(folder).is_well
    assert drained(service, tmp_path).keys() == {"/a", "/big"}


def test_what_was_read_before_a_clearing_is_fetched_again(
    folder: CacheFolder, tmp_path: Path
) -> None:
    fill_blocks(tmp_path)
    clear_cache(folder)
    blocks = BlockCache(folder.path / "blocks", 1 << 30)
    assert blocks.volume() < 200_000
    blocks.close()
    assert not (folder.path / "listings.sqlite").exists()

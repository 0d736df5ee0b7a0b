"""Changes that ended half-way, and folders in the place of files: nobody else has been at work."""

import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import pytest

from davfusion import platform
from davfusion.cache import packs, spool
from davfusion.cache.filestore import own_name
from davfusion.cache.folder import CacheFolder
from davfusion.cache.holds import Holds
from davfusion.cache.multiprocessing_caching_store import MultiprocessingCachingStore
from davfusion.cache.outbox import Outbox
from davfusion.cache.pending import DELETIONS, LARGE, SMALL
from davfusion.stores.errors import PartialFailureError
from davfusion.stores.memory import MemoryStore
from davfusion.stores.store import NoSuchFilesytemObjectError, Store, TransientStoreError
from davfusion.stores.wrapper import StoreWrapper
from tests.cache.writeback import mover, share

OLD, NEW = b"old", b"new"


class BreakingStore(StoreWrapper):
    """With `breaks`, copies break off when they have been made."""

    breaks = False

    def duplicate(self, path_to_src: str, path_to_dest: str, *, replace: bool = True) -> None:
        super().duplicate(path_to_src, path_to_dest, replace=replace)
        if not self.breaks:
            return
        error = TransientStoreError("broken off")
        raise PartialFailureError("broken off", failures={path_to_src: error})


def put(store: Store, path: str, content: bytes) -> None:
    store.store_fileobject(io.BytesIO(content), path)


class Folder:
    """The cache folder of a drive, as its other processes see it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cache = CacheFolder(path, "test")
        self.journal = self.cache.journal(0)
        self.outbox = Outbox(self.journal, self.cache.spool)

    def drain(self, service: Store) -> None:
        """Nothing may be taken for another program's edit."""
        sender = mover(service, self.path)
        self.outbox.hurry()
        while sender.step():
            pass
        sender.close()
        assert not self.journal.has_below("/")
        assert not self.journal.database.rows("SELECT * FROM conflict")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    folder = Folder(tmp_path)
    yield folder
    folder.journal.close()
    folder.cache.release()


@pytest.fixture
def service() -> BreakingStore:
    return BreakingStore(MemoryStore())


@pytest.fixture
def drive(service: BreakingStore, tmp_path: Path) -> Iterator[MultiprocessingCachingStore]:
    drive = share(service, tmp_path)
    yield drive
    drive.close()


@pytest.mark.parametrize("last", ["delete", "put"])
def test_a_folder_that_stood_in_the_place_of_a_file_leaves_no_conflict(
    service: BreakingStore, drive: MultiprocessingCachingStore, folder: Folder, last: str
) -> None:
    put(service, "/a", OLD)
    drive.delete("/a")
    drive.create_directory("/a")
    drive.delete("/a", is_dir=True)
    if last == "put":
        put(drive, "/a", NEW)
    folder.drain(service)
    assert list(service.get_directory_metadata("/")) == (["a"] if last == "put" else [])
    assert last == "delete" or service.get_file("/a") == NEW


@pytest.mark.parametrize("last", ["delete", "put"])
def test_what_was_sent_and_not_confirmed_moves_along(
    service: BreakingStore, drive: MultiprocessingCachingStore, folder: Folder, last: str
) -> None:
    drive.create_directory("/d")
    folder.drain(service)
    put(drive, "/d/a", OLD)
    folder.outbox.hurry()
    assert [row.path for row in folder.outbox.take({SMALL: 1, LARGE: 0, DELETIONS: 0})] == ["/d/a"]
    put(service, "/d/a", OLD)
    folder.outbox.begin()  # the mover has been killed, and another one starts
    if last == "put":
        put(drive, "/d/a", NEW)
    else:
        drive.delete("/d/a")
    drive.move("/d", "/e")
    folder.drain(service)
    assert not service.exists("/d")
    assert list(service.get_directory_metadata("/e")) == (["a"] if last == "put" else [])
    assert last == "delete" or service.get_file("/e/a") == NEW


def test_a_copy_that_breaks_off_is_no_foreign_edit(
    service: BreakingStore, drive: MultiprocessingCachingStore, folder: Folder
) -> None:
    put(service, "/clean", OLD)
    service.breaks = True
    put(drive, "/dirty", NEW)
    with pytest.raises(PartialFailureError):
        drive.move("/clean", "/dirty")
    assert drive.get_file("/dirty") == NEW
    folder.drain(service)
    assert service.get_file("/dirty") == NEW
    assert service.get_file("/clean") == OLD


def test_what_is_pending_stays_to_be_seen_where_a_copy_breaks_off(
    service: BreakingStore, drive: MultiprocessingCachingStore, folder: Folder
) -> None:
    put(service, "/source/in/copied", OLD)
    put(service, "/target/in/clean", OLD)
    put(drive, "/target/in/dirty", NEW)
    service.breaks = True
    for _ in range(2):
        with pytest.raises(PartialFailureError):
            drive.move("/source", "/target")
        assert set(drive.get_directory_metadata("/target")) == {"in"}
        assert set(drive.get_directory_metadata("/target/in")) == {"copied", "dirty"}
    folder.drain(service)
    assert service.get_file("/target/in/dirty") == NEW
    assert service.get_file("/target/in/copied") == OLD


def test_a_pending_folder_stays_to_be_seen_where_a_copy_breaks_off(
    service: BreakingStore, drive: MultiprocessingCachingStore, folder: Folder
) -> None:
    put(service, "/source/copied", OLD)
    service.create_directory("/target/in")
    drive.create_directory("/target/in/made")
    service.breaks = True
    with pytest.raises(PartialFailureError):
        drive.move("/source", "/target")
    seen = set(drive.get_directory_metadata("/target"))
    assert seen == {"copied", "in"}
    assert set(drive.get_directory_metadata("/target/in")) == {"made"}
    folder.drain(service)
    assert set(drive.get_directory_metadata("/target")) == seen


def test_a_start_asks_again_where_a_copy_was_broken_off(
    service: BreakingStore, drive: MultiprocessingCachingStore, folder: Folder
) -> None:
    assert drive.get_directory_listing("/") == []
    put(service, "/copy", NEW)
    with folder.journal.database.transaction() as db:
        db.execute("INSERT INTO hold VALUES ('/copy', 'killed')")
    assert not drive.exists("/copy")
    folder.cache.recover()
    assert drive.exists("/copy")
    assert drive.get_directory_listing("/") == ["/copy"]


@pytest.mark.usefixtures("drive")
def test_a_hold_ends_only_when_what_it_held_is_in_doubt(folder: Folder) -> None:
    """Else who is killed in between leaves what was known before a copy was broken off."""
    holds = Holds(folder.journal, folder.path / "owners")
    with folder.journal.database.transaction() as db:
        db.execute("INSERT INTO hold VALUES ('/copy', 'killed')")

    def end(doubted: list[str]) -> None:
        raise InterruptedError(doubted)

    with pytest.raises(InterruptedError, match="/copy"):
        holds.remove_void(end)
    assert folder.journal.database.rows("SELECT path FROM hold") == [("/copy",)]
    holds.remove_void(folder.cache.doubt)
    assert not folder.journal.database.rows("SELECT path FROM hold")


@pytest.mark.usefixtures("drive")
def test_a_hold_of_one_thread_does_not_end_with_that_of_another(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    holds = Holds(folder.journal, folder.path / "owners")
    both = threading.Barrier(2)

    def lock(file: IO[Any]) -> bool:
        with suppress(threading.BrokenBarrierError):
            both.wait(0.2)
        return platform.lock_file(file)

    def hold(path: str) -> set[str]:
        with holds.held(path):
            rows = folder.journal.database.rows("SELECT owner FROM hold WHERE path = ?", (path,))
            return {owner for (owner,) in rows}

    monkeypatch.setattr("davfusion.cache.holds.lock_file", lock)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(hold, ["/a", "/b"])
    holds.close()
    assert first == second


def test_content_that_a_change_makes_needless_is_swept_away_after_a_crash(
    drive: MultiprocessingCachingStore, folder: Folder, tmp_path: Path
) -> None:
    put(drive, "/a", OLD * packs.LARGEST)
    files = folder.cache.spool
    (content,) = files.list("new")
    name = Path(content).name
    spool.set_apart(files, name)
    assert drive.get_file("/a") == OLD * packs.LARGEST  # the commit has not come yet
    spool.complete(files, name)  # by the one who wrote it, late
    spool.claim(files, name)  # by the mover, which had taken the row before
    (apart,) = files.list("tmp")
    os.link(apart, tmp_path / "kept")
    drive.delete("/a")
    os.link(tmp_path / "kept", apart)  # the crash came before its removal
    folder.cache.recover()
    assert files.list("tmp") == []
    assert not (tmp_path / "test" / "spool" / "lost+found").exists()
    with pytest.raises(NoSuchFilesytemObjectError):
        drive.get_file("/a")


def test_what_killed_processes_were_receiving_goes_and_what_they_had_acknowledged_stays(
    drive: MultiprocessingCachingStore, folder: Folder, service: BreakingStore, tmp_path: Path
) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as killed:
        pass
    put(drive, "/acknowledged", OLD * packs.LARGEST)
    files = folder.cache.spool
    (content,) = map(Path, files.list("new"))
    named = content.name.replace(str(os.getpid()), str(killed.pid))
    content.rename(files.path(named, "tmp"))
    with folder.journal.database.transaction() as db:
        db.execute("UPDATE pending SET spool = ?", (named,))
    received = own_name()
    for left in (received, f"a.{killed.pid}", f"b.{killed.pid}.apart"):
        files.create(left).close()
    sender = mover(service, tmp_path)
    sender.step()
    sender.close()
    assert {Path(path).name for path in files.list("tmp")} == {named, received}
    assert drive.get_file("/acknowledged") == OLD * packs.LARGEST


def test_what_a_killed_mover_was_about_to_remove_goes_when_the_next_one_starts(
    drive: MultiprocessingCachingStore, folder: Folder
) -> None:
    """Though the worker that received it goes on."""
    put(drive, "/needed", OLD * packs.LARGEST)
    files = folder.cache.spool
    (content,) = files.list("new")
    spool.set_apart(files, Path(content).name)
    received = own_name()
    for left in (received, f"{own_name()}.apart"):
        files.create(left).close()
    folder.outbox.begin()
    named = {Path(content).name + ".apart", received}
    assert {Path(path).name for path in files.list("tmp")} == named
    assert drive.get_file("/needed") == OLD * packs.LARGEST


def test_what_was_set_apart_in_vain_stays(
    drive: MultiprocessingCachingStore, folder: Folder, service: BreakingStore
) -> None:
    """The commit that was to take it from its row was lost."""
    content = OLD * packs.LARGEST
    put(drive, "/claimed", content)
    put(drive, "/restarted", content)
    files = folder.cache.spool
    names = [Path(path).name for path in files.list("new")]
    for name in names:
        spool.set_apart(files, name)
    assert files.list("new") == []
    spool.claim(files, names[0])
    folder.cache.recover()
    assert sorted(Path(path).name for path in files.list("new")) == sorted(names)
    folder.drain(service)
    assert [service.get_file(path) for path in ("/claimed", "/restarted")] == [content] * 2

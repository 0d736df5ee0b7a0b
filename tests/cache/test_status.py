"""The figures of a cache folder, beside those who work in it and when nobody does."""

import time
from pathlib import Path

import pytest

from davfusion.cache.folder import CacheFolder
from davfusion.cache.outbox import Outbox
from davfusion.cache.pending import INSERT, Row
from davfusion.cache.status import LISTED, CacheStatus, read_status
from davfusion.stores.memory import MemoryStore
from davfusion.stores.store import StoreSpaceLimitError, TransientStoreError
from tests.cache.service import put
from tests.cache.writeback import mover, share
from tests.clock import Clock
from tests.remote import RemoteStore


@pytest.fixture
def folder(tmp_path: Path) -> CacheFolder:
    return CacheFolder(tmp_path, "test")


def contents(folder: Path) -> dict[Path, bytes]:
    """All but what SQLite keeps beside a database that somebody reads."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in files if not path.name.endswith(("-wal", "-shm"))}


def test_of_an_empty_folder_nothing_is_made(folder: CacheFolder) -> None:
    folder.path.mkdir()
    status = read_status(folder)
    assert status.journal.pending.count == 0
    assert not status.in_use
    assert not status.needs_somebody
    assert not list(folder.path.iterdir())


def test_whether_the_store_is_away(folder: CacheFolder) -> None:
    folder.claim()
    assert read_status(folder).away is None
    began = time.time()
    for reason in ("nobody listens", "nor later"):
        folder.note_away(reason)
    away = read_status(folder).away
    assert away is not None
    assert away.reason == "nobody listens"
    assert away.since == pytest.approx(began, abs=10)
    folder.release()
    assert read_status(folder).away is None  # nobody looks any more
    folder.claim()
    assert read_status(folder).away is not None
    folder.note_away(None)
    assert read_status(folder).away is None
    folder.release()


def test_what_waits(folder: CacheFolder, tmp_path: Path) -> None:
    service, clock = MemoryStore(), Clock()
    put(service, "/old")
    store = share(service, tmp_path, clock=clock)
    put(store, "/docs/a", b"12345")
    clock.now += 10
    put(store, "/b", b"123")
    store.delete("/old")
    before = contents(folder.path)
    pending = read_status(folder).journal.pending
    assert contents(folder.path) == before
    assert (pending.files, pending.directories, pending.deletions) == (2, 1, 1)
    assert pending.bytes == 8
    assert pending.oldest == clock.now - 10
    assert read_status(folder).spooled == 8
    clock.now += 1
    while mover(service, tmp_path, clock=clock).step():
        pass
    assert read_status(folder).journal.pending.count == 0
    store.close()


def take_two(folder: CacheFolder, tmp_path: Path) -> tuple[Outbox, list[Row]]:
    store = share(MemoryStore(), tmp_path, delay=0)
    put(store, "/a")
    put(store, "/b")
    store.close()
    outbox = Outbox(folder.journal(0), folder.spool)
    return outbox, sorted(outbox.take({"small": 2, "large": 0, "deletions": 0}))


def test_what_is_sent_and_what_fails(folder: CacheFolder, tmp_path: Path) -> None:
    outbox, (first, second) = take_two(folder, tmp_path)
    outbox.note_progress(first, 1)
    assert not read_status(folder).journal.sending.count  # of a mover that was killed
    owner = CacheFolder(tmp_path, "test")
    owner.claim()
    status = read_status(folder)
    assert status.in_use
    assert [(change.path, change.sent) for change in status.journal.sending.first] == [
        ("/a", 1),
        ("/b", 0),
    ]
    assert not status.needs_somebody
    outbox.failed(first, StoreSpaceLimitError("the quota is used up"))
    outbox.postponed([second], TransientStoreError("busy"), None)
    owner.release()
    status = read_status(folder)
    assert status.needs_somebody
    assert [(c.path, c.tries, c.error) for c in status.journal.failed.first] == [
        ("/a", 1, "the quota is used up")
    ]
    assert [(c.path, c.error) for c in status.journal.retrying.first] == [("/b", "busy")]


def test_what_was_set_aside(folder: CacheFolder, tmp_path: Path) -> None:
    outbox, (first, _) = take_two(folder, tmp_path)
    outbox.set_aside(first, "/a (conflicted copy)")
    conflicts = read_status(folder).journal.conflicts
    assert conflicts.count == 1
    assert (conflicts.first[0].path, conflicts.first[0].copy) == ("/a", "/a (conflicted copy)")


def test_reads_and_blocks(folder: CacheFolder, tmp_path: Path) -> None:
    service = RemoteStore()
    put(service, "/a", b"x" * 100_000)
    store = share(service, tmp_path)
    for _ in range(2):
        assert store.get_file("/a") == b"x" * 100_000
    store.close()
    blocks = read_status(folder).blocks
    assert blocks.hits > 0
    assert blocks.misses > 0
    assert 100_000 <= blocks.bytes < 400_000


@pytest.mark.parametrize("content", [b"", b"no database at all " * 1000])
def test_a_damaged_journal(folder: CacheFolder, tmp_path: Path, content: bytes) -> None:
    folder.prepare()
    folder.journal_path.write_bytes(content)
    status = read_status(folder)
    assert status.journal.problem
    assert status.needs_somebody
    assert folder.journal_path.read_bytes() == content


def test_a_hundred_thousand_changes(folder: CacheFolder) -> None:
    folder.prepare()
    journal = folder.journal(0)
    error = "the quota is used up"
    with journal.database.transaction() as db:
        rows = (
            Row(f"/folder/{n:06}", "file", bytes=1, attempts=1, error=error, state="failed")
            for n in range(100_000)
        )
        db.executemany(INSERT, (("/folder", *row) for row in rows))
    journal.close()
    start = time.monotonic()
    status: CacheStatus = read_status(folder)
    assert time.monotonic() - start < 5  # 0.1 s on a machine at rest
    assert status.journal.pending.bytes == 100_000
    assert status.journal.failed.count == 100_000
    assert len(status.journal.failed.first) == LISTED

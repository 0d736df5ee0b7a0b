"""When the mover sends what, and how much at a time (rows C2, C16)."""

import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from davfusion.cache.filestore import FileStore
from davfusion.cache.folder import CacheFolder
from davfusion.cache.journal import LONGEST_DELAY
from davfusion.cache.mover import BATCH, Mover, MoverThread
from davfusion.cache.multiprocessing_caching_store import MultiprocessingCachingStore
from davfusion.cache.outbox import Outbox
from davfusion.stores.store import (
    Metadata,
    PartialFailureError,
    StoreAccessError,
    StoreAutorizationError,
    TransientStoreError,
    Upload,
)
from davfusion.stores.wrapper import P, R, StoreWrapper
from tests.cache import writeback
from tests.clock import Clock
from tests.remote import RemoteStore
from tests.samples import put

TOGETHER = 8


class LosingAnswers(StoreWrapper):
    """Carries out an upload, and then the connection breaks, `losses` times."""

    losses = 1

    def _call(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        answer = method(*args, **kwargs)
        if self.losses and method.__name__ == "store_resumable":
            self.losses -= 1
            raise TransientStoreError("the connection broke")
        return answer


class PartlyBusy(StoreWrapper):
    """Removes no folder: of what is in it, some things pass and others do not."""

    errors: tuple[StoreAccessError, ...] = ()

    def delete(self, path: str, is_dir: bool = False) -> None:
        if is_dir and self.errors:
            failures = {f"{path}/{number}": error for number, error in enumerate(self.errors)}
            raise PartialFailureError("not all is gone", failures=failures)
        super().delete(path, is_dir)


class Meeting(StoreWrapper):
    """An upload ends once as many as TOGETHER are under way; notes the sizes of deletions."""

    def __init__(self) -> None:
        super().__init__(RemoteStore())
        self.meet: threading.Barrier | None = None
        self.batches: list[int] = []

    def store_resumable(
        self,
        fileobject: BinaryIO,
        path: str,
        upload: Upload,
        *,
        if_etag: str | None = None,
        modified: float | None = None,
        content_type: str | None = None,
    ) -> Metadata:
        if self.meet is not None:
            self.meet.wait(20)
        return super().store_resumable(
            fileobject,
            path,
            upload,
            if_etag=if_etag,
            modified=modified,
            content_type=content_type,
        )

    def delete_many(self, files: Iterable[str]) -> None:
        gone = list(files)
        self.batches.append(len(gone))
        super().delete_many(gone)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def service() -> Meeting:
    return Meeting()


@pytest.fixture
def drive(service: Meeting, tmp_path: Path, clock: Clock) -> Iterator[MultiprocessingCachingStore]:
    drive = writeback.share(service, tmp_path, delay=1, clock=clock)
    yield drive
    drive.close()


@pytest.fixture
def mover(service: Meeting, tmp_path: Path, clock: Clock) -> Iterator[Mover]:
    mover = writeback.mover(service, tmp_path, clock=clock)
    yield mover
    mover.close()


def test_each_change_begins_the_delay_anew(
    drive: MultiprocessingCachingStore, mover: Mover, service: Meeting, clock: Clock
) -> None:
    put(drive, "/a", b"1")
    clock.now += 0.9
    assert not mover.step()
    put(drive, "/a", b"2")
    clock.now += 0.9
    assert not mover.step()
    assert not service.exists("/a")
    clock.now += 0.2
    assert mover.step() == 1
    assert service.get_file("/a") == b"2"


def test_what_changes_all_the_time_is_sent_after_a_minute(
    drive: MultiprocessingCachingStore, mover: Mover, service: Meeting, clock: Clock
) -> None:
    began = clock.now
    while not service.exists("/a"):
        put(drive, "/a", b"content")
        clock.now += 0.5
        mover.step()
    assert 59 < clock.now - began <= 60


def test_a_clock_that_is_set_back_puts_nothing_off(
    drive: MultiprocessingCachingStore, mover: Mover, service: Meeting, clock: Clock
) -> None:
    put(drive, "/a")
    assert not mover.step()
    clock.now -= 3600
    assert not mover.step()
    clock.now += LONGEST_DELAY
    assert mover.step() == 1
    assert service.exists("/a")


def test_what_was_written_by_a_clock_far_ahead_is_sent_after_a_start(
    drive: MultiprocessingCachingStore, mover: Mover, service: Meeting, clock: Clock
) -> None:
    put(drive, "/a")
    clock.now -= 365 * 86400
    assert not mover.step()
    clock.now += LONGEST_DELAY
    assert mover.step() == 1
    assert service.exists("/a")


def test_small_files_are_sent_at_the_same_time(
    drive: MultiprocessingCachingStore, mover: Mover, service: Meeting, clock: Clock
) -> None:
    service.meet = threading.Barrier(TOGETHER)
    for number in range(2 * TOGETHER):
        put(drive, f"/{number}")
    clock.now += 2
    thread = MoverThread(mover)
    drive.flush()
    thread.stop()
    assert len(service.get_directory_metadata("/")) == 2 * TOGETHER


def test_deletions_go_by_thousands(
    drive: MultiprocessingCachingStore, mover: Mover, service: Meeting, clock: Clock
) -> None:
    for number in range(2 * BATCH + 500):
        put(service, f"/d/{number}")
    for path in drive.get_directory_listing("/d"):
        drive.delete(path)
    clock.now += 2
    while mover.step():
        continue
    assert service.batches == [BATCH, BATCH, 500]
    assert not service.get_directory_metadata("/d")


def test_deletions_that_are_due_soon_go_with_one_that_is_due(
    drive: MultiprocessingCachingStore, mover: Mover, service: Meeting, clock: Clock
) -> None:
    for number in range(4):
        put(service, f"/d/{number}")
    for path in drive.get_directory_listing("/d"):
        drive.delete(path)
        clock.now += 0.2
    put(drive, "/d/new")
    clock.now += 0.15
    assert not mover.step()
    clock.now += 0.1
    assert mover.step() == service.batches[0] == 2
    assert [*service.get_directory_metadata("/d")] == ["2", "3"]


def test_what_was_stored_though_the_answer_was_lost_is_not_stored_again(
    tmp_path: Path, clock: Clock
) -> None:
    truth = RemoteStore()
    service = LosingAnswers(truth)
    drive = writeback.share(service, tmp_path, delay=0, clock=clock)
    mover = writeback.mover(service, tmp_path, clock=clock)
    given = put(drive, "/a", b"content")
    assert mover.step() == 1
    stored = truth.get_metadata("/a")
    clock.now += 60
    while mover.step():
        continue
    assert truth.get_metadata("/a") == stored
    assert set(truth.get_directory_metadata("/")) == {"a"}
    assert drive.get_metadata("/a")["etag"] == given["etag"]
    mover.close()
    drive.close()


def test_a_folder_of_which_something_cannot_be_removed_just_now_is_tried_again(
    tmp_path: Path, clock: Clock
) -> None:
    refused, busy = StoreAutorizationError("not allowed"), TransientStoreError("busy")
    service = PartlyBusy(RemoteStore())
    drive = writeback.share(service, tmp_path, delay=0, clock=clock)
    mover = writeback.mover(service, tmp_path, clock=clock)
    journal = CacheFolder(tmp_path, "test").journal(0)
    outbox = Outbox(journal, FileStore(tmp_path / "unused"))
    put(service, "/d/0")
    drive.delete("/d", is_dir=True)
    service.errors = (refused, busy)
    for _ in range(3):
        assert mover.step() == 1
        assert outbox.first_failed() is None
        clock.now += 60
    service.errors = (refused,)
    assert mover.step() == 1
    failed = outbox.first_failed()
    assert failed is not None
    assert failed.error == "not all is gone"
    service.errors = ()
    outbox.retry_failed()
    assert mover.step() == 1
    assert not service.get_directory_metadata("/")
    journal.close()
    mover.close()
    drive.close()

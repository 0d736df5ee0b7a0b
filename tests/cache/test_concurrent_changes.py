"""What others do in the middle of a move, or before a deletion is sent (invariants 1, 2, 6)."""

import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Unpack

import pytest

from davfusion.cache.folder import CacheFolder
from davfusion.cache.holds import Holds
from davfusion.cache.mover import Mover
from davfusion.cache.multiprocessing_caching_store import MultiprocessingCachingStore
from davfusion.cache.overlay import Overlay
from davfusion.stores.store import (
    ABSENT,
    AlreadyExistsError,
    ConflictError,
    InterruptEvent,
    Metadata,
    NoSuchFilesytemObjectError,
    SourceStream,
    Store,
    TransientStoreError,
    WriteOptions,
)
from davfusion.stores.wrapper import StoreWrapper
from tests.cache import writeback
from tests.clock import Clock
from tests.remote import AtomicStore, RemoteStore
from tests.samples import contents, put


class Meeting(StoreWrapper):
    """Calls `meanwhile` once, when a copy in the store, or a write, is under way.

    `unanswered` is called once, when the answer that nothing is at a path is under way.
    """

    meanwhile: Callable[[], object] | None = None
    unanswered: Callable[[], object] | None = None
    looked: Callable[[], object] | None = None
    """The same, when the answer that something is there is under way."""

    def duplicate(self, path_to_src: str, path_to_dest: str, *, replace: bool = True) -> None:
        super().duplicate(path_to_src, path_to_dest, replace=replace)
        self._meet()

    def move(self, path_to_src: str, path_to_dest: str, *, replace: bool = True) -> None:
        super().move(path_to_src, path_to_dest, replace=replace)
        self._meet()

    def store_fileobject(
        self,
        fileobject: SourceStream,
        path: str,
        interrupt_event: InterruptEvent | None = None,
        **options: Unpack[WriteOptions],
    ) -> Metadata:
        self._meet()
        return super().store_fileobject(fileobject, path, interrupt_event, **options)

    def get_metadata(self, path: str) -> Metadata:
        try:
            found = super().get_metadata(path)
        except NoSuchFilesytemObjectError:
            if self.unanswered is not None:
                unanswered, self.unanswered = self.unanswered, None
                unanswered()
            raise
        if self.looked is not None:
            looked, self.looked = self.looked, None
            looked()
        return found

    def _meet(self) -> None:
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def truth(request: pytest.FixtureRequest) -> RemoteStore:
    """As a test asks for it by `indirect`: one that moves at once, say."""
    kind: type[RemoteStore] = getattr(request, "param", RemoteStore)
    return kind()


@pytest.fixture
def service(truth: RemoteStore) -> Meeting:
    return Meeting(truth)


@pytest.fixture
def drives(
    service: Meeting, tmp_path: Path, clock: Clock
) -> Iterator[list[MultiprocessingCachingStore]]:
    """Two workers."""
    drives = [
        writeback.share(service, tmp_path, delay=0, clock=clock, megabytes=8) for _ in range(2)
    ]
    yield drives
    for drive in drives:
        drive.close()


@pytest.fixture
def mover(service: Meeting, tmp_path: Path, clock: Clock) -> Iterator[Mover]:
    mover = writeback.mover(service, tmp_path, clock=clock)
    yield mover
    mover.close()


def drain(mover: Mover) -> None:
    while mover.step():
        pass


Drives = list[MultiprocessingCachingStore]
Change = Callable[[MultiprocessingCachingStore], object]
LARGER_THAN_THE_CACHE = bytes((8 << 20) + 1)


@pytest.mark.parametrize(
    "change", [MultiprocessingCachingStore.move, MultiprocessingCachingStore.duplicate]
)
def test_what_another_program_has_stored_is_not_replaced_unseen(
    truth: RemoteStore, drives: Drives, change: Callable[..., None]
) -> None:
    put(truth, "/a", b"ours")
    put(truth, "/b", b"old")
    assert drives[0].get_file("/b") == b"old"
    put(truth, "/b", b"foreign")
    with pytest.raises(ConflictError):
        change(drives[0], "/a", "/b")
    assert contents(truth, "/") == {"a": b"ours", "b": b"foreign"}
    change(drives[0], "/a", "/b")  # it has been seen now
    assert drives[0].get_file("/b") == b"ours"


def test_a_source_that_is_written_while_it_moves_moves_as_written(
    truth: RemoteStore, service: Meeting, drives: Drives, mover: Mover
) -> None:
    put(truth, "/a", b"old")
    service.meanwhile = lambda: put(drives[1], "/a", b"new")
    drives[0].move("/a", "/b")
    assert contents(drives[0], "/") == contents(drives[1], "/") == {"b": b"new"}
    drain(mover)
    assert contents(truth, "/") == {"b": b"new"}


@pytest.mark.parametrize("truth", [RemoteStore, AtomicStore], indirect=True)
@pytest.mark.parametrize("method", ["duplicate", "move"])
def test_a_destination_that_is_written_while_it_is_replaced_is_not_lost(
    truth: RemoteStore, service: Meeting, drives: Drives, mover: Mover, method: str
) -> None:
    put(truth, "/a", b"old")
    service.meanwhile = lambda: put(drives[1], "/b", b"new")
    with pytest.raises(TransientStoreError):
        getattr(drives[0], method)("/a", "/b")
    drain(mover)
    assert contents(drives[0], "/") == contents(truth, "/") == {"a": b"old", "b": b"new"}


@pytest.mark.parametrize("truth", [RemoteStore, AtomicStore], indirect=True)
@pytest.mark.parametrize("method", ["duplicate", "move"])
@pytest.mark.parametrize("is_dir", [False, True])
def test_who_may_not_replace_gives_way_to_who_is_quicker(
    truth: RemoteStore, service: Meeting, drives: Drives, mover: Mover, method: str, is_dir: bool
) -> None:
    put(truth, "/a/x", b"old")
    before = contents(truth, "/")
    src = "/a" if is_dir else "/a/x"
    service.meanwhile = lambda: drives[1].create_directory("/b")
    with pytest.raises(AlreadyExistsError):
        getattr(drives[0], method)(src, "/b", replace=False)
    assert contents(truth, "/") == before
    drain(mover)
    for store in (*drives, truth):
        assert contents(store, "/") == before | {"b": None}


@pytest.mark.parametrize("truth", [RemoteStore, AtomicStore], indirect=True)
def test_a_source_that_is_written_while_it_moves_where_nothing_is(
    truth: RemoteStore, service: Meeting, drives: Drives, mover: Mover
) -> None:
    put(truth, "/a", b"old")
    service.meanwhile = lambda: put(drives[1], "/a", b"new")
    drives[0].move("/a", "/b", replace=False)
    drain(mover)
    assert contents(drives[0], "/") == contents(truth, "/") == {"b": b"new"}


@pytest.mark.parametrize("truth", [RemoteStore, AtomicStore], indirect=True)
@pytest.mark.parametrize(
    "first",
    [
        lambda drive: drive.move("/a", "/b", replace=False),
        lambda drive: drive.duplicate("/a", "/b", replace=False),
        lambda drive: put(drive, "/b", LARGER_THAN_THE_CACHE),
    ],
)
@pytest.mark.parametrize(
    "change",
    [
        lambda drive: drive.store_fileobject(io.BytesIO(b"new"), "/b", if_etag=ABSENT),
        lambda drive: drive.move("/pending", "/b", replace=False),
        lambda drive: drive.create_directory("/b"),
    ],
)
def test_what_has_been_judged_before_a_move_is_judged_again(
    truth: RemoteStore,
    service: Meeting,
    drives: Drives,
    first: Change,
    change: Change,
) -> None:
    put(truth, "/a", b"a")
    put(drives[1], "/pending", b"pending")
    service.unanswered = lambda: first(drives[0])
    with pytest.raises((AlreadyExistsError, ConflictError)):
        change(drives[1])
    assert service.unanswered is None
    assert drives[1].get_file("/b") in (b"a", LARGER_THAN_THE_CACHE)
    assert drives[1].get_file("/pending") == b"pending"


@pytest.mark.parametrize("truth", [RemoteStore, AtomicStore], indirect=True)
@pytest.mark.parametrize("method", ["duplicate", "move"])
@pytest.mark.parametrize(
    "change",
    [
        lambda drive, _: put(drive, "/b", b"new"),
        lambda drive, _: drive.create_directory("/b"),
        lambda _, truth: put(truth, "/b", b"of another program"),
    ],
)
def test_what_comes_after_the_look_is_not_replaced(
    truth: RemoteStore,
    service: Meeting,
    drives: Drives,
    mover: Mover,
    method: str,
    change: Callable[[Store, Store], object],
) -> None:
    put(truth, "/a", b"a")
    service.unanswered = lambda: change(drives[1], truth)
    with pytest.raises(AlreadyExistsError):
        getattr(drives[0], method)("/a", "/b", replace=False)
    drain(mover)
    assert contents(truth, "/") in (
        {"a": b"a", "b": b"new"},
        {"a": b"a", "b": None},
        {"a": b"a", "b": b"of another program"},
    )


def test_what_may_not_replace_waits_for_what_goes_past_the_journal(
    truth: RemoteStore, service: Meeting, drives: Drives, tmp_path: Path, clock: Clock
) -> None:
    put(truth, "/dir/x")
    put(drives[0], "/pending", b"pending")
    assert not drives[0].exists("/dir/new")
    folder = CacheFolder(tmp_path, "test")
    other, held = Holds(folder.journal(0), tmp_path / "test" / "owners"), ExitStack()
    service.looked = lambda: held.enter_context(other.held("/dir/new"))
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        held.close()

    drive = writeback.share(service, tmp_path, delay=0, clock=clock, wait=wait)
    drive.move("/pending", "/dir/new", replace=False)
    assert waits
    assert drive.get_file("/dir/new") == b"pending"
    drive.close()
    other.close()


def test_what_is_deleted_and_not_sent_yet_is_no_obstacle(
    truth: RemoteStore, drives: Drives, mover: Mover
) -> None:
    put(truth, "/a", b"a")
    put(truth, "/b", b"b")
    drives[0].delete("/b")
    drives[1].move("/a", "/b", replace=False)
    drain(mover)
    assert contents(drives[0], "/") == contents(truth, "/") == {"b": b"a"}


def test_what_is_written_into_a_destination_while_it_arrives_stays(
    truth: RemoteStore, service: Meeting, drives: Drives, mover: Mover
) -> None:
    put(truth, "/a/x", b"old")
    drives[0].create_directory("/b")
    drain(mover)
    service.meanwhile = lambda: put(drives[1], "/b/y", b"new")
    drives[0].move("/a", "/b")
    drain(mover)
    assert contents(drives[0], "/") == contents(truth, "/")
    assert contents(truth, "/b") == {"x": b"old", "y": b"new"}


def test_an_edit_of_another_program_below_a_folder_that_moved_is_kept(
    truth: RemoteStore, drives: Drives, mover: Mover
) -> None:
    put(truth, "/d/x", b"old")
    put(drives[0], "/d/x", b"ours")
    drives[0].move("/d", "/e")
    put(truth, "/e/x", b"theirs")
    drain(mover)
    assert sorted(contents(truth, "/e").values(), key=str) == [b"ours", b"theirs"]


@pytest.mark.parametrize("again", [False, True])
def test_what_others_store_in_a_folder_after_its_deletion_stays(
    truth: RemoteStore, drives: Drives, mover: Mover, clock: Clock, again: bool
) -> None:
    for name in ("edited", "gone"):
        truth.store_fileobject(io.BytesIO(b"old"), f"/d/{name}", modified=clock.now - 100)
    contents(drives[0], "/")
    drives[0].delete("/d", is_dir=True)
    if again:
        drives[0].create_directory("/d")
    for name in ("edited", "new"):
        truth.store_fileobject(io.BytesIO(b"theirs"), f"/d/{name}", modified=clock.now + 2)
    drain(mover)
    assert contents(truth, "/d") == {"edited": b"theirs", "new": b"theirs"}


def test_a_file_that_others_have_changed_is_not_cleared_for_a_folder(
    truth: RemoteStore, drives: Drives, mover: Mover
) -> None:
    put(truth, "/x", b"old")
    drives[0].delete("/x")
    drives[0].create_directory("/x")
    truth.store_fileobject(io.BytesIO(b"theirs"), "/x")
    drain(mover)
    assert truth.get_file("/x") == b"theirs"
    (copy,) = set(truth.get_directory_metadata("/")) - {"x"}
    assert truth.is_dir(f"/{copy}")


@pytest.fixture
def meet(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Has something called once, right after a change has looked for the directories above."""
    look, waiting = Overlay.missing_above, list[Callable[[], object]]()

    def missing_above(overlay: Overlay, path: str) -> list[str]:
        missing = look(overlay, path)
        if waiting:
            waiting.pop()()
        return missing

    monkeypatch.setattr(Overlay, "missing_above", missing_above)
    return waiting.append


def test_a_file_whose_folder_goes_meanwhile_has_one(
    drives: Drives, meet: Callable[[Callable[[], object]], None]
) -> None:
    for folder in ("/top", "/top/d"):
        drives[0].create_directory(folder)
    meet(lambda: drives[1].delete("/top/d", is_dir=True))
    put(drives[0], "/top/d/file", b"new")
    assert contents(drives[1], "/top") == {"d": None, "d/file": b"new"}


def test_folders_that_move_into_each_other_are_not_lost(
    drives: Drives, meet: Callable[[Callable[[], object]], None]
) -> None:
    for folder in ("/top", "/top/a", "/top/b"):
        drives[0].create_directory(folder)
        put(drives[0], f"{folder}/file", folder.encode())
    meet(lambda: drives[1].move("/top/a", "/top/b/a"))
    drives[0].move("/top/b", "/top/a/b")
    assert contents(drives[1], "/top/a") == {
        "b": None,
        "b/file": b"/top/b",
        "b/a": None,
        "b/a/file": b"/top/a",
    }


def test_what_moves_into_a_folder_that_goes_meanwhile_is_not_lost(
    truth: RemoteStore,
    service: Meeting,
    mover: Mover,
    tmp_path: Path,
    clock: Clock,
    meet: Callable[[Callable[[], object]], None],
) -> None:
    truth.create_directory("/d")
    put(truth, "/file", b"old")
    drive = writeback.share(service, tmp_path, delay=0, clock=clock, wait=lambda _: drain(mover))
    meet(lambda: drive.delete("/d", is_dir=True))
    drive.move("/file", "/d/file")
    drain(mover)
    assert contents(drive, "/") == contents(truth, "/") == {"d": None, "d/file": b"old"}
    drive.close()

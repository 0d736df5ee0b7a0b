"""A folder of another share takes the place of a file, or a file that of a folder (row S18).

A process that is killed leaves the old or the new, and nothing beside it (invariant 10).
"""

import io
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, ParamSpec, TypeAlias, TypeVar

import pytest

from davfusion import platform
from davfusion.cache.asides import NotedAsides
from davfusion.cache.caching_store import CachingStore
from davfusion.cache.folder import CacheFolder
from davfusion.cache.junk_store import JunkStore
from davfusion.cache.metadata_caching_store import MetadataCachingStore
from davfusion.cache.multiprocessing_caching_store import MultiprocessingCachingStore
from davfusion.cache.outbox import Outbox
from davfusion.stores.fsspec import FsspecStore
from davfusion.stores.local import LocalStore
from davfusion.stores.memory import MemoryStore
from davfusion.stores.store import (
    Features,
    Metadata,
    PartialFailureError,
    ReadableStream,
    Store,
    StoreSpaceLimitError,
    TransientStoreError,
)
from davfusion.stores.transfer import copy_between
from davfusion.stores.wrapper import StoreWrapper
from tests.cache import writeback
from tests.conformance import MTIME, contents, put, put_tree
from tests.flat_filesystem import FlatFileSystem

P = ParamSpec("P")
R = TypeVar("R")
OTHER = {"sub": None, "sub/b": b"old"}


class KilledError(BaseException):
    """Nothing of the process does anything from here on."""


class Life:
    """Of a process that is killed before (2n) or after (2n + 1) call number n."""

    def __init__(self, moments: int) -> None:
        self.moments = moments

    def go_on(self) -> None:
        if self.moments <= 0:
            raise KilledError
        self.moments -= 1


class Mortal(StoreWrapper):
    """A store as it is called while the process lives."""

    def __init__(self, store: Store, life: Life) -> None:
        super().__init__(store)
        self._life = life

    def _call(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        self._life.go_on()
        result = method(*args, **kwargs)
        if self._life.moments <= 0 and isinstance(result, io.IOBase):
            result.close()
        self._life.go_on()
        return result


class Piecewise(StoreWrapper):
    """Moves and copies file by file, as S3 does; `service` is asked for each."""

    duplicate = Store.duplicate
    move = Store.move
    asides = Store.asides

    @property
    def features(self) -> Features:
        return Features(conditional_write=True, modified_times=True)


class Eager(StoreWrapper):
    """A share whose mover sends all at once."""

    def __init__(self, service: Store, folder: Path) -> None:
        self._share = writeback.share(service, folder, delay=0)
        self._mover = writeback.mover(service, folder)
        super().__init__(self._share)

    def close(self) -> None:
        self._mover.close()
        self._share.close()

    def _call(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        result = method(*args, **kwargs)
        while self._mover.step():
            pass
        return result


Share: TypeAlias = CachingStore | MultiprocessingCachingStore | Eager


def through(service: Store, folder: Path) -> CachingStore:
    return CachingStore(MetadataCachingStore(service), 60, 10, "test", folder)


class Place:
    """Where a share's processes live: its service, whose disk all see, and its cache folder."""

    def __init__(self, folder: Path, kind: str, stack: Callable[[Store, Path], Share]) -> None:
        (folder / "disk").mkdir()
        self.service = LocalStore(folder / "disk")
        self.folder = folder / "cache"
        self.cache = CacheFolder(self.folder, "test")
        self.cache.prepare()
        self._kind = kind
        self._stack = stack

    @contextmanager
    def process(self, moments: int = 10_000) -> Iterator[Store]:
        """The share, in a process that lives so long."""
        life = Life(moments)
        service: Store = Mortal(self.service, life)
        if self._kind == "piecewise":
            service = Piecewise(service)
        with closing(self._stack(service, self.folder)) as share:
            yield Mortal(share, life)

    def start(self) -> AbstractContextManager[Store]:
        """The share, by a server that has been started after a crash."""
        self.cache.recover()
        with self.process() as share:
            assert self.cache.asides.settle(share, self.service)
        self.drain()
        return self.process()

    def drain(self) -> None:
        """The service has all."""
        journal = self.cache.journal(0)
        Outbox(journal, self.cache.spool).hurry()
        mover = writeback.mover(self.service, self.folder)
        while mover.step():
            pass
        mover.close()
        assert not journal.has_below("/")
        journal.close()


@pytest.fixture(
    params=[
        pytest.param(("local", through), id="through"),
        pytest.param(("piecewise", through), id="through, piecewise"),
        pytest.param(("local", writeback.share), id="back"),
        pytest.param(("piecewise", Eager), id="back at once, piecewise"),
    ]
)
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)  # no power is cut here
    monkeypatch.setattr(platform, "flush", lambda _descriptor: None)
    return Place(tmp_path, *request.param)


@pytest.fixture
def source() -> MemoryStore:
    source = MemoryStore()
    source.create_directory("/folder/sub")
    for path, content in (("/folder/a", b"1"), ("/folder/sub/b", b"22"), ("/file", b"new")):
        source.store_fileobject(io.BytesIO(content), path, modified=MTIME)
    return source


def put_old(place: Place, src: str) -> dict[str, bytes | None]:
    """Put, through a server, what is to be replaced by `src`."""
    with place.start() as share:
        if share.exists("/in/dst"):
            share.delete("/in/dst", share.is_dir("/in/dst"))
        if src == "/file":
            put_tree(share, "/in/dst", OTHER)
        else:
            put(share, "/in/dst", b"old")
    place.drain()
    return contents(place.service, "/in")


@pytest.mark.parametrize("src", ["/file", "/folder"])
def test_a_crash_leaves_the_old_or_the_new(place: Place, source: MemoryStore, src: str) -> None:
    copied = MemoryStore()
    copy_between(source, src, copied, "/dst")
    old, new, found = put_old(place, src), contents(copied, "/"), {}
    for moment in range(10_000):
        try:
            with place.process(moment) as share:
                copy_between(source, src, share, "/in/dst")
                break
        except KilledError:
            with place.start() as share:
                found = contents(place.service, "/in")
                assert found == contents(share, "/in")
        assert found in (old, new), moment
        if found == new:
            put_old(place, src)
    assert found == new


class MortalService(FsspecStore):
    """Copies by itself, and builds beside where a directory and a file change places."""

    life = Life(10_000)

    def get_metadata(self, path: str) -> Metadata:
        self.life.go_on()
        return super().get_metadata(path)

    def delete(self, path: str, is_dir: bool = False) -> None:
        self.life.go_on()
        super().delete(path, is_dir)
        self.life.go_on()

    def move(self, path_to_src: str, path_to_dest: str, *, replace: bool = True) -> None:
        self.life.go_on()
        super().move(path_to_src, path_to_dest, replace=replace)
        self.life.go_on()


@pytest.mark.parametrize("src", ["/file", "/folder"])
@pytest.mark.parametrize("kind", ["file", "flat"])
def test_a_crash_of_a_copy_within_a_share(kind: str, src: str, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    service = (
        MortalService(f"{FlatFileSystem.protocol}://bucket/root", objects={})
        if kind == "flat"
        else MortalService(f"file://{tmp_path}/disk")
    )
    asides = NotedAsides(tmp_path / "asides", lambda _paths: None)
    service.note_asides(asides)
    put_tree(service, "/folder", OTHER)
    put(service, "/file", b"new")
    new = {name.replace(src[1:], "dst", 1): c for name, c in contents(service, "/").items()}
    seen = []
    for moment in range(10_000):
        service.delete("/in", is_dir=True)
        put(service, "/in/dst" if src == "/folder" else "/in/dst/a", b"old")
        old = contents(service, "/in")
        service.life = Life(moment)
        try:
            service.duplicate(src, "/in/dst")
        except KilledError:
            service.life = Life(10_000)
        else:
            break
        asides.disown()
        assert asides.settle(service, service)
        seen.append(contents(service, "/in"))
        assert seen[-1] in (old, {k: v for k, v in new.items() if k.startswith("dst")}), moment
    assert seen[0] != seen[-1]
    asides.close()


def kill(place: Place, source: Store, src: str, when: Callable[[set[str]], bool]) -> str:
    """A process as soon as such names are in `/in` of the service; the one beside the target."""
    for moment in range(200):
        with suppress(KilledError), place.process(moment) as share:
            copy_between(source, src, share, "/in/dst")
        found = {f"/in/{name}" for name in contents(place.service, "/in")}
        if when(found):
            return min(path for path in found if path.startswith("/in/.davfusion-"))
        put_old(place, src)
    raise LookupError(src)


@pytest.fixture
def piecewise(tmp_path: Path) -> Place:
    return Place(tmp_path, "piecewise", through)


@pytest.mark.parametrize("name", ["new", "a", "sub/b"])
@pytest.mark.parametrize("content", [b"of another", b"33"])
def test_what_others_have_put_beside_stays(
    piecewise: Place, source: MemoryStore, name: str, content: bytes
) -> None:
    """Also in the place of the last file, of which nobody knows which version was stored."""
    put_old(piecewise, "/folder")
    aside = kill(piecewise, source, "/folder", lambda found: any("sub/b" in p for p in found))
    put(piecewise.service, f"{aside}/{name}", content)
    found = contents(piecewise.service, "/")
    for _ in range(2):
        piecewise.start()
        assert contents(piecewise.service, "/") == found


@pytest.mark.parametrize("src", ["/file", "/folder"])
def test_what_others_have_put_in_its_place_stays(
    piecewise: Place, source: MemoryStore, src: str
) -> None:
    put_old(piecewise, src)
    kill(piecewise, source, src, lambda found: "/in/dst" not in found)
    put(piecewise.service, "/in/dst/a", b"of another")
    piecewise.start()
    assert contents(piecewise.service, "/in") == {"dst": None, "dst/a": b"of another"}


def test_what_is_not_whole_takes_nothing_s_place(piecewise: Place, source: MemoryStore) -> None:
    put_old(piecewise, "/folder")
    aside = kill(piecewise, source, "/folder", lambda found: "/in/dst" not in found)
    piecewise.service.delete(f"{aside}/a")
    piecewise.start()
    assert contents(piecewise.service, "/in") == {}


def test_a_failure_leaves_the_old_and_nothing_beside_it(place: Place, source: MemoryStore) -> None:
    class Unreadable(StoreWrapper):
        def open_read(self, *args: Any, **kwargs: Any) -> ReadableStream:
            if args[0] == "/folder/sub/b":
                raise TransientStoreError("away")
            return super().open_read(*args, **kwargs)

    old = put_old(place, "/folder")
    with place.process() as share:
        with pytest.raises(PartialFailureError):
            copy_between(Unreadable(source), "/folder", share, "/in/dst")
        assert contents(share, "/in") == old
    place.drain()
    assert contents(place.service, "/in") == old


def test_it_is_tried_again_until_the_store_answers(piecewise: Place, source: MemoryStore) -> None:
    class Away(StoreWrapper):
        def get_metadata(self, path: str) -> Metadata:
            raise TransientStoreError(f"{path}: away")

    old = put_old(piecewise, "/folder")
    kill(piecewise, source, "/folder", lambda found: any("sub/b" in path for path in found))
    asides, service = piecewise.cache.asides, piecewise.service
    assert asides.settle(service, service), "the process that was at it may live"
    piecewise.cache.recover()
    for _ in range(2):
        assert not asides.settle(Away(service), service)
    assert asides.settle(service, service)
    assert contents(service, "/in") == old
    asides.close()


class Away(StoreWrapper):
    """A service that is away from its first move on."""

    is_away = False

    def _call(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        if self.is_away:
            raise TransientStoreError("away")
        return super()._call(method, *args, **kwargs)

    def move(self, path_to_src: str, path_to_dest: str, *, replace: bool = True) -> None:
        self.is_away = True
        super().move(path_to_src, path_to_dest, replace=replace)


@pytest.mark.parametrize("src", ["/file", "/folder"])
def test_what_was_refused_is_not_done_at_a_later_start(
    tmp_path: Path, source: MemoryStore, src: str
) -> None:
    place = Place(tmp_path, "local", through)
    old = put_old(place, src)
    with (
        closing(through(Away(place.service), place.folder)) as share,
        pytest.raises(TransientStoreError),
    ):
        copy_between(source, src, share, "/in/dst")
    assert any(name.startswith(".davfusion-") for name in contents(place.service, "/in"))
    place.start()
    assert contents(place.service, "/in") == old


def test_a_folder_with_a_name_of_files_that_stay_here(tmp_path: Path, source: MemoryStore) -> None:
    place = Place(tmp_path, "local", through)
    with place.process() as share:
        store = JunkStore(share, place.folder, ["._*"])
        for name in ("copied", "moved", "kept"):
            put(store, f"/in/._{name}/file", b"old")
        put(store, "/file", b"moved")
        put(store, "/._file", b"kept")
        copy_between(source, "/file", store, "/in/._copied")
        store.move("/file", "/in/._moved")
        store.move("/._file", "/in/._kept")
        assert contents(store, "/") == {
            "in": None, "in/._copied": b"new", "in/._moved": b"moved", "in/._kept": b"kept"
        }  # fmt: skip


def test_a_full_disk_is_a_space_limit_and_the_old_stands(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    put(store, "/dst", b"old")
    asides = NotedAsides(tmp_path / "missing" / "asides", lambda _paths: None)
    with pytest.raises(StoreSpaceLimitError), asides.replacing(store, "/dst", is_dir=True):
        pytest.fail("nothing may be built that is not noted")
    assert contents(store, "/") == {"dst": b"old"}


class Service(MemoryStore):
    """Notes what it is asked to put right, and is `away` if so told."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.is_away = False

    def abandon(self, path: str, token: str | None, since: float) -> None:
        super().abandon(path, token, since)
        if self.is_away:
            raise TransientStoreError("away")
        self.asked.append(token or "")


def test_what_a_service_may_carry_out_later_is_looked_for_for_a_minute(tmp_path: Path) -> None:
    service, now = Service(), 0.0
    with closing(NotedAsides(tmp_path / "asides", lambda _paths: None, lambda: now)) as asides:
        asides.unfinished("/dst", "aside")(True)
        assert asides.unsettled() == ["/dst"]
        service.is_away = True
        assert not asides.abandon_unfinished(service)
        assert asides.unsettled() == ["/dst"]
        service.is_away = False
        times = []
        while now < 100:
            assert asides.abandon_unfinished(service)
            assert asides.unsettled() == []
            times += [now] * len(service.asked)
            service.asked.clear()
            now += 0.5
    assert times == [0, 0.5, 1, 2, 4, 8, 16, 32, 64]


def test_who_puts_something_right_ends_no_note_of_another(tmp_path: Path) -> None:
    """Two are at it at once, and a third begins something as soon as one has ended."""

    class Slow(Service):
        def abandon(self, path: str, token: str | None, since: float) -> None:
            super().abandon(path, token, since)
            if path == "/old":
                end_old(False)
                ends.append(asides.unfinished("/new", "new"))

    ends, service = list[Callable[[bool], None]](), Slow()
    with closing(NotedAsides(tmp_path / "asides", lambda _paths: None)) as asides:
        end_old = asides.unfinished("/old", "old")
        end_old(True)
        asides.abandon_unfinished(service)
        (end_new,) = ends
        end_new(True)
        asides.abandon_unfinished(service)
    assert service.asked == ["old", "new"]


def test_notes_that_are_damaged_are_complained_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "asides").write_bytes(b"no database" * 100)
    with closing(NotedAsides(tmp_path / "asides", lambda _paths: None)) as asides:
        for _ in range(3):
            assert asides.unsettled() == []
            assert not asides.abandon_unfinished(MemoryStore())
    assert len(caplog.records) == 1

"""Rows C19 and M7: what a share answers from before, when the store cannot or was not asked yet."""

import threading
from collections.abc import Callable

import pytest

from davfusion.cache.listings import ListingTable
from davfusion.cache.metadata_caching_store import MetadataCachingStore
from davfusion.stores.errors import StoreAwayError
from davfusion.stores.memory import MemoryStore
from davfusion.stores.store import NoSuchFilesytemObjectError, TransientStoreError
from tests.cache.service import AGE, Service, names, put
from tests.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def foreign() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def service(foreign: MemoryStore) -> Service:
    return Service(foreign)


@pytest.fixture
def listings() -> ListingTable:
    return ListingTable()


@pytest.fixture
def share(service: Service, listings: ListingTable, clock: Clock) -> MetadataCachingStore:
    return MetadataCachingStore(service, AGE, listings=listings, clock=clock)


def fail(service: Service, foreign: MemoryStore) -> None:
    """Nothing is answered any more, and the store is not what it was."""
    for directory in names(foreign, "/"):
        foreign.delete(f"/{directory}", is_dir=True)
    service.failure = TransientStoreError("nobody answers")


@pytest.fixture
def old(share: MetadataCachingStore, foreign: MemoryStore, clock: Clock) -> MetadataCachingStore:
    """A share that once has listed / and /d, long ago."""
    for path in ("/d/file", "/d/sub/deep", "/e/file"):
        put(foreign, path)
    for path in ("/d", "/d/none/below", "/e/file"):
        share.exists(path)
    names(share, "/")
    names(share, "/d")
    clock.now += 100 * AGE
    return share


def test_what_is_known_is_answered_while_the_store_cannot(
    old: MetadataCachingStore, service: Service, foreign: MemoryStore
) -> None:
    fail(service, foreign)
    assert names(old, "/") == {"d", "e"}
    assert names(old, "/d") == {"file", "sub"}
    assert old.get_metadata("/d/file")["bytes"] == 1
    assert old.is_dir("/d/sub")
    assert not old.exists("/none")
    assert not old.exists("/d/none/below")
    for ask in (old.get_directory_metadata, old.get_metadata):
        with pytest.raises(TransientStoreError):
            ask("/d/sub/deep")
    for directory in ("/e", "/d/sub"):
        with pytest.raises(TransientStoreError):
            names(old, directory)
    service.failure = None
    assert names(old, "/") == set()


def test_old_knowledge_is_no_answer_after_forget(
    old: MetadataCachingStore, service: Service, foreign: MemoryStore
) -> None:
    etag = foreign.get_metadata("/d/file")["etag"]
    fail(service, foreign)
    for path in ("/d/file", "/d/none", "/d", "/d/none/below"):
        old.forget(path)
        for _ in range(2):
            with pytest.raises(TransientStoreError):
                old.get_metadata(path)
    known = old.last_known("/d/file")
    assert known is not None
    assert known["etag"] == etag
    assert names(old, "/d") == {"file", "sub"}


def test_the_last_known_version_costs_no_call(
    old: MetadataCachingStore, service: Service, foreign: MemoryStore
) -> None:
    known, calls = foreign.get_metadata("/d/file"), service.calls
    for _ in range(2):
        assert old.last_known("/d/file") == known
        assert old.last_known("/d/sub/deep") is None
        for absent in ("/d/none", "/d/none/below", "/none"):
            with pytest.raises(NoSuchFilesytemObjectError):
                old.last_known(absent)
            old.forget(absent)
        old.forget("/d/file")
    assert service.calls == calls


CHANGES: list[tuple[Callable[[MetadataCachingStore], object], set[str]]] = [
    (lambda share: share.delete("/d/file"), {"/d/file"}),
    (lambda share: put(share, "/d/file", b"newer"), {"/d/file"}),
    (lambda share: put(share, "/d/new"), {"/d/new"}),
    (lambda share: share.move("/d/file", "/d/new"), {"/d/file", "/d/new"}),
]


@pytest.mark.parametrize(("change", "touched"), CHANGES)
def test_what_a_failed_change_left_open_is_no_fact(
    old: MetadataCachingStore,
    service: Service,
    change: Callable[[MetadataCachingStore], object],
    touched: set[str],
) -> None:
    service.failure = TransientStoreError("the answer was lost")
    with pytest.raises(TransientStoreError):
        change(old)
    for path in touched:
        assert old.last_known(path) is None
        with pytest.raises(TransientStoreError):
            old.get_metadata(path)
    assert old.is_dir("/d")
    assert names(old, "/d") == {"file", "sub"}  # as the client takes it, who has the error


@pytest.mark.parametrize(("change", "touched"), CHANGES)
def test_a_change_that_was_not_begun_leaves_nothing_open(
    old: MetadataCachingStore,
    service: Service,
    change: Callable[[MetadataCachingStore], object],
    touched: set[str],
) -> None:
    before = {path: old.exists(path) for path in touched}
    service.failure = StoreAwayError("nobody is there")
    with pytest.raises(StoreAwayError):
        change(old)
    assert {path: old.exists(path) for path in touched} == before


def test_our_changes_show_in_what_is_answered_while_the_store_cannot(
    old: MetadataCachingStore, service: Service, foreign: MemoryStore, clock: Clock
) -> None:
    old.exists("/d/file")
    put(old, "/d/new")
    old.move("/d/file", "/e/moved")
    old.create_directory("/made")
    put(old, "/made/deep/file")
    clock.now += AGE
    fail(service, foreign)
    assert names(old, "/d") == {"new", "sub"}
    assert names(old, "/") == {"d", "e", "made"}
    assert names(old, "/made") == {"deep"}
    assert old.exists("/d/new")
    assert not old.exists("/d/file")
    assert old.is_dir("/made/deep")
    with pytest.raises(TransientStoreError):
        old.get_metadata("/e/moved")


def test_a_change_whose_outcome_nobody_knows_leaves_no_complete_listing(
    old: MetadataCachingStore, service: Service, foreign: MemoryStore, listings: ListingTable
) -> None:
    one, other = listings.begin(1.0, AGE), listings.begin(1.0, AGE)
    for made in (one, other):
        listings.stored("/d/new", put(foreign, "/d/new"), made)
    fail(service, foreign)
    for ask in (lambda: names(old, "/d"), lambda: old.exists("/d/new")):
        with pytest.raises(TransientStoreError):
            ask()


def test_space_figures_are_unknown_while_the_store_cannot_be_asked(
    share: MetadataCachingStore, service: Service, foreign: MemoryStore, clock: Clock
) -> None:
    service.failure = TransientStoreError("nobody answers")
    assert share.get_used_space() is None
    service.failure = None
    put(foreign, "/a", b"123")
    assert share.get_used_space() == 3
    service.failure = TransientStoreError("nobody answers")
    clock.now += AGE
    assert share.get_used_space() == 3


class Later:
    """What is to be done in the background, done when the test says so."""

    def __init__(self) -> None:
        self.tasks: list[Callable[[], None]] = []

    def __call__(self, task: Callable[[], None]) -> None:
        self.tasks.append(task)

    def run(self) -> None:
        tasks, self.tasks = self.tasks, []
        for task in tasks:
            task()


@pytest.fixture
def later() -> Later:
    return Later()


@pytest.fixture
def restarted(
    old: MetadataCachingStore, service: Service, listings: ListingTable, clock: Clock, later: Later
) -> MetadataCachingStore:
    """The share of `old` in a new run, which begins now."""
    service.calls = 0
    return MetadataCachingStore(
        service, AGE, listings=listings, clock=clock, started=clock.now, submit=later
    )


def test_a_known_listing_answers_at_once_after_a_restart_and_is_asked_for_again(
    restarted: MetadataCachingStore, service: Service, foreign: MemoryStore, later: Later
) -> None:
    put(foreign, "/d/outside")
    foreign.delete("/d/file")
    for _ in range(3):
        assert restarted.is_dir("/d")
        assert names(restarted, "/d") == {"file", "sub"}
    assert service.calls == 0
    assert len(later.tasks) == 2
    later.run()
    assert service.calls == 2
    assert names(restarted, "/d") == {"outside", "sub"}
    assert restarted.is_dir("/d")
    assert not restarted.exists("/d/file")
    assert service.calls == 2
    assert not later.tasks


def test_files_and_what_was_absent_are_asked_for_after_a_restart(
    restarted: MetadataCachingStore, foreign: MemoryStore
) -> None:
    etag = put(foreign, "/d/file", b"foreign")["etag"]
    put(foreign, "/d/none/below")
    assert restarted.get_metadata("/d/file")["etag"] == etag
    assert restarted.exists("/d/none/below")
    assert restarted.exists("/d/none")


def test_what_expires_in_this_run_is_asked_for(
    restarted: MetadataCachingStore, foreign: MemoryStore, clock: Clock, later: Later
) -> None:
    names(restarted, "/d")
    later.run()
    put(foreign, "/d/outside")
    clock.now += AGE
    assert "outside" in names(restarted, "/d")


def test_a_restart_answers_no_listing_that_a_change_left_open(
    old: MetadataCachingStore, restarted: MetadataCachingStore, service: Service
) -> None:
    service.broken = True
    with pytest.raises(TransientStoreError):
        old.delete("/d/file")
    assert names(restarted, "/d") == {"sub"}


def test_a_directory_that_is_gone_after_a_restart_is_so_at_the_second_look(
    restarted: MetadataCachingStore, foreign: MemoryStore, later: Later
) -> None:
    foreign.delete("/d", is_dir=True)
    assert restarted.is_dir("/d")
    assert names(restarted, "/d") == {"file", "sub"}
    later.run()
    assert not restarted.exists("/d")


def test_a_restart_while_the_store_is_away_goes_on_answering(
    restarted: MetadataCachingStore, service: Service, foreign: MemoryStore, later: Later
) -> None:
    fail(service, foreign)
    for _ in range(2):
        assert names(restarted, "/d") == {"file", "sub"}
        later.run()
    service.failure = None
    assert names(restarted, "/") == {"d", "e"}
    later.run()
    assert names(restarted, "/") == set()


def test_nothing_is_revalidated_after_close(
    restarted: MetadataCachingStore, service: Service, later: Later
) -> None:
    names(restarted, "/d")
    restarted.close()
    names(restarted, "/")
    later.run()
    assert service.calls == 0


def test_revalidation_has_threads_of_its_own(
    old: MetadataCachingStore,
    service: Service,
    foreign: MemoryStore,
    listings: ListingTable,
    clock: Clock,
) -> None:
    asked, answered = threading.Event(), threading.Event()

    def wait() -> None:
        asked.set()
        answered.wait()

    service.meanwhile = wait
    share = MetadataCachingStore(service, AGE, listings=listings, clock=clock, started=clock.now)
    assert names(share, "/d") == {"file", "sub"}
    assert asked.wait(20)
    answered.set()
    share.close()

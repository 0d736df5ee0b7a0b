"""A client that walks is overtaken by one walk of the store, of bounded length (row M6)."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import count

import pytest

from davfusion.cache.listings import ListingTable
from davfusion.cache.metadata_caching_store import (
    WALK_PAUSE,
    WALKED_AHEAD,
    MetadataCachingStore,
)
from davfusion.cache.prefetching import LISTINGS_WITHIN
from davfusion.stores.observed import ObservedStore
from davfusion.stores.store import Features, Metadata, Store
from tests.cache.service import AGE, put
from tests.clock import Clock
from tests.remote import UndatedStore

FOLDERS = 60


class FlatStore(UndatedStore):
    """One whose walks cost little; `more` is what they name besides what is stored."""

    def __init__(self) -> None:
        super().__init__()
        self.named = 0
        self.more: Iterator[tuple[str, Metadata]] = iter(())

    @property
    def features(self) -> Features:
        return replace(super().features, flat_listing=True)

    def walk_metadata(self, directory: str) -> Iterator[tuple[str, Metadata]]:
        for walk in (super().walk_metadata(directory), self.more):
            for found in walk:
                self.named += 1
                yield found


@pytest.fixture
def truth() -> FlatStore:
    truth = FlatStore()
    for number in range(FOLDERS):
        put(truth, f"/tree/{number // 20}/{number}/file")
    put(truth, "/other/file")
    return truth


@pytest.fixture
def service(truth: FlatStore) -> ObservedStore:
    return ObservedStore(truth)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def share(service: ObservedStore, clock: Clock) -> MetadataCachingStore:
    """One that walks ahead before it goes on."""
    return MetadataCachingStore(service, AGE, clock=clock, submit=lambda walk: walk())


def walked(share: Store, directory: str) -> int:
    """How many directories there are, listed one by one as a client would."""
    members = share.get_directory_metadata(directory).items()
    below = [f"{directory}/{name}" for name, metadata in members if metadata["is_dir"]]
    return 1 + sum(walked(share, path) for path in below)


def test_a_client_that_walks_costs_a_walk(
    share: MetadataCachingStore, service: ObservedStore, truth: FlatStore
) -> None:
    assert walked(share, "/tree") == 1 + 3 + FOLDERS
    assert service.calls == {"get_directory_metadata": 3, "walk_metadata": 1}
    assert truth.named == 3 + 2 * FOLDERS
    assert share.get_directory_metadata("/other").keys() == {"file"}
    assert service.calls["get_directory_metadata"] == 4


def test_opening_folders_walks_nothing(
    share: MetadataCachingStore, service: ObservedStore, clock: Clock
) -> None:
    for path in ("/", "/tree", "/tree/1", "/tree/1/21", "/other"):
        share.get_directory_metadata(path)
        clock.now += LISTINGS_WITHIN / 2 + 0.1
    assert service.calls == {"get_directory_metadata": 5}


def test_opening_a_folder_again_and_again_walks_nothing(
    share: MetadataCachingStore, service: ObservedStore
) -> None:
    for path in ("/", "/tree", "/", "/tree", "/"):
        share.forget(path)
        share.get_directory_metadata(path)
    assert service.calls["walk_metadata"] == 0


def test_a_walk_ahead_ends(share: MetadataCachingStore, truth: FlatStore) -> None:
    endless = UndatedStore().get_metadata("/")
    truth.more = ((f"/tree/z{number}", endless) for number in count())
    assert walked(share, "/tree") == 1 + 3 + FOLDERS
    assert truth.named <= WALKED_AHEAD + 1


def test_what_a_walk_has_not_named_whole_is_not_known(
    share: MetadataCachingStore, service: ObservedStore, truth: FlatStore
) -> None:
    truth.more = ((f"/tree/2/59/{number}", truth.get_metadata("/other/file")) for number in count())
    for path in ("/tree", "/tree/0", "/tree/1"):
        share.get_directory_metadata(path)
    service.reset()
    assert share.get_directory_metadata("/tree/2/59").keys() == {"file"}
    assert share.get_directory_metadata("/tree/2/58").keys() == {"file"}
    assert service.calls == {"get_directory_metadata": 1}


def test_the_workers_walk_once(truth: FlatStore, clock: Clock) -> None:
    table = ListingTable()
    services = [ObservedStore(truth) for _ in range(2)]
    shares = [
        MetadataCachingStore(service, AGE, listings=table, clock=clock, submit=lambda walk: walk())
        for service in services
    ]
    for path in ("/tree", "/tree/0", "/tree/1"):
        for share in shares:
            share.forget(path)
            share.get_directory_metadata(path)
    assert sum(service.calls["walk_metadata"] for service in services) == 1
    clock.now += max(WALK_PAUSE, AGE) + 1
    walked(shares[0], "/tree")
    assert sum(service.calls["walk_metadata"] for service in services) == 2


def test_a_service_that_walks_by_listings_is_not_walked_ahead(clock: Clock) -> None:
    truth = UndatedStore()
    for number in range(5):
        put(truth, f"/{number}/file")
    service = ObservedStore(truth)
    share = MetadataCachingStore(service, AGE, clock=clock, submit=lambda walk: walk())
    for number in range(5):
        share.get_directory_metadata(f"/{number}")
    assert service.calls == {"get_directory_metadata": 5}

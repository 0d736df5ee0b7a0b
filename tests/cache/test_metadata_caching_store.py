"""Rows M1 to M5, M8 and M9: what a share knows without asking the store."""

import pytest

from davfusion.cache.listings import ListingTable
from davfusion.cache.metadata_caching_store import MetadataCachingStore
from davfusion.stores.memory import MemoryStore
from davfusion.stores.store import (
    AlreadyExistsError,
    NoSuchFilesytemObjectError,
    TransientStoreError,
)
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


def test_a_second_stat_or_listing_costs_nothing(
    share: MetadataCachingStore, service: Service, foreign: MemoryStore
) -> None:
    for number in range(100):
        put(foreign, f"/d/{number}")
    assert share.is_dir("/d")
    assert len(names(share, "/d")) == 100
    assert service.calls == 2
    assert share.get_metadata("/d/7") == foreign.get_metadata("/d/7")
    assert len(share.get_directory_listing("/d")) == 100
    assert not share.exists("/d/absent")
    assert not share.exists("/d/absent/below")
    assert not share.exists("/d/7/below")
    assert service.calls == 2


def test_a_missed_stat_is_remembered(share: MetadataCachingStore, service: Service) -> None:
    for _ in range(3):
        assert not share.exists("/a")
        assert not share.exists("/a/b")
        with pytest.raises(NoSuchFilesytemObjectError):
            share.get_directory_metadata("/a")
    assert service.calls == 1


def test_polling_does_not_prolong_the_age(
    share: MetadataCachingStore, foreign: MemoryStore, clock: Clock
) -> None:
    put(share, "/mine")
    assert names(share, "/") == {"mine"}
    put(foreign, "/outside")
    for _ in range(int(AGE)):
        assert not share.exists("/outside")
        assert names(share, "/") == {"mine"}
        clock.now += 1
    assert share.exists("/outside")
    assert names(share, "/") == {"mine", "outside"}


@pytest.mark.parametrize("is_new_run", [False, True])
def test_a_clock_that_was_ahead_makes_nothing_hold_for_longer(
    share: MetadataCachingStore,
    listings: ListingTable,
    service: Service,
    foreign: MemoryStore,
    clock: Clock,
    is_new_run: bool,
) -> None:
    clock.now += 86400
    assert names(share, "/") == set()
    assert not share.exists("/outside")
    clock.now -= 86400
    put(foreign, "/outside")
    if is_new_run:
        share = MetadataCachingStore(service, AGE, listings=listings, clock=clock)
    assert share.exists("/outside")
    assert names(share, "/") == {"outside"}


def test_our_own_change_holds_for_the_age_after_it(
    share: MetadataCachingStore, service: Service, foreign: MemoryStore, clock: Clock
) -> None:
    clock.now += AGE / 2
    put(share, "/mine")
    foreign.delete("/mine")
    clock.now += AGE - 1
    assert share.exists("/mine")
    assert service.calls == 0
    clock.now += 1
    assert not share.exists("/mine")


def test_changes_show_at_once_in_a_known_listing(
    share: MetadataCachingStore, service: Service, foreign: MemoryStore
) -> None:
    names(share, "/")
    put(share, "/a")
    share.create_directory("/d")
    put(share, "/d/b")
    assert names(share, "/") == {"a", "d"}
    assert names(share, "/d") == {"b"}
    share.delete("/a")
    share.delete("/d", is_dir=True)
    assert names(share, "/") == set()
    assert not share.exists("/d/b")
    assert service.calls == 1


def test_missing_parents_that_a_put_makes_appear(share: MetadataCachingStore) -> None:
    assert names(share, "/") == set()
    assert not share.exists("/a/b")
    put(share, "/a/b/c")
    assert names(share, "/") == {"a"}
    assert names(share, "/a") == {"b"}
    assert share.is_dir("/a/b")


@pytest.mark.parametrize("keep", [True, False])
def test_trees_arrive_whole_and_replace_what_was_there(
    share: MetadataCachingStore, foreign: MemoryStore, keep: bool
) -> None:
    for path in ("/a/x", "/a/s/y", "/ab/z", "/a%/z", "/b/old", "/b/s/old"):
        put(share, path)
    list(share.walk_metadata("/"))
    (share.duplicate if keep else share.move)("/a", "/b")
    assert dict(share.walk_metadata("/")) == dict(foreign.walk_metadata("/"))
    assert not share.exists("/b/s/old")
    assert share.exists("/b/s/y")
    assert share.exists("/a/s/y") == keep
    assert share.exists("/ab/z")
    assert share.exists("/a%/z")


def test_a_delete_of_the_other_kind_changes_nothing(share: MetadataCachingStore) -> None:
    share.create_directory("/d")
    share.delete("/d")
    assert share.is_dir("/d")


def test_a_listing_in_flight_hides_no_change(
    share: MetadataCachingStore, service: Service, foreign: MemoryStore
) -> None:
    put(foreign, "/d/gone")
    put(foreign, "/d/tree/deep")

    def change() -> None:
        service.meanwhile = lambda: None
        put(share, "/d/new")
        share.delete("/d/gone")
        share.delete("/d/tree", is_dir=True)

    share.get_metadata("/d/gone")
    service.meanwhile = change
    names(share, "/d")
    assert names(share, "/d") == {"new"}


def test_a_listing_of_a_directory_removed_meanwhile_is_not_recorded(
    share: MetadataCachingStore, service: Service, foreign: MemoryStore
) -> None:
    put(foreign, "/d/old")
    share.get_metadata("/d")

    def recreate() -> None:
        service.meanwhile = lambda: None
        share.delete("/d", is_dir=True)
        share.create_directory("/d")
        names(share, "/")

    service.meanwhile = recreate
    names(share, "/d")
    assert names(share, "/d") == set()
    assert not share.exists("/d/old")


def test_a_lagging_listing_hides_no_write_and_shows_no_deleted_file(
    share: MetadataCachingStore, service: Service, foreign: MemoryStore, clock: Clock
) -> None:
    put(foreign, "/old")
    put(foreign, "/rewritten", b"1")
    service.stale["/"] = foreign.get_directory_metadata("/")
    share.get_metadata("/old")
    share.delete("/old")
    put(share, "/new")
    put(share, "/rewritten", b"22", mtime=1.0)
    share.create_directory("/made")
    put(share, "/made/file")
    for _ in range(2):
        listing = share.get_directory_metadata("/")
        assert set(listing) == {"new", "rewritten", "made"}
        assert listing["rewritten"]["bytes"] == 2
    assert service.calls == 2
    service.stale.clear()
    put(foreign, "/outside")
    clock.now += 11
    assert "outside" in names(share, "/")


def test_a_moved_file_stays_visible_in_a_lagging_listing(
    share: MetadataCachingStore, service: Service, foreign: MemoryStore
) -> None:
    put(share, "/other")
    put(share, "/a")
    service.stale["/"] = foreign.get_directory_metadata("/")
    share.move("/a", "/b")
    assert names(share, "/") == {"b", "other"}
    share.get_metadata("/b")
    assert names(share, "/") == {"b", "other"}


def test_true_dates_outlive_their_age_while_the_etag_stands(
    share: MetadataCachingStore, service: Service, foreign: MemoryStore, clock: Clock
) -> None:
    put(share, "/a", mtime=5.0)
    clock.now += AGE
    listed = foreign.get_directory_metadata("/")
    listed["a"]["modified"] = 777.0  # the date of the upload
    service.stale["/"] = listed
    assert share.get_directory_metadata("/")["a"]["modified"] == 5.0
    clock.now += AGE
    share.move("/a", "/b")
    service.stale["/"] = {"b": listed["a"]}
    clock.now += AGE
    assert share.get_directory_metadata("/")["b"]["modified"] == 5.0
    clock.now += AGE
    service.stale["/"] = {"b": {**listed["a"], "modified": 888.0}}
    assert share.get_directory_metadata("/")["b"]["modified"] == 888.0


def test_after_an_uncertain_failure_the_store_is_asked(
    share: MetadataCachingStore, service: Service
) -> None:
    put(share, "/a")
    names(share, "/")
    service.broken = True
    with pytest.raises(TransientStoreError):
        share.delete("/a")
    assert not share.exists("/a")
    assert names(share, "/") == set()


def test_a_file_found_gone_by_a_reader_is_forgotten(
    share: MetadataCachingStore, foreign: MemoryStore
) -> None:
    put(share, "/a")
    foreign.delete("/a")
    assert share.exists("/a")
    with pytest.raises(NoSuchFilesytemObjectError):
        share.get_file("/a")
    assert not share.exists("/a")


def test_a_walk_costs_one_walk(
    share: MetadataCachingStore, service: Service, foreign: MemoryStore
) -> None:
    for number in range(20):
        put(foreign, f"/d/{number}/file")
    service.calls = 0
    assert dict(share.walk_metadata("/")) == dict(foreign.walk_metadata("/"))
    walked = service.calls
    assert dict(share.walk_metadata("/d")) == dict(foreign.walk_metadata("/d"))
    assert service.calls == walked


def test_invalid_version(share: MetadataCachingStore, foreign: MemoryStore) -> None:
    put(share, "/a")
    assert not share.is_cached_version_invalid("/a")
    put(foreign, "/a", b"newer")
    assert share.is_cached_version_invalid("/a")
    foreign.delete("/a")
    assert share.is_cached_version_invalid("/a")


def test_space_figures_have_the_same_age(
    share: MetadataCachingStore, foreign: MemoryStore, clock: Clock
) -> None:
    assert share.get_used_space() == 0
    put(foreign, "/a", b"123")
    assert share.get_used_space() == 0
    clock.now += AGE
    assert share.get_used_space() == 3


def test_forget_asks_the_service_about_one_path(
    share: MetadataCachingStore, service: Service, foreign: MemoryStore
) -> None:
    put(foreign, "/a")
    put(foreign, "/b")
    names(share, "/")
    etag = put(foreign, "/a", b"foreign")["etag"]
    service.calls = 0
    share.forget("/a")
    assert share.get_metadata("/a")["etag"] == etag
    assert names(share, "/") == {"a", "b"}
    assert service.calls == 1


@pytest.mark.parametrize("path", ["/new", "/new/deep/file", "/file/below"])
def test_forget_asks_again_for_what_was_absent(
    share: MetadataCachingStore, foreign: MemoryStore, path: str
) -> None:
    put(foreign, "/file")
    names(share, "/")
    assert not share.exists(path)
    assert not share.exists("/new/deep")
    foreign.delete("/file")
    put(foreign, path)
    share.forget(path)
    assert share.exists(path)


def test_forget_shows_no_answer_that_was_under_way(
    share: MetadataCachingStore, service: Service, foreign: MemoryStore
) -> None:
    put(foreign, "/a", b"old")

    def edit() -> None:
        service.meanwhile = lambda: None
        put(foreign, "/a", b"foreign")
        share.forget("/a")

    for ask in (lambda: names(share, "/"), lambda: share.get_metadata("/a")):
        service.meanwhile = edit
        ask()
        assert share.get_metadata("/a") == foreign.get_metadata("/a")
        put(foreign, "/a", b"old")
        share.forget("/a")


def test_forget_keeps_our_change_over_a_lagging_listing(
    share: MetadataCachingStore, service: Service, foreign: MemoryStore
) -> None:
    put(foreign, "/a", b"1")
    service.stale["/"] = foreign.get_directory_metadata("/")
    put(share, "/a", b"22")
    share.forget("/a")
    assert share.get_directory_metadata("/")["a"]["bytes"] == 2


def test_a_walk_is_passed_on_and_recorded_as_it_comes(
    share: MetadataCachingStore, service: Service, foreign: MemoryStore
) -> None:
    for path in ("/a/x", "/b/x", "/c/x"):
        put(foreign, path)
    walk = share.walk_metadata("/")
    assert [next(walk)[0] for _ in range(3)] == ["/a", "/a/x", "/b"]
    service.calls = 0
    assert names(share, "/a") == {"x"}
    assert service.calls == 0
    assert [path for path, _ in walk] == ["/b/x", "/c", "/c/x"]
    assert names(share, "/") == {"a", "b", "c"}


@pytest.mark.parametrize("is_known", [True, False])
def test_a_walk_that_takes_longer_than_the_age_asks_nothing_twice(
    share: MetadataCachingStore,
    service: Service,
    foreign: MemoryStore,
    clock: Clock,
    is_known: bool,
) -> None:
    for number in range(5):
        put(foreign, f"/d/{number}/file")
    if is_known:
        list(share.walk_metadata("/"))
    service.calls = 0
    walked = []
    for path, _ in share.walk_metadata("/"):
        walked.append(path)
        clock.now += AGE
    assert walked == [path for path, _ in foreign.walk_metadata("/")]
    assert service.calls == (0 if is_known else 7)


def test_our_changes_win_over_a_lagging_walk(
    share: MetadataCachingStore, service: Service, foreign: MemoryStore
) -> None:
    for path in ("/d/gone", "/d/tree/deep", "/d/kept", "/d/was-a-tree/x", "/d/was-a-file"):
        put(foreign, path)
    for path in ("/d", "/d/tree", "/d/was-a-tree"):
        service.stale[path] = foreign.get_directory_metadata(path)
    for path in ("/d/gone", "/d/tree", "/d/was-a-tree", "/d/was-a-file"):
        share.get_metadata(path)
    share.delete("/d/gone")
    share.delete("/d/tree", is_dir=True)
    put(share, "/d/new/file")
    share.delete("/d/was-a-tree", is_dir=True)
    put(share, "/d/was-a-tree")
    share.delete("/d/was-a-file")
    put(share, "/d/was-a-file/x")
    walked = dict(share.walk_metadata("/"))
    assert walked.keys() == dict(foreign.walk_metadata("/")).keys()
    assert not walked["/d/was-a-tree"]["is_dir"]
    assert walked.keys() == dict(share.walk_metadata("/")).keys()


def test_a_directory_named_again_after_it_was_complete_is_not_believed_complete(
    share: MetadataCachingStore, service: Service, foreign: MemoryStore
) -> None:
    for path in ("/a/1", "/a/2", "/b/x"):
        put(foreign, path)
    order = ["/a", "/a/1", "/b", "/a/2", "/b/x"]
    truth = dict(foreign.walk_metadata("/"))
    service.walked = iter([(path, truth[path]) for path in order])
    assert [path for path, _ in share.walk_metadata("/")] == order
    assert names(share, "/a") == {"1", "2"}


def test_a_path_of_many_segments(share: MetadataCachingStore) -> None:
    assert not share.exists("/x" * 1200)
    assert not share.exists("/x" * 1200)


def test_a_walk_goes_on_where_a_foreign_writer_has_removed_what_we_made(
    share: MetadataCachingStore, foreign: MemoryStore
) -> None:
    put(foreign, "/src/file")
    share.is_dir("/src")
    share.duplicate("/src", "/dst")
    foreign.delete("/dst", is_dir=True)
    assert {"/src", "/src/file"} <= dict(share.walk_metadata("/")).keys()


def test_a_foreign_directory_where_ours_was_shows_after_a_failed_change_below_it(
    share: MetadataCachingStore, foreign: MemoryStore
) -> None:
    share.create_directory("/d")
    share.move("/d", "/moved")
    foreign.create_directory("/d/sub")
    with pytest.raises(AlreadyExistsError):
        share.create_directory("/d/sub")
    assert "/d/sub" in dict(share.walk_metadata("/"))

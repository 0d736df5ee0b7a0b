"""A Dropbox behind the caches: the contract, spellings, and what other devices change."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from davfusion.cache.folder import CacheFolder
from davfusion.cache.following import GATHER, Follower
from davfusion.cache.listings import ListingTable
from davfusion.cache.metadata_caching_store import MetadataCachingStore
from davfusion.cache.multiprocessing_caching_store import MultiprocessingCachingStore
from davfusion.stores.dropbox import DropboxStore
from davfusion.stores.dropbox.content import MIB
from davfusion.stores.dropbox.names import ASIDE
from davfusion.stores.retrying import RetryingStore
from davfusion.stores.store import Store
from tests import servers
from tests.cache import writeback
from tests.provider.client import DavClient
from tests.stores.test_dropbox import DropboxConformance

pytestmark = pytest.mark.live

AGE = 3600.0


def behind_caches(target: Store, folder: Path, delay: float) -> MultiprocessingCachingStore:
    """As share.py has it."""
    known = MetadataCachingStore(RetryingStore(target), listings=ListingTable(folder / "l.sqlite"))
    return MultiprocessingCachingStore(known, cache_dir=folder, write_back_delay=delay)


class TestKept(DropboxConformance):
    """All that is to be seen is in the journal: nothing is sent."""

    delay = 3600.0

    @pytest.fixture
    def store(self, dropbox: Any, tmp_path: Path) -> Iterator[Store]:
        del dropbox
        target = DropboxStore()
        store = behind_caches(target, tmp_path, self.delay)
        yield store
        store.close()
        target.reconnect()


@pytest.mark.slow
class TestSent(TestKept):
    """All is sent at once, beside what the tests do."""

    delay = 0.0


class Share:
    """A Dropbox served to one client, whose writes are sent on demand, and followed on demand."""

    def __init__(self, dropbox: Any, folder: Path) -> None:
        self.other = dropbox.other
        self.target = DropboxStore("served")
        self.other.mkdir("/served")
        self.folder = CacheFolder(folder, "test")
        self.folder.claim()
        retrying = RetryingStore(self.target)
        self.store = writeback.share(retrying, folder, delay=0, age=AGE)
        self.mover = writeback.mover(retrying, folder, age=AGE)
        self.client = DavClient(self.store)
        self.follower = Follower(self.target, self.folder.listings, self.note, lambda _: None)
        self.feed = self.target.feed(None)

    @property
    def note(self) -> Path:
        return self.folder.path / "feed"

    def send(self) -> None:
        """Have the service get all that is pending."""
        while self.mover.step():
            pass

    def tree(self) -> set[str]:
        """Paths in the service."""
        return {p.removeprefix("/served/") for p in self.other.tree() if p != "/served"}

    def listed(self, folder: str = "/") -> set[str]:
        """What the client sees in a folder."""
        return set(self.client.propfind(folder, "resourcetype", depth="1").properties())

    def close(self) -> None:
        self.store.close()
        self.mover.close()
        self.folder.release()
        self.target.reconnect()


@pytest.fixture
def share(dropbox: Any, tmp_path: Path) -> Iterator[Share]:
    share = Share(dropbox, tmp_path)
    yield share
    share.close()


LARGE = bytes(range(256)) * (20 * MIB // 256)


@pytest.mark.parametrize("content", [LARGE, b"small"], ids=len)
@pytest.mark.parametrize("lost", [-1, 20])
def test_an_upload_whose_answer_was_lost_is_done(
    share: Share, dropbox: Any, content: bytes, lost: int
) -> None:
    share.client.put("/file", b"old")
    share.send()
    dropbox.control(faults=[{"endpoint": ".*upload", "times": 1, "drop_response_after": lost}])
    share.client.put("/file", content)
    share.send()
    assert dropbox.report()["faults"][0]["times"] == 0
    assert share.tree() == {"file"}
    assert share.other.read("/served/file") == content


def test_a_large_upload_that_breaks_off_goes_on_in_parts(share: Share, dropbox: Any) -> None:
    dropbox.control(
        faults=[
            {"endpoint": ".*upload", "times": 1, "drop_request_after": 18 * MIB},
            {"endpoint": ".*append_v2", "times": 1, "drop_request_after": MIB},
        ]
    )
    share.client.put("/file", LARGE)
    servers.requests_of(dropbox)
    share.send()
    sent = Counter(servers.requests_of(dropbox))
    assert (sent["upload"], sent["upload_session/start"]) == (1, 1)
    assert sent["upload_session/append_v2"] <= 5  # of 3, two of which may have gone twice
    assert share.tree() == {"file"}
    assert share.other.read("/served/file") == LARGE


@pytest.mark.parametrize("is_sent", [False, True])
def test_names_that_differ_in_case_are_one_file(share: Share, is_sent: bool) -> None:
    client = share.client
    client.mkcol("/Dir")
    assert client.put("/Dir/Name.TXT", b"first").status == 201
    if is_sent:
        share.send()
    assert client.get("/dir/name.txt").body == b"first"
    assert client.put("/DIR/NAME.txt", b"second").status == 204
    assert client.get("/Dir/Name.TXT").body == b"second"
    assert client("MKCOL", "/DIR").status == 405
    assert share.listed("/dir") == {"/Dir/", "/Dir/Name.TXT"}
    share.send()
    assert share.tree() == {"Dir", "Dir/Name.TXT"}
    assert share.other.read("/served/Dir/Name.TXT") == b"second"
    assert client("DELETE", "/dIR/nAME.TXT").status == 204
    assert client.get("/Dir/Name.TXT").status == 404
    share.send()
    assert share.tree() == {"Dir"}


def test_letters_are_folded_as_dropbox_folds_them(share: Share) -> None:
    share.other.put("/served/ΦΑΚΕΛΟΣ/file", b"content")
    share.other.put("/served/straße", b"small")
    assert share.client.get("/φακελοσ/File").body == b"content"
    share.client.put("/straẞe", b"capital")
    share.send()
    assert share.other.read("/served/straße") == b"small"
    assert share.other.read("/served/straẞe") == b"capital"


def test_composed_and_decomposed_letters_are_one_file(share: Share) -> None:
    client = share.client
    assert client.put("/cafe\u0301", b"first").status == 201
    assert client.put("/caf\u00e9", b"second").status == 204
    share.send()
    assert share.tree() == {"caf\u00e9"}
    assert client.get("/CAFE\u0301").body == b"second"
    assert share.listed() == {"/", "/caf\u00e9"}


@pytest.mark.parametrize("letter", ["e\u0301", "\u00e9"])
def test_what_waits_to_be_deleted_is_gone_in_each_spelling(share: Share, letter: str) -> None:
    share.client.mkcol("/caf\u00e9")
    share.send()
    assert share.client("DELETE", "/caf\u00e9").status == 204
    share.store.forget("/cafe\u0301")
    assert share.client.get(f"/caf{letter}").status == 404
    assert share.client("MKCOL", f"/caf{letter}").status == 201
    share.send()
    assert share.tree() == {"caf\u00e9"}


@pytest.mark.parametrize("is_sent", [False, True])
def test_another_case_by_renaming(dropbox: Any, tmp_path: Path, is_sent: bool) -> None:
    target = DropboxStore()
    with closing(behind_caches(target, tmp_path, 3600.0)) as store:
        client = DavClient(store)
        client.mkcol("/dir")
        client.put("/dir/name", b"content")
        if is_sent:
            store.flush()
        assert client("MOVE", "/dir/name", headers={"Destination": "/dir/NAME"}).status == 201
        assert client("MOVE", "/DIR", headers={"Destination": "/Dir"}).status == 201
        assert client("COPY", "/Dir", headers={"Destination": "/dir"}).status == 403
        listed = client.propfind("/dir", "resourcetype", depth="1").properties()
        assert set(listed) == {"/Dir/", "/Dir/NAME"}
        store.flush()
        assert set(dropbox.other.tree()) - {f"/{ASIDE}"} == {"/Dir", "/Dir/NAME"}
        assert client.get("/dir/name").body == b"content"
    target.reconnect()


def test_deleted_and_made_again_in_another_case(share: Share) -> None:
    client = share.client
    client.put("/name", b"old")
    share.send()
    assert client("DELETE", "/name").status == 204
    assert client.put("/NAME", b"new").status == 201
    share.send()
    assert {p.lower() for p in share.tree()} == {"name"}
    assert client.get("/Name").body == b"new"
    assert len(share.listed()) == 2


def test_a_lock_is_on_the_file_in_any_case(share: Share) -> None:
    share.client.put("/Name", b"content")
    token = share.client.token("/name")
    assert share.client.put("/NAME", b"other").status == 423
    assert share.client.put("/nAME", b"other", If=f"({token})").status == 204


@pytest.mark.parametrize("name", ["back\\slash", "space ", "desktop.ini", "x" * 256])
def test_names_that_dropbox_refuses(share: Share, name: str) -> None:
    client = share.client
    client.put("/file", b"content")
    refused = client.put(f"/{name}", b"content")
    assert refused.status == 400
    assert b"Dropbox takes no name" in refused.body
    assert client("MKCOL", f"/{name}").status == 400
    assert client("MOVE", "/file", headers={"Destination": f"/{name}"}).status == 400
    assert client("COPY", "/file", headers={"Destination": f"/{name}"}).status == 400
    assert client.get(f"/{name}").status == 404
    share.send()
    assert share.tree() == {"file"}


def follow(share: Share) -> None:
    """Take in what the feed tells by now."""
    assert share.feed is not None
    share.follower.step(share.feed)


def test_changes_of_other_devices_show_at_once(share: Share) -> None:
    client = share.client
    share.other.put("/served/Dir/File", b"first")
    share.other.put("/served/Dir/same", b"same")
    follow(share)
    assert client.get("/Dir/File").body == b"first"
    assert share.listed("/Dir") == {"/Dir/", "/Dir/File", "/Dir/same"}
    share.other.put("/served/dir/file", b"second")
    assert client.get("/Dir/File").body == b"first"
    follow(share)
    assert client.get("/Dir/File").body == b"second"
    share.other.move("/served/dir/file", "/served/Dir/New")
    follow(share)
    assert share.listed("/Dir") == {"/Dir/", "/Dir/New", "/Dir/same"}
    share.other.delete("/served/Dir")
    follow(share)
    assert client.get("/Dir/same").status == 404
    assert share.listed() == {"/"}


def test_a_folder_that_is_made_again_has_lost_what_was_in_it(share: Share) -> None:
    share.other.put("/served/Dir/file", b"first")
    follow(share)
    assert share.listed("/Dir") == {"/Dir/", "/Dir/file"}
    share.other.delete("/served/Dir")
    share.other.put("/served/Dir/other", b"other")
    follow(share)
    assert share.listed("/Dir") == {"/Dir/", "/Dir/other"}


def test_a_listing_that_comes_after_the_news_of_a_deletion_is_old(share: Share) -> None:
    share.other.put("/served/dir/file", b"content")
    follow(share)
    listings = share.folder.listings
    fetch = listings.begin(time.time(), AGE)
    listed = share.target.get_directory_metadata("/dir")
    share.other.delete("/served/dir/file")
    follow(share)
    listings.record_listing("/dir", listed, fetch)
    assert share.listed("/dir") == {"/dir/"}


def test_a_deletion_leaves_what_another_device_has_stored_since(share: Share) -> None:
    share.other.put("/served/dir/file", b"content")
    follow(share)
    assert share.listed("/dir") == {"/dir/", "/dir/file"}
    share.client("DELETE", "/dir")
    share.other.put("/served/dir/old photo", b"photo", client_modified="2001-02-03T04:05:06Z")
    share.send()
    assert share.tree() == {"dir", "dir/old photo"}


def test_changes_of_our_own_are_known(share: Share, dropbox: Any) -> None:
    follow(share)
    share.client.mkcol("/dir")
    share.client.put("/dir/file", b"content")
    share.client.put("/dir/gone", b"content")
    share.send()
    share.client("DELETE", "/dir/gone")
    share.send()
    assert share.listed("/dir") == {"/dir/", "/dir/file"}
    follow(share)
    servers.requests_of(dropbox)
    assert share.listed("/dir") == {"/dir/", "/dir/file"}
    assert share.client.get("/dir/file").body == b"content"
    assert servers.requests_of(dropbox) == []


def test_what_changed_while_no_server_ran_shows_with_the_next(share: Share) -> None:
    share.other.put("/served/file", b"first")
    follow(share)
    assert share.client.get("/file").body == b"first"
    share.other.put("/served/file", b"second")
    share.feed = share.target.feed(share.note.read_text())
    follow(share)
    assert share.client.get("/file").body == b"second"


def test_a_cursor_that_dropbox_has_forgotten(share: Share, dropbox: Any) -> None:
    follow(share)
    share.other.put("/served/file", b"first")
    follow(share)
    assert share.client.get("/file").body == b"first"
    share.other.put("/served/file", b"second")
    dropbox.control(reset_cursors=True)
    follow(share)
    assert share.client.get("/file").body == b"second"
    share.feed = share.target.feed("of another account")
    share.other.put("/served/file", b"third")
    follow(share)
    assert share.client.get("/file").body == b"third"


def test_a_feed_that_fails_goes_on_later(share: Share, dropbox: Any) -> None:
    follow(share)
    share.other.put("/served/file", b"first")
    follow(share)
    assert share.client.get("/file").body == b"first"
    share.other.put("/served/file", b"second")
    dropbox.control(
        faults=[
            {"status": 503, "times": 2},
            {"status": 429, "retry_after": 7, "skip": 2, "times": 1},
        ]
    )
    stop, pauses = threading.Event(), list[float]()

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if seconds == GATHER:
            stop.set()

    Follower(share.target, share.folder.listings, share.note, sleep).run(stop)
    assert pauses == [1.0, 2.0, 7.0, GATHER]
    assert share.client.get("/file").body == b"second"

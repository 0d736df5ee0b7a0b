"""Answers that are given again: never over a change, of whichever process (invariants 2, 4, 9)."""

import io
import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from davfusion.cache.folder import CacheFolder
from davfusion.cache.metadata_caching_store import REPEATED
from davfusion.cache.multiprocessing_caching_store import MultiprocessingCachingStore
from davfusion.config import Rights
from davfusion.memo import Memo, Validity
from davfusion.provider.shares import Share as ServedShare
from davfusion.provider.shares import Shares
from davfusion.provider.state import State
from davfusion.provider.tree import DavTree
from davfusion.stamp import Stamp
from davfusion.stores.memory import MemoryStore
from davfusion.stores.observed import ObservedStore
from tests.cache import writeback
from tests.provider.client import DavClient, Reply
from tests.provider.test_rights import Passwords
from tests.remote import RemoteStore

NAMES = ("getetag", "getcontentlength", "resourcetype")
SECONDS = 60.0


class Share:
    """A share with write-back as two workers have it; `asked` counts what they ask their caches."""

    def __init__(self, folder: Path) -> None:
        self.now = 1_700_000_000.0
        self.folder = folder
        self.truth = RemoteStore()
        self.stores = [self._share(), self._share()]
        self.asked = ObservedStore(self.stores[0])
        self.client = DavClient(self.asked, self._state())
        self.other = DavClient(self.stores[1], self._state())
        self.client.mkcol("/d")
        self.client.put("/d/f", b"one")

    def clock(self) -> float:
        return self.now

    def close(self) -> None:
        for client, store in zip((self.client, self.other), self.stores, strict=True):
            client.state.close()
            store.close()

    def _share(self) -> MultiprocessingCachingStore:
        return writeback.share(self.truth, self.folder, age=SECONDS, clock=self.clock)

    def _state(self) -> State:
        return State(self.folder / "test" / "state.sqlite", self.clock)

    def again(self, request: Callable[[], Reply]) -> int:
        """What is asked for the second of two requests, which are answered alike."""
        first = request()
        self.asked.reset()
        assert request() == first
        return self.asked.calls.total()

    def all(self) -> dict[str, Reply]:
        """Answers of the kinds that are given again, but for what each change makes another one."""
        answers = {
            "get": self.client.get("/d/f"),
            "head": self.client("HEAD", "/d/f"),
            "page": self.client.get("/d"),
            "stat": self.client.propfind("/d/f", *NAMES),
            "list": self.client.propfind("/d", *NAMES, depth="1"),
            "all": self.client.propfind("/d/f"),
        }
        listed = answers["list"]
        if folder_etag := answers["page"].headers.pop("etag", "").encode():
            assert folder_etag in listed.body
            listed = replace(listed, body=listed.body.replace(folder_etag, b""))
        return answers | {"list": listed}


@pytest.fixture
def share(tmp_path: Path) -> Iterator[Share]:
    share = Share(tmp_path)
    yield share
    share.close()


def test_a_question_is_answered_once(share: Share) -> None:
    client = share.client
    assert share.again(lambda: client.get("/d/f")) == 0
    assert share.again(lambda: client("HEAD", "/d/f")) == 0
    assert share.again(lambda: client.propfind("/d/f", *NAMES)) == 0
    assert share.again(lambda: client.propfind("/d", *NAMES, depth="1")) == 0
    assert share.again(lambda: client.propfind("/d/f")) == 0


def test_questions_that_differ_are_answered_each(share: Share) -> None:
    client = share.client
    assert client.propfind("/d", *NAMES) != client.propfind("/d", *NAMES, depth="1")
    assert client.propfind("/d/f", "getetag") != client.propfind("/d/f", "resourcetype")
    assert client.get("/d/f").body != client("HEAD", "/d/f").body
    assert client.get("/d/f", Range="bytes=1-").body == b"ne"
    assert client.get("/d/f", If_None_Match="*").status == 304
    assert client.get("/d/f").body == b"one"


def test_rights_are_told_to_each_as_his_own(share: Share) -> None:
    tree = DavTree(share.stores[0], share.client.state)
    rights = Rights(frozenset({"reader"}), frozenset({"owner"}))
    shares = Shares({"/": ServedShare(tree, rights)})
    body = b'<D:propfind xmlns:D="DAV:"><D:prop><p:permissions xmlns:p="http://owncloud.org/ns"/>'
    body += b"</D:prop></D:propfind>"
    told = []
    for user in ("owner", "reader", "stranger", "owner"):
        client = DavClient(shares=shares, users=Passwords(), user=user)
        told.append(client("PROPFIND", "/d/f", body, {"Depth": "0"}))
    assert [b">GDNVW<" in each.body for each in told] == [True, False, False, True]
    assert [each.status for each in told] == [207, 207, 404, 207]


def test_what_is_too_large_is_read_each_time(share: Share) -> None:
    share.client.put("/d/large", bytes(1 << 20))
    assert share.again(lambda: share.client.get("/d/large")) > 0


def test_what_another_worker_asks_the_store_changes_no_answer(share: Share) -> None:
    share.truth.store_fileobject(io.BytesIO(b"theirs"), "/theirs/t")
    share.all()
    assert share.other.propfind("/theirs", depth="1").status == 207
    assert share.other.get("/theirs/t").body == b"theirs"
    assert share.again(lambda: share.client.propfind("/d", *NAMES, depth="1")) == 0
    share.asked.reset()
    share.all()
    assert share.asked.calls.total() == 0


CHANGES: dict[str, Callable[[DavClient], Reply]] = {
    "get": lambda other: other.put("/d/f", b"three"),
    "stat": lambda other: other.put("/d/f", b"three"),
    "list": lambda other: other.put("/d/g", b""),
    "page": lambda other: other("MKCOL", "/d/h"),
    "head": lambda other: other("DELETE", "/d/f"),
    "all": lambda other: other.proppatch("/d/f", "<X:p>v</X:p>"),
}


@pytest.mark.parametrize("kind", CHANGES)
@pytest.mark.parametrize("same_worker", [True, False])
def test_a_change_shows_at_once(share: Share, kind: str, same_worker: bool) -> None:
    before = share.all()
    assert CHANGES[kind](share.client if same_worker else share.other).status < 300
    assert share.all()[kind] != before[kind]


@pytest.mark.parametrize("method", ["MOVE", "COPY"])
def test_what_is_moved_or_copied_shows_at_once(share: Share, method: str) -> None:
    before = share.all()
    share.other.put("/new", b"three")
    assert share.other(method, "/new", headers={"Destination": "/d/f"}).status == 204
    assert share.all()["get"] != before["get"]
    assert share.other("MOVE", "/d", headers={"Destination": "/e"}).status == 201
    assert {reply.status for reply in share.all().values()} == {404}


def test_a_lock_shows_at_once_and_runs_down(share: Share) -> None:
    before = share.all()
    token = share.other.token("/d/f", Timeout="Second-100")
    locked = share.all()
    assert locked["all"] != before["all"]
    share.client.tree.clock = share.clock
    assert b"Second-100" in share.client.propfind("/d/f", "lockdiscovery").body
    share.now += 1
    assert b"Second-99" in share.client.propfind("/d/f", "lockdiscovery").body
    assert share.other("UNLOCK", "/d/f", headers={"Lock-Token": token}).status == 204
    assert share.all() == before


def test_what_the_mover_has_done_shows_at_once(share: Share) -> None:
    mover = writeback.mover(share.truth, share.folder, clock=share.clock)
    share.all()
    share.now += 10
    while mover.step():
        share.now += 10
    assert share.again(lambda: share.client.get("/d/f")) == 0
    assert share.truth.get_file("/d/f") == b"one"


def test_a_foreign_change_shows_soon_after_the_listings_have_expired(share: Share) -> None:
    share.truth.store_fileobject(io.BytesIO(b"theirs"), "/t")
    assert share.client.get("/t").body == b"theirs"
    share.truth.store_fileobject(io.BytesIO(b"another"), "/t")
    share.now += SECONDS - 0.1
    assert share.client.get("/t").body == b"theirs"
    share.now += REPEATED
    assert share.client.get("/t").body == b"another"


def test_nothing_is_given_again_where_outside_changes_show_at_once(tmp_path: Path) -> None:
    """A local folder, and --cache-expiration 0; and where the locks lie elsewhere."""
    assert MemoryStore().validity is None
    with closing(writeback.share(MemoryStore(), tmp_path / "0", age=0)) as uncached:
        assert uncached.validity is None
    with closing(writeback.share(RemoteStore(), tmp_path)) as store:
        client = DavClient(share := ObservedStore(store), State(tmp_path / "state.sqlite"))
        client.put("/f", b"x")
        client.get("/f")
        share.reset()
        client.get("/f")
        assert share.calls.total() > 0
        client.state.close()


def _renew(folder: Path) -> None:
    Stamp(folder).renew()


def test_another_process_renews_the_stamp(tmp_path: Path) -> None:
    stamp = Stamp(tmp_path)
    before = stamp.value()
    assert stamp.value() == before
    process = multiprocessing.get_context("spawn").Process(target=_renew, args=[tmp_path])
    process.start()
    process.join()
    assert process.exitcode == 0
    assert stamp.value() != before


def test_listings_that_are_thrown_away_take_the_answers_along(tmp_path: Path) -> None:
    """What they should have learnt of a change may be what they lost."""
    listings = CacheFolder(tmp_path, "test").listings
    (tmp_path / "test").mkdir()
    stamp = Stamp(tmp_path / "test")
    before = stamp.value()
    listings.clear()
    assert stamp.value() != before
    listings.forget(["/f"], 1.0)
    before = stamp.value()
    listings.close()
    (tmp_path / "test" / "listings.sqlite").write_bytes(b"no database" * 100)
    assert listings.find("/f", 1.0) is None
    assert stamp.value() != before


def test_a_memo_keeps_within_its_limit(tmp_path: Path) -> None:
    now = 0.0
    memo = Memo(Validity(tmp_path, 5, lambda: now), limit=10_000)
    for number in range(10):
        memo.keep(number, memo.begin(), b"", 1000)
    assert [n for n in range(10) if memo.recall(n)] == [8, 9]
    memo.keep("large", memo.begin(), b"", 5000)
    assert memo.recall("large") is None
    moment = memo.begin()
    memo.keep("late", moment, b"", 1)
    now = 4.9
    assert memo.recall("late") == (moment, b"")
    now = 5.0
    assert memo.recall("late") is None
    now = -1.0
    assert memo.recall("late") is None
    Stamp(tmp_path).renew()
    memo.keep("overtaken", moment, b"", 1)
    now = 0.0
    assert memo.recall("overtaken") is None


def test_a_write_after_all_was_sent_shows_at_once(share: Share) -> None:
    """Each worker knows then that nothing is pending, as long as the stamp stays the same."""
    mover = writeback.mover(share.truth, share.folder, clock=share.clock)
    share.now += 10
    while mover.step():
        share.now += 10
    before = share.all()
    with closing(CacheFolder(share.folder, "test").journal(0)) as journal:
        assert journal.count() == 0
    assert share.other.put("/d/f", b"three").status == 204
    after = share.all()
    assert after["get"].body == b"three"
    assert {kind for kind in before if before[kind] == after[kind]} <= {"page"}
    assert share.other("DELETE", "/d").status == 204
    assert {reply.status for reply in share.all().values()} == {404}

"""ETags of folders: another one after each change below, as far as that is known (row D5)."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from davfusion.cache.folder import CacheFolder
from davfusion.cache.multiprocessing_caching_store import MultiprocessingCachingStore
from davfusion.config import Rights
from davfusion.provider.shares import Share as ServedShare
from davfusion.provider.shares import Shares
from davfusion.provider.state import State
from davfusion.provider.tree import DavTree
from davfusion.stores.local import LocalStore
from davfusion.stores.memory import MemoryStore
from davfusion.stores.store import Store
from tests.cache import writeback
from tests.provider.client import DavClient, Reply
from tests.provider.test_rights import Passwords
from tests.remote import RemoteStore

AGE = 60.0


class Workers:
    """A share as two workers have it; `kind` is `back` (write-back) or `local` (no cache)."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.now = 1_700_000_000.0
        self.folder = folder
        self.truth: Store = RemoteStore() if kind == "back" else _local(folder / "files")
        self.stores = [self._share() if kind == "back" else self.truth for _ in range(2)]
        self.clients = [DavClient(store, self._state()) for store in self.stores]
        for client in self.clients:
            client.tree.clock = lambda: self.now
        self.client, self.other = self.clients
        self.client.mkcol("/a")
        self.client.mkcol("/a/b")
        self.client.put("/a/b/f", b"one")

    def _share(self) -> Store:
        return writeback.share(self.truth, self.folder, age=AGE, clock=lambda: self.now)

    def _state(self) -> State:
        return State(self.folder / "test" / "state.sqlite", lambda: self.now)

    def close(self) -> None:
        for client in self.clients:
            client.state.close()
        for store in self.stores:
            if isinstance(store, MultiprocessingCachingStore):
                store.close()


def _local(folder: Path) -> Store:
    folder.mkdir()
    return LocalStore(folder)


@pytest.fixture(params=["back", "local"])
def share(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Workers]:
    CacheFolder(tmp_path, "test").prepare()
    share = Workers(tmp_path, request.param)
    yield share
    share.close()


def tag(client: DavClient, path: str) -> str:
    """As PROPFIND of the folder itself tells it, and GET of its page."""
    found = client.propfind(path, "getetag").properties()
    [properties] = found.values()
    status, element = properties["{DAV:}getetag"]
    assert status == 200
    assert client.get(path).headers["etag"] == element.text
    return element.text or ""


def tags(share: Workers) -> list[str]:
    """Of the folders that hold /a/b/f, the root too, as both workers tell them."""
    return [tag(client, path) for client in share.clients for path in ("/", "/a", "/a/b")]


CHANGES: dict[str, Callable[[DavClient], Reply]] = {
    "new": lambda c: c.put("/a/b/g", b""),
    "rewrite": lambda c: c.put("/a/b/f", b"two"),
    "delete": lambda c: c("DELETE", "/a/b/f"),
    "folder": lambda c: c("MKCOL", "/a/b/c"),
    "rename": lambda c: c("MOVE", "/a/b/f", headers={"Destination": "/a/b/g"}),
    "copy": lambda c: c("COPY", "/a/b/f", headers={"Destination": "/a/b/g"}),
    "property": lambda c: c.proppatch("/a/b/f", "<X:p>v</X:p>"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_change_below_makes_another_one_for_all_workers(share: Workers, kind: str) -> None:
    before = tags(share)
    assert CHANGES[kind](share.other).status < 300
    assert not set(before) & set(tags(share))


def test_reading_changes_none(share: Workers) -> None:
    before = tags(share)
    for client in share.clients:
        client.propfind("/", "getetag", depth="infinity")
        client.get("/a/b/f")
        assert client.get("/a/b/f", If_None_Match=client.etag("/a/b/f")).status == 304
    assert tags(share) == before
    listed = share.client.propfind("/", "getetag", depth="infinity").properties()
    told = {path: found["{DAV:}getetag"][1].text for path, found in listed.items()}
    assert {told[path] for path in ("/", "/a/", "/a/b/")} == set(before)


def test_what_nobody_has_told_of_shows_in_time(share: Workers) -> None:
    before = tags(share)
    share.truth.store_fileobject(io.BytesIO(b"theirs"), "/a/b/theirs")
    share.now += AGE
    assert not set(before) & set(tags(share))


def test_what_the_service_tells_shows_at_once(tmp_path: Path) -> None:
    CacheFolder(tmp_path, "test").prepare()
    share = Workers(tmp_path, "back")
    before = tags(share)
    listings = CacheFolder(tmp_path, "test").listings
    listings.forget(["/a/b/theirs"], share.now)
    listings.close()
    assert not set(before) & set(tags(share))
    share.close()


def test_conditions_hold_of_the_folder_as_it_is(share: Workers) -> None:
    old = tag(share.client, "/a/b")
    share.other.put("/a/b/g", b"more")
    assert share.client("DELETE", "/a/b", headers={"If-Match": old}).status == 412
    assert share.client.get("/a/b/g").body == b"more"
    put = {"If": f"</a/b> ([{old}])"}
    assert share.client("PUT", "/a/b/h", b"late", put).status == 412
    now = tag(share.client, "/a/b")
    assert share.client.get("/a/b", If_None_Match=now).status == 304
    assert share.client.get("/a/b", If_None_Match=old).status == 200
    put = {"If": f"</a/b> ([{now}])"}
    assert share.client("PUT", "/a/b/h", b"in time", put).status == 201
    now = tag(share.client, "/a/b")
    assert share.client("DELETE", "/a/b", headers={"If-Match": now}).status == 204


class TwoShares:
    """/one, a folder, and /two, with write-back; `owner` may change both, `reader` only read."""

    def __init__(self, folder: Path) -> None:
        CacheFolder(folder, "test").prepare()
        (folder / "one").mkdir()
        self._store = writeback.share(RemoteStore(), folder)
        stores = {"one": (_local(folder / "files"), "one"), "two": (self._store, "test")}
        self._trees = {
            name: DavTree(store, State(folder / cache / "state"))
            for name, (store, cache) in stores.items()
        }
        rights = Rights(frozenset({"reader"}), frozenset({"owner"}))
        shares = Shares({name: ServedShare(tree, rights) for name, tree in self._trees.items()})
        for tree in self._trees.values():
            tree.clock = lambda: 1_700_000_000.0
        self.owner, self.reader = (
            DavClient(shares=shares, users=Passwords(), user=user) for user in ("owner", "reader")
        )

    def close(self) -> None:
        for tree in self._trees.values():
            tree.state.close()
        self._store.close()


@pytest.fixture
def two_shares(tmp_path: Path) -> Iterator[TwoShares]:
    shares = TwoShares(tmp_path)
    yield shares
    shares.close()


def test_what_comes_from_another_share_makes_another_one(two_shares: TwoShares) -> None:
    client = two_shares.owner
    client.put("/one/f", b"content")
    before = tag(client, "/two"), tag(client, "/")
    assert client("COPY", "/one/f", headers={"Destination": "/two/f"}).status == 201
    assert tag(client, "/two") != before[0]
    assert tag(client, "/") != before[1]


def test_conditions_hold_of_a_folder_of_another_share(two_shares: TwoShares) -> None:
    client = two_shares.owner
    client.put("/one/f", b"content")
    old = tag(client, "/two")
    client.put("/two/g", b"more")
    copy = {"Destination": "/two/f", "If": f"</two> ([{old}])"}
    assert client("COPY", "/one/f", headers=copy).status == 412
    assert client.get("/two/f").status == 404
    now = tag(client, "/two")
    copy["If"] = f'</two/g> (["none"]) </two> ([{now}])'
    assert client("COPY", "/one/f", headers=copy).status == 201


def test_who_may_not_write_changes_none(two_shares: TwoShares) -> None:
    two_shares.owner.put("/one/f", b"content")
    before = tag(two_shares.reader, "/one")
    copy = {"Destination": "/one/g"}
    assert two_shares.reader("COPY", "/one/f", headers=copy).status == 403
    assert two_shares.reader("DELETE", "/one/f").status == 403
    assert tag(two_shares.reader, "/one") == before


def test_without_a_file_for_it_there_is_none() -> None:
    client = DavClient(MemoryStore())
    [properties] = client.propfind("/", "getetag").properties().values()
    assert properties["{DAV:}getetag"][0] == 404
    assert "etag" not in client.get("/").headers


class SlowBody(io.BytesIO):
    """A request's body, while which comes something happens."""

    def __init__(self, body: bytes, meanwhile: Callable[[], object]) -> None:
        super().__init__(body)
        self._meanwhile = meanwhile

    def read(self, size: int | None = -1, /) -> bytes:
        self._meanwhile()
        return super().read(size)


def test_a_slow_question_gets_nobody_the_one_of_before(share: Workers) -> None:
    old = tag(share.client, "/a")
    query = b'<D:propfind xmlns:D="DAV:"><D:prop><D:getetag/></D:prop></D:propfind>'

    def ask(meanwhile: Callable[[], object]) -> bytes:
        length = {"Depth": "0", "Content-Length": str(len(query))}
        return share.client("PROPFIND", "/a", SlowBody(query, meanwhile), length).body

    ask(lambda: share.other.put("/a/b/g", b"more"))
    assert old.encode() not in ask(lambda: None)


def test_a_date_says_nothing_of_what_is_in_a_folder(share: Workers) -> None:
    future = "Fri, 01 Jan 2100 00:00:00 GMT"
    assert share.client.get("/a", If_Modified_Since=future).status == 200
    assert share.client.get("/a/b/f", If_Modified_Since=future).status == 304

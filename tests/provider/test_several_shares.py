"""Several shares as one tree, over DAV: COPY and MOVE between them (row S18)."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from davfusion.provider.shares import Share, Shares
from davfusion.provider.state import State
from davfusion.provider.tree import DavTree
from davfusion.stores.local import LocalStore
from davfusion.stores.memory import MemoryStore
from davfusion.stores.observed import ObservedStore
from davfusion.stores.store import Features, ReadableStream, Store, TransientStoreError
from davfusion.stores.wrapper import StoreWrapper
from tests.provider.client import D, DavClient

X = "{urn:x:}p"
FREE, USED = "quota-available-bytes", "quota-used-bytes"


class Sized(MemoryStore):
    """Says how much room there is, or that it cannot be asked."""

    def __init__(self, free: int | None) -> None:
        super().__init__()
        self.free = free

    def get_free_space(self) -> int:
        if self.free is None:
            raise TransientStoreError("away")
        return self.free

    def get_used_space(self) -> int:
        return 7


def tree_of(**stores: Store) -> DavClient:
    """Each store with locks and properties of its own."""
    trees = {name: DavTree(store, State(None)) for name, store in stores.items()}
    return DavClient(shares=Shares({name: Share(tree) for name, tree in trees.items()}))


def filled(client: DavClient) -> DavClient:
    client.mkcol("/photos/2026", "/photos/2026/empty")
    client("PUT", "/photos/2026/a.jpg", b"picture", {"X-OC-Mtime": "1600000000"})
    client.proppatch("/photos/2026/a.jpg", "<X:p>sunny</X:p>")
    return client


@pytest.fixture
def client() -> DavClient:
    return filled(tree_of(photos=MemoryStore(), team=MemoryStore()))


def test_the_root_lists_the_shares(client: DavClient) -> None:
    found = client.propfind("/", depth="1").properties()
    assert set(found) == {"/", "/photos/", "/team/"}
    assert found["/team/"][D + "displayname"][1].text == "team"
    assert set(client.propfind("/").properties()) == {"/"}
    page = client.get("/").body.decode()
    assert 'href="/photos/"' in page
    assert 'href="/team/"' in page


def test_the_whole_tree_at_once(client: DavClient) -> None:
    found = client.propfind("/", depth="infinity").properties()
    assert set(found) == {
        "/", "/photos/", "/photos/2026/", "/photos/2026/a.jpg", "/photos/2026/empty/", "/team/"
    }  # fmt: skip
    assert found["/photos/2026/a.jpg"][X][1].text == "sunny"


@pytest.mark.parametrize("method", ["COPY", "MOVE"])
def test_a_folder_goes_to_another_share(client: DavClient, method: str) -> None:
    assert client(method, "/photos/2026", headers={"Destination": "/team/new"}).status == 201
    got = client.get("/team/new/a.jpg")
    assert (got.body, got.headers["last-modified"]) == (b"picture", "Sun, 13 Sep 2020 12:26:40 GMT")
    found = client.propfind("/team/new", depth="infinity").properties()
    assert found["/team/new/a.jpg"][X][1].text == "sunny"
    assert set(found) == {"/team/new/", "/team/new/empty/", "/team/new/a.jpg"}
    assert client.get("/photos/2026/a.jpg").status == (200 if method == "COPY" else 404)
    client.put("/photos/2026" if method == "MOVE" else "/photos/other", b"")
    left = client.propfind("/photos/", depth="infinity").properties()
    assert [X in properties for properties in left.values()].count(True) == (method == "COPY")


@pytest.mark.parametrize("method", ["COPY", "MOVE"])
def test_a_file_replaces_one_of_another_share(client: DavClient, method: str) -> None:
    client.put("/team/b", b"old")
    client.proppatch("/team/b", "<X:p>old</X:p><X:q>old</X:q>")
    headers = {"Destination": "/team/b", "Overwrite": "F"}
    assert client(method, "/photos/2026/a.jpg", headers=headers).status == 412
    headers["Overwrite"] = "T"
    assert client(method, "/photos/2026/a.jpg", headers=headers).status == 204
    assert client.get("/team/b").body == b"picture"
    properties = client.propfind("/team/b").properties()["/team/b"]
    assert properties[X][1].text == "sunny"
    assert "{urn:x:}q" not in properties


def test_a_folder_alone_goes_to_another_share(client: DavClient) -> None:
    headers = {"Destination": "/team/new", "Depth": "0"}
    assert client("COPY", "/photos/2026", headers=headers).status == 201
    assert set(client.propfind("/team/new", depth="1").properties()) == {"/team/new/"}


def test_a_share_itself_stays(client: DavClient) -> None:
    assert client("DELETE", "/photos").status == 403
    assert client("MOVE", "/photos", headers={"Destination": "/team/x"}).status == 403
    assert client("COPY", "/team", headers={"Destination": "/photos"}).status == 403
    assert client("MKCOL", "/more").status == 403
    assert client.put("/file", b"1").status == 403
    assert client("COPY", "/photos", headers={"Destination": "/team/all"}).status == 201
    assert client.get("/team/all/2026/a.jpg").body == b"picture"


def test_the_root_is_nobodys(client: DavClient) -> None:
    assert client.lock("/").status == 403
    assert client.proppatch("/", "<X:p>1</X:p>").status == 403
    assert client("MOVE", "/", headers={"Destination": "/team/x"}).status == 403
    assert client("DELETE", "/").status == 403
    assert client("COPY", "/photos/2026", headers={"Destination": "/"}).status == 403
    assert client("COPY", "/photos/2026", headers={"Destination": "/none/x"}).status == 409
    assert client("REPORT", "/").status == 403
    found = client.propfind("/", "supported-report-set", "sync-token", depth="1").properties()
    reports = {path: each[D + "supported-report-set"][1] for path, each in found.items()}
    assert [len(reports[path]) for path in ("/", "/photos/")] == [0, 1]
    assert [found[path][D + "sync-token"][0] for path in ("/", "/photos/")] == [404, 200]


def test_a_path_before_all_shares_counts_everywhere() -> None:
    client = tree_of(photos=MemoryStore(), team=MemoryStore())
    client.prefix = "/dav"
    filled(client)
    found = client.propfind("/", depth="1").properties()
    assert set(found) == {"/dav/", "/dav/photos/", "/dav/team/"}
    assert client("MOVE", "/photos/2026", headers={"Destination": "/team/x"}).status == 201
    assert client.get("/team/x/a.jpg").body == b"picture"
    token = client.token("/team/x/a.jpg")
    assert client.get("/photos/", If=f"</dav/team/x/a.jpg> ({token})").status == 200


def test_quota_is_that_of_the_share() -> None:
    client = tree_of(small=Sized(10), large=Sized(1000), away=Sized(None), none=MemoryStore())
    found = client.propfind("/", FREE, USED, "displayname", depth="1").properties()
    free = {path: properties[D + FREE] for path, properties in found.items()}
    assert {path: (status, each.text) for path, (status, each) in free.items()} == {
        "/": (404, None),
        "/small/": (200, "10"),
        "/large/": (200, "1000"),
        "/away/": (404, None),
        "/none/": (404, None),
    }
    assert client.propfind("/large/", FREE).properties()["/large/"][D + FREE][1].text == "1000"


def test_locks_of_the_other_share_count(client: DavClient) -> None:
    client.put("/team/b", b"old")
    token = client.token("/team/b")
    for method in ("COPY", "MOVE"):
        headers = {"Destination": "/team/b"}
        refused = client(method, "/photos/2026/a.jpg", headers=headers)
        assert refused.status == 423
        assert b"<D:href>/team/b</D:href>" in refused.body
        headers["If"] = f"</team/b> (<{token.strip('<>')}>)"
        assert client(method, "/photos/2026/a.jpg", headers=headers).status == 204
    assert client.get("/team/b").body == b"picture"
    assert client.propfind("/photos/", "lockdiscovery", depth="1").body.count(b"activelock") == 0


def test_a_condition_may_be_on_a_file_of_another_share(client: DavClient) -> None:
    client.put("/team/b", b"1")
    condition = f"</team/b> ([{client.etag('/team/b')}])"
    assert client.get("/photos/2026/a.jpg", If=condition).status == 200
    client.put("/team/b", b"2")
    assert client.get("/photos/2026/a.jpg", If=condition).status == 412


class Ended(io.BytesIO):
    """A connection that ends early."""

    def seekable(self) -> bool:
        return False


class Broken(Ended):
    """A connection that breaks."""

    def read(self, size: int | None = -1, /) -> bytes:
        if data := super().read(size):
            return data
        raise TransientStoreError("the connection broke")


class Unsteady(MemoryStore):
    """Its files come over connections of that kind, but for the last bytes."""

    kind: type[io.BytesIO] | None = None

    def open_read(
        self, path: str, offset: int = 0, length: int | None = None, etag: str | None = None
    ) -> ReadableStream:
        stream = super().open_read(path, offset, length, etag)
        return self.kind(stream.read()[:-1]) if self.kind else stream


class Receiving(StoreWrapper):
    """Does not rewind, as a share's cache."""

    @property
    def features(self) -> Features:
        return replace(super().features, receives_first=True)


@pytest.mark.parametrize("team", [MemoryStore, lambda: Receiving(MemoryStore())])
@pytest.mark.parametrize("kind", [Ended, Broken])
@pytest.mark.parametrize("method", ["COPY", "MOVE"])
def test_what_breaks_off_between_shares_leaves_no_half_file(
    method: str, kind: type[io.BytesIO], team: Callable[[], Store]
) -> None:
    photos = Unsteady()
    client = filled(tree_of(photos=photos, team=team()))
    client.put("/team/b", b"old")
    photos.kind = kind
    for destination, left in (("/team/b", b"old"), ("/team/new", None)):
        reply = client(method, "/photos/2026/a.jpg", headers={"Destination": destination})
        assert reply.status == 503
        got = client.get(destination)
        assert (got.body if got.status == 200 else None) == left
    reply = client(method, "/photos/2026", headers={"Destination": "/team/all"})
    assert reply.statuses() == {"/photos/2026/a.jpg": 503}
    assert client.get("/team/all/a.jpg").status == 404
    photos.kind = None
    assert client.get("/photos/2026/a.jpg").body == b"picture"


def test_within_a_share_its_store_copies_by_itself() -> None:
    photos = ObservedStore(MemoryStore())
    client = filled(tree_of(photos=photos, team=MemoryStore()))
    photos.reset()
    assert client("COPY", "/photos/2026", headers={"Destination": "/photos/new"}).status == 201
    assert photos.calls["duplicate"] == 1
    assert photos.calls["open_read"] == 0


def overlapping(tmp_path: Path, **folders: str) -> DavClient:
    """Shares of folders below one, with a file in the innermost."""
    (tmp_path / "photos" / "2026").mkdir(parents=True)
    (tmp_path / "photos" / "2026" / "a.jpg").write_bytes(b"picture")
    return tree_of(**{name: LocalStore(tmp_path / path) for name, path in folders.items()})


@pytest.mark.parametrize("method", ["COPY", "MOVE"])
@pytest.mark.parametrize(
    ("source", "destination"),
    [
        ("/photos/2026/a.jpg", "/all/photos/2026/a.jpg"),
        ("/all/photos/2026/a.jpg", "/photos/2026/a.jpg"),
        ("/twin/photos", "/all/photos"),
        ("/all/photos", "/photos/2026/new"),
        ("/photos/2026/a.jpg", "/all/photos"),
    ],
    ids=["file", "file the other way", "folder", "into itself", "over what holds it"],
)
def test_one_place_that_two_shares_show_does_not_replace_itself(
    tmp_path: Path, method: str, source: str, destination: str
) -> None:
    client = overlapping(tmp_path, all="", twin=".", photos="photos")
    assert client(method, source, headers={"Destination": destination}).status == 403
    assert client.get("/all/photos/2026/a.jpg").body == b"picture"
    assert client.get("/photos/2026/new").status == 404


@pytest.mark.parametrize("method", ["COPY", "MOVE"])
def test_shares_of_one_place_give_each_other_what_is_apart(tmp_path: Path, method: str) -> None:
    client = overlapping(tmp_path, all="", photos="photos")
    headers = {"Destination": "/all/photos/2026/b.jpg"}
    assert client(method, "/photos/2026/a.jpg", headers=headers).status == 201
    assert client.get("/photos/2026/b.jpg").body == b"picture"
    assert client.get("/photos/2026/a.jpg").status == (200 if method == "COPY" else 404)

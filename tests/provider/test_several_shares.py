"""Several shares as one tree, over DAV: COPY and MOVE between them (row S18)."""

import pytest

from davfusion.stores.memory import MemoryStore
from davfusion.stores.tree import TreeStore
from tests.provider.client import DavClient

X = "{urn:x:}p"


@pytest.fixture
def client() -> DavClient:
    client = DavClient(TreeStore({"/photos": MemoryStore(), "/team": MemoryStore()}))
    client.mkcol("/photos/2026", "/photos/2026/empty")
    client("PUT", "/photos/2026/a.jpg", b"picture", {"X-OC-Mtime": "1600000000"})
    client.proppatch("/photos/2026/a.jpg", "<X:p>sunny</X:p>")
    return client


def test_the_root_lists_the_shares(client: DavClient) -> None:
    assert set(client.propfind("/", depth="1").properties()) == {"/", "/photos/", "/team/"}


@pytest.mark.parametrize("method", ["COPY", "MOVE"])
def test_a_folder_goes_to_another_share(client: DavClient, method: str) -> None:
    assert client(method, "/photos/2026", headers={"Destination": "/team/new"}).status == 201
    got = client.get("/team/new/a.jpg")
    assert (got.body, got.headers["last-modified"]) == (b"picture", "Sun, 13 Sep 2020 12:26:40 GMT")
    found = client.propfind("/team/new", depth="infinity").properties()
    assert found["/team/new/a.jpg"][X][1].text == "sunny"
    assert set(found) == {"/team/new/", "/team/new/empty/", "/team/new/a.jpg"}
    assert client.get("/photos/2026/a.jpg").status == (200 if method == "COPY" else 404)


@pytest.mark.parametrize("method", ["COPY", "MOVE"])
def test_a_file_replaces_one_of_another_share(client: DavClient, method: str) -> None:
    client.put("/team/b", b"old")
    headers = {"Destination": "/team/b", "Overwrite": "F"}
    assert client(method, "/photos/2026/a.jpg", headers=headers).status == 412
    headers["Overwrite"] = "T"
    assert client(method, "/photos/2026/a.jpg", headers=headers).status == 204
    assert client.get("/team/b").body == b"picture"


def test_a_share_itself_stays(client: DavClient) -> None:
    assert client("DELETE", "/photos").status == 403
    assert client("MOVE", "/photos", headers={"Destination": "/team/x"}).status == 403
    assert client("COPY", "/team", headers={"Destination": "/photos"}).status == 403
    assert client("MKCOL", "/more").status == 403
    assert client.put("/file", b"1").status == 403
    assert client("COPY", "/photos", headers={"Destination": "/team/all"}).status == 201
    assert client.get("/team/all/2026/a.jpg").body == b"picture"

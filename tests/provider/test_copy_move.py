"""COPY, MOVE, DELETE and MKCOL: statuses and what is left (row D7)."""

import pytest

from davfusion.stores.errors import PartialFailureError, StoreAutorizationError
from davfusion.stores.memory import MemoryStore
from tests.provider.client import DavClient


@pytest.fixture
def client() -> DavClient:
    client = DavClient()
    client.mkcol("/d", "/d/sub", "/other")
    client.put("/d/f", b"f")
    client.put("/d/sub/g", b"g")
    client.put("/other/old", b"old")
    client.put("/file", b"file")
    return client


def tree(client: DavClient) -> dict[str, bytes | None]:
    return {
        path: None if metadata["is_dir"] else client.store.get_file(path)
        for path, metadata in client.store.walk_metadata("/")
    }


@pytest.mark.parametrize("method", ["COPY", "MOVE"])
@pytest.mark.parametrize(
    ("src", "dst", "status"),
    [
        ("/file", "/new", 201),
        ("/file", "/other/old", 204),
        ("/file", "/other", 204),
        ("/d", "/new", 201),
        ("/d", "/other", 204),
        ("/d", "/file", 204),
        ("/d/sub/g", "/d/f", 204),
        ("/none", "/new", 404),
        ("/file", "/none/x", 409),
        ("/file", "/file", 403),
        ("/d", "/d", 403),
        ("/d", "/d/sub/x", 403),
        ("/d/sub", "/d", 403),
        ("/", "/x", 403),
    ],
)
def test_copy_and_move(client: DavClient, method: str, src: str, dst: str, status: int) -> None:
    before = tree(client)
    assert client(method, src, headers={"Destination": dst}).status == status
    expected = dict(before)
    if status < 300:
        inside = {p: v for p, v in before.items() if p == src or p.startswith(src + "/")}
        expected = {p: v for p, v in before.items() if p != dst and not p.startswith(dst + "/")}
        if method == "MOVE":
            expected = {p: v for p, v in expected.items() if p not in inside}
        expected |= {dst + p[len(src) :]: v for p, v in inside.items()}
    assert tree(client) == expected


@pytest.mark.parametrize("method", ["COPY", "MOVE"])
def test_overwrite_f(client: DavClient, method: str) -> None:
    before = tree(client)
    headers = {"Destination": "/other", "Overwrite": "F"}
    assert client(method, "/d", headers=headers).status == 412
    assert tree(client) == before
    assert client(method, "/d", headers=headers | {"Destination": "/new"}).status == 201


class Overtaken(MemoryStore):
    """A store where another is quicker to make the destination."""

    def move(self, path_to_src: str, path_to_dest: str, *, replace: bool = True) -> None:
        super().create_directory(path_to_dest)
        super().move(path_to_src, path_to_dest, replace=replace)

    def duplicate(self, path_to_src: str, path_to_dest: str, *, replace: bool = True) -> None:
        super().create_directory(path_to_dest)
        super().duplicate(path_to_src, path_to_dest, replace=replace)

    def create_directory(self, directory: str) -> None:
        super().create_directory(directory)
        if directory == "/new":
            super().create_directory(directory)


@pytest.mark.parametrize("request_line", ["MOVE /f", "MOVE /d", "COPY /f", "COPY /d", "COPY /d 0"])
def test_overwrite_f_when_another_is_quicker(request_line: str) -> None:
    client = DavClient(Overtaken())
    client.mkcol("/d")
    client.put("/d/x", b"x")
    client.put("/f", b"f")
    method, src, *depth = request_line.split()
    headers = {"Destination": "/new", "Overwrite": "F", "Depth": (*depth, "infinity")[0]}
    assert client(method, src, headers=headers).status == 412
    assert tree(client) == {"/d": None, "/d/x": b"x", "/f": b"f", "/new": None}


def test_a_folder_copied_alone_when_another_is_quicker() -> None:
    client = DavClient(Overtaken())
    client.mkcol("/d")
    headers = {"Destination": "/new", "Depth": "0"}
    assert client("COPY", "/d", headers=headers).status == 409
    assert client("COPY", "/d", headers=headers).status == 409
    assert client("COPY", "/d", headers=headers | {"Destination": "/newer"}).status == 201


def test_a_folder_copied_alone(client: DavClient) -> None:
    headers = {"Destination": "/other", "Depth": "0"}
    assert client("COPY", "/d", headers=headers).status == 204
    assert client.store.get_directory_metadata("/other") == {}


def test_a_file_copied_with_depth_0(client: DavClient) -> None:
    headers = {"Destination": "/new", "Depth": "0"}
    assert client("COPY", "/file", headers=headers).status == 201
    assert client.get("/new").body == b"file"


def test_delete(client: DavClient) -> None:
    assert client("DELETE", "/d").status == 204
    assert client("DELETE", "/d").status == 404
    assert set(tree(client)) == {"/other", "/other/old", "/file"}
    assert client("DELETE", "/").status == 403


def test_mkcol(client: DavClient) -> None:
    assert client("MKCOL", "/new").status == 201
    assert client("MKCOL", "/new").status == 405
    assert client("MKCOL", "/file").status == 405
    assert client("MKCOL", "/").status == 405
    assert client("MKCOL", "/none/new").status == 409
    assert client("MKCOL", "/file/new").status == 409
    assert client("MKCOL", "/body", b"<x/>").status == 415


class Guarded(MemoryStore):
    """A store that keeps one file whatever is asked of it."""

    kept = "/d/sub/g"

    def move(self, path_to_src: str, path_to_dest: str, *, replace: bool = True) -> None:
        self._fail(path_to_src)
        super().move(path_to_src, path_to_dest, replace=replace)

    def delete(self, path: str, is_dir: bool = False) -> None:
        self._fail(path)
        super().delete(path, is_dir)

    def _fail(self, path: str) -> None:
        if self.kept.startswith(path):
            error = StoreAutorizationError("kept")
            raise PartialFailureError("one kept", failures={self.kept: error})


class HalfMoved(MemoryStore):
    """A store that fails to copy one file, so the source stays."""

    def move(self, path_to_src: str, path_to_dest: str, *, replace: bool = True) -> None:
        super().duplicate(path_to_src, path_to_dest, replace=replace)
        super().delete(path_to_dest + "/bad")
        error = StoreAutorizationError("bad")
        raise PartialFailureError("one failed", failures={path_to_src + "/bad": error})


def test_properties_come_along_with_what_was_copied() -> None:
    client = DavClient(HalfMoved())
    client.mkcol("/d")
    for name in ("/d/bad", "/d/good"):
        client.put(name, b"1")
        client.proppatch(name, "<X:p>1</X:p>")
    assert client("MOVE", "/d", headers={"Destination": "/e"}).statuses() == {"/d/bad": 403}
    paths = ("/d/bad", "/d/good", "/e/bad", "/e/good")
    have = [bool(client.state.properties.of(path)) for path in paths]
    assert have == [True, True, False, True]


def test_what_could_not_be_done_is_named() -> None:
    client = DavClient(Guarded())
    client.mkcol("/d", "/d/sub")
    client.put("/d/sub/g", b"g")
    for reply in (client("DELETE", "/d"), client("MOVE", "/d", headers={"Destination": "/e"})):
        assert (reply.status, reply.statuses()) == (207, {"/d/sub/g": 403})
    assert client("DELETE", "/d/sub/g").status == 403
    assert client.get("/d/sub/g").body == b"g"

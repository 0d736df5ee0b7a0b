"""Another program has changed a file, and the listing table does not know it yet (invariant 6)."""

import io

import pytest

from davfusion.cache.metadata_caching_store import MetadataCachingStore
from davfusion.stores.memory import MemoryStore
from tests.provider.client import DavClient

FOREIGN = b"foreign edit"


class Edited:
    """A file `/f` whose old version a client knows, edited behind the server's back."""

    def __init__(self) -> None:
        self.truth = MemoryStore()
        self.client = DavClient(MetadataCachingStore(self.truth))
        reply = self.client.put("/f", b"old", X_OC_Mtime="1000000000")
        self.old_etag, self.old_date = reply.headers["etag"], reply.headers["last-modified"]
        assert self.client.propfind("/f").status == 207
        self.edit(FOREIGN)

    def edit(self, content: bytes) -> None:
        self.truth.store_fileobject(io.BytesIO(content), "/f", modified=2_000_000_000)

    @property
    def new_etag(self) -> str:
        return f'"{self.truth.get_metadata("/f")["etag"]}"'


@pytest.fixture
def edited() -> Edited:
    return Edited()


@pytest.mark.parametrize("condition", ["If-Match", "If-Unmodified-Since", "If"])
@pytest.mark.parametrize("method", ["PUT", "DELETE", "MOVE", "COPY", "PROPPATCH", "LOCK"])
def test_a_condition_on_the_old_version_protects_the_edit(
    edited: Edited, method: str, condition: str
) -> None:
    values = {
        "If-Match": edited.old_etag,
        "If-Unmodified-Since": edited.old_date,
        "If": f"([{edited.old_etag}])",
    }
    headers = {condition: values[condition]}
    client = edited.client
    if method == "LOCK":
        assert client.lock("/f", **headers).status == 412
    elif method == "PROPPATCH":
        assert client.proppatch("/f", "<X:p/>", **headers).status == 412
    else:
        headers["Destination"] = "/g"
        body = b"mine" if method == "PUT" else b""
        assert client(method, "/f", body, headers).status == 412
    assert edited.truth.get_file("/f") == FOREIGN
    assert list(edited.truth.get_directory_metadata("/")) == ["f"]


@pytest.mark.parametrize("method", ["MOVE", "COPY"])
def test_a_condition_on_the_destination_protects_the_edit(edited: Edited, method: str) -> None:
    client = edited.client
    client.put("/mine", b"mine")
    for etag, status, left in ((edited.old_etag, 412, FOREIGN), (edited.new_etag, 204, b"mine")):
        headers = {"Destination": "/f", "If": f"</f> ([{etag}])"}
        assert client(method, "/mine", b"", headers).status == status
        assert edited.truth.get_file("/f") == left


@pytest.mark.parametrize("method", ["PUT", "DELETE", "MOVE"])
def test_a_condition_on_the_new_version_holds(edited: Edited, method: str) -> None:
    headers = {"If-Match": edited.new_etag, "Destination": "/g"}
    body = b"mine" if method == "PUT" else b""
    assert edited.client(method, "/f", body, headers).status in (201, 204)


def test_any_version_will_do(edited: Edited) -> None:
    assert edited.client.put("/f", b"mine", If_Match="*").status == 204


def test_a_file_made_meanwhile_is_not_overwritten(edited: Edited) -> None:
    assert edited.client.get("/new").status == 404
    edited.truth.store_fileobject(io.BytesIO(FOREIGN), "/new")
    assert edited.client.put("/new", b"mine", If_None_Match="*").status == 412
    assert edited.truth.get_file("/new") == FOREIGN


def test_a_read_is_of_one_version_and_judged_by_it(edited: Edited) -> None:
    client = edited.client
    assert client.get("/f", If_Match=edited.old_etag, Range="bytes=1-").status == 412
    edited.edit(b"the third version")
    reply = client.get("/f")
    assert (reply.body, reply.headers["etag"]) == (b"the third version", edited.new_etag)
    assert reply.headers["content-length"] == "17"


def test_what_has_become_a_folder_is_shown_as_one(edited: Edited) -> None:
    edited.truth.delete("/f")
    edited.truth.create_directory("/f")
    assert edited.client.get("/f").headers["content-type"] == "text/html; charset=utf-8"

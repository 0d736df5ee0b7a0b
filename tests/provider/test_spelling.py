"""One name in two spellings, composed (NFC) and decomposed (NFD), is one file."""

from unicodedata import normalize

import pytest

from davfusion.stores.memory import MemoryStore
from davfusion.stores.observed import ObservedStore
from tests.provider.client import DavClient
from tests.samples import put

NFC, NFD = (normalize(form, "/Bücher/café.txt") for form in ("NFC", "NFD"))


def names(client: DavClient, folder: str) -> list[str]:
    found = client.propfind(folder, "getetag", depth="1").properties()
    return sorted(path for path in found if not path.endswith("/"))


@pytest.mark.parametrize(("stored", "asked"), [(NFC, NFD), (NFD, NFC)])
def test_a_file_is_found_and_replaced_by_both(stored: str, asked: str) -> None:
    client = DavClient()
    put(client.store, stored, b"one")
    assert client.get(asked).body == b"one"
    assert client.put(asked, b"two").status == 204
    assert client.put(asked, b"x", If_None_Match="*").status == 412
    assert client("MKCOL", asked.rpartition("/")[0]).status == 405
    folder = stored.rpartition("/")[0]
    assert names(client, asked.rpartition("/")[0]) == [stored]
    put(client.store, "/other", b"three")
    moved = client("MOVE", "/other", headers={"Destination": asked})
    assert (moved.status, names(client, folder), client.get(stored).body) == (
        204,
        [stored],
        b"three",
    )
    token = client.token(asked)
    assert client.put(stored, b"x").status == 423
    assert client.put(stored, b"four", If=f"({token})").status == 204
    assert client("DELETE", asked, headers={"If": f"({token})"}).status == 204
    assert names(client, folder) == []


def test_a_new_name_is_kept_as_it_was_sent() -> None:
    client = DavClient()
    folder = normalize("NFC", "/Bücher")
    client.mkcol(folder)
    for form in ("NFC", "NFD"):
        path = normalize(form, f"{folder}/é{form}")
        assert client.put(path).status == 201
        stored = f"{folder}/" + path.rpartition("/")[2]
        assert stored in names(client, folder)


def test_where_both_are_there_each_is_itself() -> None:
    client = DavClient()
    put(client.store, NFC, b"composed")
    put(client.store, NFD, b"decomposed")
    assert (client.get(NFC).body, client.get(NFD).body) == (b"composed", b"decomposed")


@pytest.mark.parametrize(("src", "dst"), [("/café", "/cafe\u0301"), ("/cafe\u0301", "/café")])
def test_a_file_can_be_given_its_other_spelling(src: str, dst: str) -> None:
    client = DavClient()
    client.put(src, b"one")
    assert client("MOVE", src, headers={"Destination": dst, "Overwrite": "F"}).status == 201
    assert names(client, "/") == [dst]


def test_other_names_cost_nothing_more() -> None:
    store = ObservedStore(MemoryStore())
    client = DavClient(store)
    for path in ("/plain", "/日本語", "/Жук", "/🎉"):
        store.reset()
        assert client.get(path).status == 404
        assert store.calls == {"get_metadata": 1}, path
    store.reset()
    assert client.get("/é").status == 404
    assert store.calls == {"get_metadata": 3}

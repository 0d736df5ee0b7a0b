"""Junk files stay on this machine: clients see files like others, the store none of them."""

from dataclasses import replace
from pathlib import Path

import pytest

from davfusion.cache.junk_store import JunkStore
from davfusion.config import JUNK
from davfusion.provider.state import State
from davfusion.stores.memory import MemoryStore
from davfusion.stores.observed import ObservedStore
from davfusion.stores.store import Features, Metadata, Store, TransientStoreError
from davfusion.stores.wrapper import StoreWrapper
from tests.cache import writeback
from tests.provider.client import DavClient
from tests.remote import RemoteStore
from tests.samples import put

ALL = [name for names in JUNK.values() for name in names]
NAMES = ["._a.txt", ".DS_Store", "Thumbs.db", "DESKTOP.INI", "~$letter.docx", ".~lock.letter.odt#"]
OTHERS = ["a.txt", "_.txt", "..a", "DS_Store", "Thumbs.db.txt", "$letter.docx", ".lock.x#"]


@pytest.fixture
def service() -> ObservedStore:
    return ObservedStore(MemoryStore())


@pytest.fixture
def client(service: Store, tmp_path: Path) -> DavClient:
    client = DavClient(JunkStore(service, tmp_path, ALL))
    client.mkcol("/d", "/d/e")
    return client


def names(client: DavClient, folder: str, depth: str = "1") -> set[str]:
    return set(client.propfind(folder, "getetag", depth=depth).properties())


def stored(service: Store) -> set[str]:
    return {path for path, metadata in service.walk_metadata("/") if not metadata["is_dir"]}


@pytest.mark.parametrize("name", NAMES)
def test_junk_is_a_file_that_the_store_never_sees(
    client: DavClient, service: ObservedStore, name: str, tmp_path: Path
) -> None:
    path = f"/d/{name}"
    made = client.put(path, b"junk", X_OC_Mtime="1500000000")
    assert (made.status, made.headers["etag"]) == (201, client.etag(path))
    assert client.get(path).body == b"junk"
    assert client.put(path, b"other", If_None_Match="*").status == 412
    assert client.put(path, b"other", If_Match=made.headers["etag"]).status == 204
    assert client.put(path, b"lost", If_Match=made.headers["etag"]).status == 412
    assert client.get(path, Range="bytes=1-2").body == b"th"
    assert {path} < names(client, "/d")
    assert {path} < names(client, "/", "infinity")
    again = DavClient(JunkStore(service, tmp_path, ALL))
    assert again.get(path).body == b"other"
    assert stored(service) == set()
    assert client("DELETE", path).status == 204
    assert again.get(path).status == 404
    assert path not in names(client, "/d")


@pytest.mark.parametrize("name", OTHERS)
def test_other_names_are_the_users(client: DavClient, service: Store, name: str) -> None:
    assert client.put(f"/d/{name}").status == 201
    assert stored(service) == {f"/d/{name}"}


def test_junk_goes_with_its_folder(client: DavClient) -> None:
    client.put("/d/e/._a", b"1")
    client.put("/other", b"")
    assert client("MOVE", "/d", headers={"Destination": "/new"}).status == 201
    assert client.get("/new/e/._a").body == b"1"
    assert client.get("/d/e/._a").status == 404
    assert client("COPY", "/new", headers={"Destination": "/d"}).status == 201
    client.put("/d/e/._b", b"2")
    assert client("MOVE", "/new", headers={"Destination": "/d"}).status == 204
    assert names(client, "/d/e") == {"/d/e/", "/d/e/._a"}
    assert client("DELETE", "/d").status == 204
    client.mkcol("/d", "/d/e")
    assert names(client, "/d/e") == {"/d/e/"}


def test_a_file_becomes_junk_and_junk_a_file_by_its_name(client: DavClient, service: Store) -> None:
    client.put("/d/a", b"content")
    assert client("MOVE", "/d/a", headers={"Destination": "/d/._a"}).status == 201
    assert (client.get("/d/._a").body, stored(service)) == (b"content", set())
    assert client("COPY", "/d/._a", headers={"Destination": "/d/b"}).status == 201
    assert (client.get("/d/b").body, stored(service)) == (b"content", {"/d/b"})
    assert client("MOVE", "/d/._a", headers={"Destination": "/d/.DS_Store"}).status == 201
    assert names(client, "/d") == {"/d/", "/d/e/", "/d/b", "/d/.DS_Store"}


def test_what_the_store_has_of_such_a_name_is_shown_and_can_be_removed(
    client: DavClient, service: Store
) -> None:
    put(service, "/d/._a", b"foreign")
    assert client.get("/d/._a").body == b"foreign"
    assert client.put("/d/._a", b"ours").status == 204
    assert client.get("/d/._a").body == b"ours"
    assert names(client, "/d") == names(client, "/d", "infinity") == {"/d/", "/d/e/", "/d/._a"}
    assert client("DELETE", "/d/._a").status == 204
    assert (client.get("/d/._a").status, stored(service)) == (404, set())


def test_a_folder_of_such_a_name_is_the_users(client: DavClient, service: Store) -> None:
    client.mkcol("/d/._a")
    assert client.put("/d/._a").status == 405
    client.put("/d/._b", b"")
    assert client("MKCOL", "/d/._b").status == 405
    client.put("/d/._a/file", b"1")
    assert client("MOVE", "/d/._a", headers={"Destination": "/d/._b"}).status == 204
    assert (client.get("/d/._b/file").body, stored(service)) == (b"1", {"/d/._b/file"})


def test_junk_of_a_folder_that_another_program_removed_is_gone(
    client: DavClient, service: Store
) -> None:
    client.put("/d/e/._a", b"1")
    service.delete("/d/e", is_dir=True)
    assert client.get("/d/e/._a").status == 404
    client.mkcol("/d/e")
    assert client.get("/d/e/._a").status == 404


def test_a_name_that_the_disk_cannot_hold_goes_to_the_store(
    client: DavClient, service: Store
) -> None:
    path = "/d/._" + "ü" * 127
    assert client.put(path).status == 201
    assert stored(service) == {path}


def test_probes_cost_the_store_what_they_cost_without(
    client: DavClient, service: ObservedStore
) -> None:
    client.put("/d/.DS_Store", b"1")
    service.reset()
    assert client.get("/d/._a").status == 404
    assert service.calls == {"get_metadata": 1}
    client.propfind("/d/e", "getetag", depth="1")
    assert service.calls == {"get_metadata": 2, "get_directory_metadata": 1}


class AwayStore(StoreWrapper):
    """A service that does not answer, below something that takes writes without it."""

    @property
    def features(self) -> Features:
        return replace(super().features, writes_offline=True)

    def get_metadata(self, path: str) -> Metadata:
        raise TransientStoreError(path)


def test_junk_is_written_and_read_while_the_store_is_away(tmp_path: Path) -> None:
    client = DavClient(JunkStore(AwayStore(MemoryStore()), tmp_path, ALL))
    assert client.put("/d/._a", b"junk").status == 201
    assert client.get("/d/._a").body == b"junk"


def test_answers_that_are_given_again_know_of_a_change_elsewhere(tmp_path: Path) -> None:
    truth, folder = RemoteStore(), tmp_path / "test"
    shares = [writeback.share(truth, tmp_path) for _ in range(2)]
    workers = [
        DavClient(JunkStore(share, folder, ["._*"]), State(folder / "state.sqlite"))
        for share in shares
    ]
    assert workers[0].put("/._a", b"1").status == 201
    assert [worker.get("/._a").body for worker in workers] == [b"1", b"1"]
    assert workers[0].put("/._a", b"2").status == 204
    assert workers[1].get("/._a").body == b"2"
    workers[1]("DELETE", "/._a")
    assert workers[0].get("/._a").status == 404
    for worker, share in zip(workers, shares, strict=True):
        worker.state.close()
        share.close()

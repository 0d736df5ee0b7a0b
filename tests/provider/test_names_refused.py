"""With write-back, what a store would refuse later is refused before it is answered."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from davfusion.provider.state import State
from davfusion.stores.local import LocalStore
from davfusion.stores.s3 import S3Store
from davfusion.stores.store import Store
from tests.cache import writeback
from tests.provider.client import DavClient
from tests.servers import S3Server


@pytest.fixture
def on_s3(s3_server: S3Server, bucket: str) -> Iterator[Store]:
    store = S3Store(bucket, "share", endpoint_url=s3_server.endpoint)
    yield store
    store.reconnect()


@pytest.fixture
def on_disk(tmp_path: Path) -> Store:
    (tmp_path / "root").mkdir()
    return LocalStore(tmp_path / "root")


@pytest.fixture
def make_client(tmp_path: Path) -> Iterator[Callable[[Store], DavClient]]:
    with ExitStack() as closing:

        def made(store: Store) -> DavClient:
            share = writeback.share(store, tmp_path / "cache", delay=0)
            closing.callback(share.close)
            return DavClient(share, State(None))

        yield made


def send_all(store: Store, tmp_path: Path) -> None:
    mover = writeback.mover(store, tmp_path / "cache")
    while mover.step():
        pass
    mover.close()


def check_refused(client: DavClient, target: str, sources: list[str]) -> None:
    assert client.put(target, b"x").status == 400
    assert client("MKCOL", target).status == 400
    assert client.lock(target).status == 400
    for method in ("COPY", "MOVE"):
        for source in sources:
            assert client(method, source, headers={"Destination": target}).status == 400
    assert client("HEAD", target).status == 404
    assert client("DELETE", target).status == 404


@pytest.mark.parametrize(
    "name", [pytest.param("x" * 256, id="long"), ".davfusion-probe-1", "a_$folder$"]
)
@pytest.mark.live
def test_on_s3(
    on_s3: Store, make_client: Callable[[Store], DavClient], tmp_path: Path, name: str
) -> None:
    client = make_client(on_s3)
    folders = [f"/{'d' * 200}" * depth for depth in range(1, 5)]
    client.mkcol(*folders, "/tree")
    client.put("/tree/sent", b"sent")
    send_all(on_s3, tmp_path)
    client.put("/tree/unsent", b"unsent")
    check_refused(client, f"{folders[-1]}/{name}", ["/tree/sent", "/tree/unsent", "/tree"])
    send_all(on_s3, tmp_path)
    assert sorted(on_s3.get_directory_metadata("/tree")) == ["sent", "unsent"]


@pytest.mark.parametrize("is_sent", [False, True], ids=["pending", "in the store"])
@pytest.mark.parametrize("method", ["COPY", "MOVE"])
def test_a_folder_whose_members_would_be_refused(
    on_disk: Store,
    make_client: Callable[[Store], DavClient],
    tmp_path: Path,
    method: str,
    is_sent: bool,
) -> None:
    """4096 bytes is what a path on a disk may have; the folder's own would be less."""
    client = make_client(on_disk)
    folders = [f"/{'d' * 250}" * depth for depth in range(1, 16)]
    client.mkcol(*folders, "/tree")
    if is_sent:
        send_all(on_disk, tmp_path)
    client.put(f"/tree/{'x' * 255}", b"x")
    destination = {"Destination": f"{folders[-1]}/{'e' * 150}"}
    assert client(method, "/tree", headers=destination).status == 400
    assert client("HEAD", destination["Destination"]).status == 404
    send_all(on_disk, tmp_path)
    assert on_disk.exists(f"/tree/{'x' * 255}")


def test_on_a_disk(
    on_disk: Store, make_client: Callable[[Store], DavClient], tmp_path: Path
) -> None:
    client = make_client(on_disk)
    client.mkcol("/tree")
    client.put("/tree/sent", b"sent")
    send_all(on_disk, tmp_path)
    client.put("/tree/unsent", b"unsent")
    for name in ("x" * 256, "é" * 128):
        check_refused(client, f"/{name}", ["/tree/sent", "/tree/unsent", "/tree"])

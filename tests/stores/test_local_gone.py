"""LocalStore: a folder or disk that is not there just now is not taken for an empty one."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from davfusion.stores.local import LocalStore
from davfusion.stores.store import Store, StoreAccessError
from tests.conformance import contents, put


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    return root


@pytest.fixture
def store(root: Path) -> LocalStore:
    return LocalStore(root)


def test_a_walk_of_a_disk_that_fails_breaks_off(
    store: LocalStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sync client would take for deleted what is left out."""
    put(store, "/a/file")

    def failing(path: Any) -> Any:
        if Path(path) == root / "a":
            raise OSError(errno.EIO, "Input/output error")
        return scan(path)

    scan = os.scandir
    monkeypatch.setattr(os, "scandir", failing)
    with pytest.raises(StoreAccessError, match="Input/output"):
        list(store.walk_metadata("/"))


CALLS: list[Callable[[Store], object]] = [
    lambda store: store.get_metadata("/"),
    lambda store: store.get_metadata("/d/file"),
    lambda store: store.get_directory_metadata("/"),
    lambda store: list(store.walk_metadata("/")),
    lambda store: store.open_read("/d/file"),
    lambda store: put(store, "/d/file"),
    lambda store: put(store, "/new"),
    lambda store: store.require_storable("/new"),
    lambda store: store.delete("/d/file"),
    lambda store: store.delete("/d", is_dir=True),
    lambda store: store.delete_many(["/d/file"]),
    lambda store: store.create_directory("/new"),
    lambda store: store.duplicate("/d", "/e"),
    lambda store: store.move("/d", "/e"),
]


@pytest.mark.parametrize("call", CALLS)
def test_a_folder_that_has_gone_is_not_taken_for_empty(
    store: LocalStore, root: Path, call: Callable[[Store], object]
) -> None:
    put(store, "/d/file")
    away = root.rename(root.with_name("away"))
    with pytest.raises(StoreAccessError) as raised:
        call(store)
    assert raised.value.status in (207, 502)  # 207: of each path of many
    assert not root.exists()
    away.rename(root)
    assert contents(store, "/d") == {"file": b"content"}


@pytest.mark.parametrize("call", CALLS)
def test_a_disk_that_is_not_mounted_is_not_taken_for_empty(
    root: Path, call: Callable[[Store], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted = {root.parent, Path("/")}
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) in mounted)
    store = LocalStore(root)
    put(store, "/d/file")
    mounted.remove(root.parent)
    before = sorted(root.iterdir())
    with pytest.raises(StoreAccessError) as raised:
        call(store)
    assert raised.value.status in (207, 502)
    assert sorted(root.iterdir()) == before
    mounted.add(root.parent)
    assert contents(store, "/d") == {"file": b"content"}

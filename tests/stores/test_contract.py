"""What the Store class gives a store that can do little."""

import io
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from davfusion.cache.caching_store import CachingStore
from davfusion.cache.multiprocessing_caching_store import MultiprocessingCachingStore
from davfusion.stores import errors
from davfusion.stores.local import LocalStore
from davfusion.stores.memory import MemoryStore
from davfusion.stores.observed import ObservedStore
from davfusion.stores.prompt import PromptStore
from davfusion.stores.retry import RetryPolicy
from davfusion.stores.retrying import RetryingStore
from davfusion.stores.store import (
    InvalidPathValueError,
    Metadata,
    NoSuchFilesytemObjectError,
    Store,
    StoreAccessError,
)
from davfusion.stores.unsettled import Unsettled
from tests.conformance import BAD_PATHS, TREE, contents, names, put, put_tree


class StatOnly(Store):
    """Knows one file and one directory."""

    def get_metadata(self, path: str) -> Metadata:
        found = {
            "/file": Metadata(modified=5.0, bytes=7, is_dir=False),
            "/dir": Metadata(modified=6.0, bytes=0, is_dir=True),
        }.get(path)
        if found is None:
            raise NoSuchFilesytemObjectError(path)
        return found


class Plain(MemoryStore):
    """A service that can neither copy nor move."""

    duplicate = Store.duplicate
    move = Store.move


class CopyAndDelete(MemoryStore):
    """A service that cannot move."""

    move = Store.move


class Older(CopyAndDelete):
    """A service of somebody who does not know `replace`."""

    def duplicate(self, path_to_src: str, path_to_dest: str) -> None:  # type: ignore[override]
        super().duplicate(path_to_src, path_to_dest)


def test_a_store_need_not_know_replace(tmp_path: Path) -> None:
    store = RetryingStore(ObservedStore(Older()))
    prompt = PromptStore(store, Unsettled(tmp_path / "unsettled"), store)
    with closing(MultiprocessingCachingStore(prompt, cache_dir=tmp_path, cache_id="b")) as sending:
        for layer in (CachingStore(prompt, cache_dir=tmp_path, cache_id="t"), sending):
            put(prompt, "/a")
            layer.move("/a", "/b")
            layer.duplicate("/b", "/c")
            layer.flush()
            assert names(prompt, "/") == {"b", "c"}


def test_queries_derived_from_a_stat() -> None:
    store = StatOnly()
    assert store.exists("/file")
    assert store.exists("/dir")
    assert not store.exists("/none")
    assert store.is_dir("/dir")
    assert not store.is_dir("/file")
    assert store.get_bytes("/file") == 7
    assert store.get_modified("/file") == 5.0
    assert store.get_free_space() is store.get_max_filesize() is None
    with pytest.raises(StoreAccessError) as caught:
        store.get_file("/file")
    assert caught.value.status == 501


@pytest.mark.parametrize("kind", [Plain, CopyAndDelete])
def test_move_derived_from_copy_and_delete(kind: type[Store]) -> None:
    store = kind()
    put_tree(store, "/src")
    put(store, "/dst")
    store.move("/src", "/dst")
    assert contents(store, "/") == {"dst": None, **{f"dst/{k}": v for k, v in TREE.items()}}


@pytest.mark.parametrize("path", BAD_PATHS)
def test_bad_paths_cause_no_call_and_no_retry(path: str, tmp_path: Path) -> None:
    def no_sleep(_: float) -> None:
        raise AssertionError("retried")

    root = tmp_path / "root"
    root.mkdir()
    observed = ObservedStore(LocalStore(root))
    root.rmdir()
    store = RetryingStore(observed, RetryPolicy(sleep=no_sleep))
    source = io.BytesIO(b"unread")
    calls: list[Callable[[], object]] = [
        lambda: store.get_metadata(path),
        lambda: store.open_read(path),
        lambda: list(store.walk_metadata(path)),
        lambda: store.delete(path),
        lambda: store.create_directory(path),
        lambda: store.move("/a", path),
        lambda: store.store_fileobject(source, path),
        lambda: observed.store_fileobject(source, path),
    ]
    for call in calls:
        with pytest.raises(InvalidPathValueError):
            call()
    assert source.tell() == 0
    assert not observed.calls


def test_every_error_has_its_parent_and_status() -> None:
    statuses = {
        errors.StoreAccessError: 500,
        errors.NoSuchFilesytemObjectError: 404,
        errors.AlreadyExistsError: 405,
        errors.StoreAutorizationError: 403,
        errors.StoreSpaceLimitError: 507,
        errors.ConflictError: 412,
        errors.TransientStoreError: 503,
        errors.PartialFailureError: 207,
    }
    for kind, status in statuses.items():
        assert issubclass(kind, errors.StoreAccessError)
        assert (kind("text").status, kind("text", 418).status) == (status, 418)
    assert not issubclass(errors.InterruptedException, errors.StoreAccessError)
    assert issubclass(errors.InvalidPathValueError, ValueError)

"""A service that misbehaves, and a clock, for what a share knows without asking it."""

import io
from collections.abc import Callable, Iterator

from davfusion.stores.memory import MemoryStore
from davfusion.stores.store import Metadata, Store, TransientStoreError
from davfusion.stores.wrapper import P, R, StoreWrapper

AGE = 60.0


class Service(StoreWrapper):
    """A MemoryStore that counts metadata calls, and whose listings can lag, fail or be slow."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self.calls = 0
        self.stale: dict[str, dict[str, Metadata]] = {}
        self.meanwhile: Callable[[], None] = lambda: None
        self.broken = False
        self.failure: Exception | None = None
        self.walked: Iterator[tuple[str, Metadata]] | None = None

    def _call(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        if self.failure is not None:
            raise self.failure
        return super()._call(method, *args, **kwargs)

    def get_metadata(self, path: str) -> Metadata:
        self.calls += 1
        metadata = super().get_metadata(path)
        self.meanwhile()
        return metadata

    def get_directory_metadata(self, directory: str) -> dict[str, Metadata]:
        self.calls += 1
        listing = self.stale.get(directory) or super().get_directory_metadata(directory)
        self.meanwhile()
        return listing

    def walk_metadata(self, directory: str) -> Iterator[tuple[str, Metadata]]:
        return self.walked or Store.walk_metadata(self, directory)

    def delete(self, path: str, is_dir: bool = False) -> None:
        super().delete(path, is_dir)
        if self.broken:
            raise TransientStoreError("the answer was lost")


def put(
    store: MemoryStore | StoreWrapper, path: str, content: bytes = b"x", mtime: float | None = None
) -> Metadata:
    return store.store_fileobject(io.BytesIO(content), path, modified=mtime)


def names(store: MemoryStore | StoreWrapper, directory: str) -> set[str]:
    return set(store.get_directory_metadata(directory))

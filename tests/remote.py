"""A store that is worth caching, unlike the memory it really is."""

from dataclasses import replace

from davfusion.stores.memory import MemoryStore
from davfusion.stores.store import UNDATED_DIRECTORY, Features, Metadata


class RemoteStore(MemoryStore):
    """Says of itself that every question costs a round trip."""

    @property
    def features(self) -> Features:
        return replace(super().features, cheap_metadata=False)


class AtomicStore(RemoteStore):
    """Moves a folder with all below it at once."""

    @property
    def features(self) -> Features:
        return replace(super().features, atomic_move=True)


class UndatedStore(RemoteStore):
    """Knows of a directory that it is one, as object stores do."""

    @property
    def features(self) -> Features:
        return replace(super().features, undated_directories=True)

    def get_metadata(self, path: str) -> Metadata:
        return _undated(super().get_metadata(path))

    def get_directory_metadata(self, directory: str) -> dict[str, Metadata]:
        members = super().get_directory_metadata(directory)
        return {name: _undated(metadata) for name, metadata in members.items()}


def _undated(metadata: Metadata) -> Metadata:
    return UNDATED_DIRECTORY if metadata["is_dir"] else metadata

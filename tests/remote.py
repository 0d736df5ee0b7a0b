"""A store that is worth caching, unlike the memory it really is."""

from dataclasses import replace

from davfusion.stores.memory import MemoryStore
from davfusion.stores.store import Features


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

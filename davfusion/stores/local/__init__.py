"""LocalStore: a folder of this machine."""

from davfusion.stores.local.store import LocalStore

__all__ = ["LocalStore"]

"""FsspecStore: whatever fsspec reaches."""

from davfusion.stores.fsspec.store import FsspecStore

__all__ = ["FsspecStore"]

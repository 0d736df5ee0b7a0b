"""DropboxStore: one Dropbox, or what lies below a folder of it."""

from davfusion.stores.dropbox.store import DropboxStore

__all__ = ["DropboxStore"]

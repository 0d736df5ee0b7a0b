"""Files and folders as wsgidav's resource objects, for a wsgidav middleware that reads them."""

from typing import Any

from wsgidav.dav_provider import DAVCollection, DAVNonCollection

from davfusion.provider.live_properties import content_type
from davfusion.provider.tree import DavTree
from davfusion.stores import paths
from davfusion.stores.store import Metadata, ReadableStream


class FileResource(DAVNonCollection):  # type: ignore[misc]
    """One file."""

    def __init__(self, path: str, environ: dict[str, Any], tree: DavTree, metadata: Metadata):
        super().__init__(path, environ)
        self._tree = tree
        self._metadata = metadata

    def get_content_length(self) -> int:
        return self._metadata["bytes"]

    def get_content_type(self) -> str:
        return content_type(self.path, self._metadata)

    def get_content(self) -> ReadableStream:
        return self._tree.store.open_read(self.path, etag=self.get_etag())

    def get_etag(self) -> str | None:
        return self._metadata.get("etag")

    def support_etag(self) -> bool:
        return "etag" in self._metadata

    def support_ranges(self) -> bool:
        return True

    def get_last_modified(self) -> float:
        return self._metadata["modified"]


class FolderResource(DAVCollection):  # type: ignore[misc]
    """One folder."""

    def __init__(self, path: str, environ: dict[str, Any], tree: DavTree, metadata: Metadata):
        super().__init__(path, environ)
        self._tree = tree
        self._metadata = metadata

    def get_member_names(self) -> list[str]:
        return list(self._tree.store.get_directory_metadata(self.path))

    def get_member(self, name: str) -> "FileResource | FolderResource | None":
        return resource(self._tree, paths.join(self.path, name), self.environ)

    def get_etag(self) -> str | None:
        return self._tree.folder_etag()

    def support_etag(self) -> bool:
        return self.get_etag() is not None

    def get_last_modified(self) -> float:
        return self._metadata["modified"]

    def get_used_bytes(self) -> int | None:
        return self._tree.quota()[1]

    def get_available_bytes(self) -> int | None:
        return self._tree.quota()[0]


def resource(
    tree: DavTree, path: str, environ: dict[str, Any]
) -> FileResource | FolderResource | None:
    """The resource at a store path, None for nothing."""
    metadata = tree.find(path)
    if metadata is None:
        return None
    kind = FolderResource if metadata["is_dir"] else FileResource
    return kind(path, environ, tree, metadata)

"""What Dropbox says of files and folders, and listings of a folder or of all below it."""

from collections.abc import Callable, Iterator
from datetime import UTC
from typing import Any, Final

from dropbox import files
from dropbox.exceptions import ApiError

from davfusion.stores.dropbox.errors import dropbox_errors, tags_of
from davfusion.stores.dropbox.names import ASIDE
from davfusion.stores.store import UNDATED_DIRECTORY, Metadata

PAGE: Final = 2000
"""Entries of one answer, the most Dropbox gives."""

Pages = Iterator[list[Any]]
Listing = dict[str, Metadata]


def pages(client: Any, folder: str, recursive: bool = False) -> Pages:
    """The entries of a folder, a request for each page; raises the SDK's errors."""
    page = client.files_list_folder(folder, recursive=recursive, limit=PAGE)
    yield page.entries
    while page.has_more:
        page = client.files_list_folder_continue(page.cursor)
        yield page.entries


def look(client: Any, remote: str) -> Any:
    """The entry of a file or folder, None for nothing; errors are those of the Store contract."""
    with dropbox_errors(f"dropbox:{remote}"):
        try:
            return client.files_get_metadata(remote)
        except ApiError as error:
            if set(tags_of(error)) & {"not_found", "malformed_path"}:
                return None
            raise


def metadata_of(entry: Any) -> Metadata:
    """What an entry says of a file or folder; Dropbox dates no folders."""
    if isinstance(entry, files.FolderMetadata):
        return UNDATED_DIRECTORY
    return Metadata(
        modified=entry.client_modified.replace(tzinfo=UTC).timestamp(),
        stored=entry.server_modified.replace(tzinfo=UTC).timestamp(),
        bytes=entry.size,
        is_dir=False,
        etag=entry.rev,
    )


def children(found: Pages) -> Listing:
    """Name -> metadata of a folder's members, in the user's case."""
    return _named(_members(found))


def tree(found: Pages, top: str) -> Callable[[str], Listing]:
    """What lists `top` and each folder that was listed so, of a listing of all that is below it.

    Folders are told by Dropbox's names of them. Entries come in any order, so all are read before
    the first can be told.
    """
    by_parent: dict[str, dict[str, Any]] = {}
    members = _members(found)
    for key, entry in members.items():
        by_parent.setdefault(key.rpartition("/")[0], {})[key] = entry
    # What Dropbox makes of a name as path_lower is for Dropbox alone to say.
    keys = {top: "/".join(next(iter(members), "").split("/")[: top.count("/") + 1])}

    def listing(remote: str) -> Listing:
        inside = by_parent.get(keys[remote], {})
        keys.update((f"{remote}/{entry.name}", key) for key, entry in inside.items())
        return _named(inside)

    return listing


def _members(found: Pages) -> dict[str, Any]:
    """By path_lower; a later entry is about a change since the listing began."""
    members: dict[str, Any] = {}
    for page in found:
        for entry in page:
            members.pop(entry.path_lower, None)
            if not isinstance(entry, files.DeletedMetadata):
                members[entry.path_lower] = entry
    return members


def _named(members: dict[str, Any]) -> Listing:
    return {entry.name: metadata_of(entry) for entry in members.values() if entry.name != ASIDE}

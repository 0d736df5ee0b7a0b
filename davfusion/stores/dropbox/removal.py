"""Removing files and folders, many by one request."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from dropbox import files
from dropbox.exceptions import ApiError

from davfusion.stores import paths
from davfusion.stores.dropbox.client import Connection
from davfusion.stores.dropbox.errors import dropbox_errors, error_for, tags, tags_of
from davfusion.stores.dropbox.jobs import entries_of
from davfusion.stores.dropbox.listing import look, pages
from davfusion.stores.dropbox.names import Places
from davfusion.stores.retry import AnyEffort, once
from davfusion.stores.spelling import fold
from davfusion.stores.store import (
    PartialFailureError,
    StoreAccessError,
    TransientStoreError,
)

BATCH: Final = 1000
"""Files of one request, the most Dropbox takes."""
ONE_BY_ONE: Final = 16
"""Up to so many files of a folder are looked at singly; for more, the folder is listed."""

Failures = dict[str, StoreAccessError]
Revs = dict[str, str]
"""By the path that the caller gave."""


class Removal:
    """One operation; `effort` repeats each of its requests."""

    def __init__(self, connection: Connection, places: Places, effort: AnyEffort = once) -> None:
        self._client = connection.client
        self._pool = connection.pool
        self._places = places
        self._effort = effort

    def delete_files(self, given: Iterable[str]) -> None:
        """Remove files, of the versions that are there now, and no folder."""
        revs, failures = self._revs(given)
        todo = [(path, files.DeleteArg(self._remote(path), rev)) for path, rev in revs.items()]
        for start in range(0, len(todo), BATCH):
            failures |= self._delete(dict(todo[start : start + BATCH]))
        if failures:
            raise PartialFailureError(f"{len(failures)} files not deleted", failures=failures)

    def delete_file(self, path: str) -> None:
        """Remove a file, of the version that is there now, and no folder."""
        entry = look(self._client, self._remote(path))
        if isinstance(entry, files.FileMetadata):
            self.delete_version(path, entry.rev)

    def delete_version(self, path: str, rev: str) -> None:
        """Remove a file, unless it has become another version: TransientStoreError."""
        remote = self._remote(path)
        with dropbox_errors(f"dropbox:{remote}"):
            try:
                self._client.files_delete_v2(remote, parent_rev=rev)
            except ApiError as error:
                if "not_found" in tags_of(error):
                    return
                if "conflict" in tags_of(error):
                    raise TransientStoreError(f"dropbox:{remote} is being changed") from error
                raise

    def delete_directory(self, directory: str) -> None:
        """Remove a folder with all below it."""
        remote = self._remote(directory)
        if isinstance(look(self._client, remote), files.FolderMetadata):
            self.delete_tree(remote)

    def delete_tree(self, remote: str) -> None:
        """Remove a folder, by Dropbox's name of it, with all below it; missing is no error.

        One request, or for more entries than Dropbox removes at once, one for each part.
        """
        with dropbox_errors(f"dropbox:{remote}"):
            try:
                self._client.files_delete_v2(remote)
            except ApiError as error:
                if "too_many_files" not in tags_of(error):
                    if "not_found" not in tags_of(error):
                        raise
                    return
            else:
                return
        self._empty(remote)
        self.delete_tree(remote)

    def _empty(self, remote: str) -> None:
        members = [entry for page in pages(self._client, remote) for entry in page]
        for folder in [m for m in members if isinstance(m, files.FolderMetadata)]:
            self.delete_tree(folder.path_lower)
        rest = [(m.path_lower, files.DeleteArg(m.path_lower)) for m in members]
        failures: Failures = {}
        for start in range(0, len(rest), BATCH):
            failures |= self._delete(dict(rest[start : start + BATCH]))
        if failures:
            raise PartialFailureError(f"{len(failures)} files not deleted", failures=failures)

    def _delete(self, batch: dict[str, Any]) -> Failures:
        """What of `batch`, arguments by path, could not be deleted."""
        failures: Failures = {}

        def delete() -> None:
            nonlocal failures
            failures = self._delete_once({path: batch[path] for path in failures or batch})
            passing = [e for e in failures.values() if isinstance(e, TransientStoreError)]
            if passing:
                raise passing[0]

        try:
            self._effort(delete)
        except StoreAccessError as error:
            return failures or dict.fromkeys(batch, error)
        return failures

    def _delete_once(self, batch: dict[str, Any]) -> Failures:
        with dropbox_errors(f"deletion of {len(batch)} files"):
            launched = self._client.files_delete_batch(list(batch.values()))
            results = entries_of(launched, self._client.files_delete_batch_check)
        refused = {
            path: tags(result.get_failure())
            for path, result in zip(batch, results, strict=True)
            if result.is_failure()
        }
        return {
            path: error_for(found, path)
            for path, found in refused.items()
            if "not_found" not in found
        }

    def _revs(self, given: Iterable[str]) -> tuple[Revs, Failures]:
        """The versions of those files that are there."""
        by_parent: dict[str, list[str]] = {}
        for path in dict.fromkeys(given):
            by_parent.setdefault(paths.parent(path), []).append(path)
        revs: Revs = {}
        failures: Failures = {}
        for directory, members in by_parent.items():
            try:
                revs.update(self._revs_in(directory, members))
            except StoreAccessError as error:
                failures |= dict.fromkeys(members, error)
        return revs, failures

    def _revs_in(self, directory: str, members: list[str]) -> Iterator[tuple[str, str]]:
        if len(members) <= ONE_BY_ONE:
            found: Any = self._pool.map(self._looked_at, members)
        else:
            listed = self._effort(self._listed, self._remote(directory))
            found = [listed.get(fold(paths.name(path))) for path in members]
        for path, entry in zip(members, found, strict=True):
            if isinstance(entry, files.FileMetadata):
                yield path, entry.rev

    def _looked_at(self, path: str) -> Any:
        return self._effort(look, self._client, self._remote(path))

    def _listed(self, remote: str) -> dict[str, Any]:
        """Entries of a folder by folded name; none where it is not there."""
        with dropbox_errors(f"dropbox:{remote}"):
            try:
                return {fold(e.name): e for page in pages(self._client, remote) for e in page}
            except ApiError as error:
                if "not_found" in tags_of(error) or "not_folder" in tags_of(error):
                    return {}
                raise

    def _remote(self, path: str) -> str:
        return self._places.remote(path)

"""Removing what was deleted or replaced from the store, but not what others have put there."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from davfusion.cache.block_caching_store import BlockCachingStore
from davfusion.cache.outbox import Outbox
from davfusion.cache.pending import DIRECTORY, EITHER, FILE, Row
from davfusion.cache.versions import found, our_version
from davfusion.stores import paths
from davfusion.stores.store import (
    ConflictError,
    Metadata,
    NoSuchFilesytemObjectError,
    PartialFailureError,
    Store,
    StoreAccessError,
)

logger = logging.getLogger(__name__)

_ONE_BY_ONE: Final = 16
"""Up to so many files of a directory are looked at singly; for more, the directory is listed."""

Failures = list[tuple[Row, StoreAccessError]]


class Removal:
    """Removes by `store`; `service` is the same store without caches."""

    def __init__(self, store: BlockCachingStore, service: Store, outbox: Outbox) -> None:
        self._store = store
        self._service = service
        self._outbox = outbox

    def delete_files(self, rows: Sequence[Row]) -> tuple[list[Row], Failures]:
        """The rows whose file is gone now, and those that failed; others' files stay."""
        ours, failures = self._unchanged(rows)
        failed: Mapping[str, StoreAccessError] = {}
        try:
            self._store.delete_many([row.path for row in ours])
        except PartialFailureError as error:
            failed = error.failures
        failures += [(row, failed[row.path]) for row in ours if row.path in failed]
        return [row for row in ours if row.path not in failed], failures

    def clear(self, row: Row) -> None:
        """Remove what the store must lose before; ConflictError for a file of another program."""
        if row.clears == FILE and not self._may_go(row, found(self._service, row.path)):
            raise ConflictError(f"{row.path} was changed by another program")
        if row.clears in (FILE, EITHER):
            self._store.delete(row.path)
        if row.clears in (DIRECTORY, EITHER):
            self._delete_tree(row)

    def _delete_tree(self, row: Row) -> None:
        """Remove a directory; with what others have stored in it since, all else."""
        tree = dict(self._files_below(row.path))
        tried = self._outbox.tried_below(row.path)
        foreign = {
            path
            for path, metadata in tree.items()
            if path not in tried and self._is_newer(row, path, metadata)
        }
        if not foreign:
            self._store.delete(row.path, is_dir=True)
            return
        self._store.delete_many(path for path in tree if path not in foreign)
        self._outbox.note_foreign(foreign)
        for path in foreign:
            self._stays(path)

    def _files_below(self, directory: str) -> Iterable[tuple[str, Metadata]]:
        try:
            for path, metadata in self._service.walk_metadata(directory):
                if not metadata["is_dir"]:
                    yield path, metadata
        except NoSuchFilesytemObjectError:
            return

    def _is_newer(self, row: Row, path: str, metadata: Metadata) -> bool:
        """Whether a file is another than was known there, and stored after the deletion.

        By the service's dates, in whole seconds. Where nothing is known, it belonged to what was
        deleted.
        """
        if metadata.get("stored", metadata["modified"]) < int(row.first_change):
            return False
        try:
            known = self._store.last_known(path)
        except NoSuchFilesytemObjectError:
            return True
        return known is not None and known.get("etag") != metadata.get("etag")

    def _unchanged(self, rows: Sequence[Row]) -> tuple[list[Row], Failures]:
        """The rows whose file is still the one to be deleted, or gone; the others are let go."""
        by_parent: dict[str, list[Row]] = {}
        for row in rows:
            by_parent.setdefault(paths.parent(row.path), []).append(row)
        ours: list[Row] = []
        failures: Failures = []
        for directory, members in by_parent.items():
            find = self._finder(directory, len(members))
            for row in members:
                try:
                    if self._may_go(row, find(row.path)):
                        ours.append(row)
                    else:
                        self._outbox.kept_foreign(row)
                        self._stays(row.path)
                except StoreAccessError as error:
                    failures.append((row, error))
        return ours, failures

    def _stays(self, path: str) -> None:
        logger.warning("%s was changed by another program, and stays", path)
        self._store.forget(path)

    def _may_go(self, row: Row, present: Metadata | None) -> bool:
        """Whether a file that the store has is one that the row may remove."""
        if present is None or present["is_dir"] or row.base in (None, present.get("etag")):
            return True
        return our_version(self._service, row, present) is not None

    def _finder(self, directory: str, number: int) -> Callable[[str], Metadata | None]:
        """As found(), for so many members of a directory."""
        if number <= _ONE_BY_ONE:
            return lambda path: found(self._service, path)
        try:
            listing = self._service.get_directory_metadata(directory)
        except NoSuchFilesytemObjectError:
            listing = {}
        return lambda path: listing.get(paths.name(path))

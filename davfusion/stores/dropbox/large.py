"""Copying and moving folders of more entries than Dropbox takes at once (10,000): in parts.

A move is a copy too, whose source is removed afterwards: if the parts themselves were moved, one
that fails would leave a folder in two halves, and the move made again would replace one by the
other.
"""

import logging
from collections.abc import Callable, Iterator
from itertools import chain, count
from typing import Any, Final

from dropbox import files
from dropbox.exceptions import ApiError

from davfusion.stores.dropbox.client import Connection
from davfusion.stores.dropbox.errors import dropbox_errors, error_for, tags, tags_of
from davfusion.stores.dropbox.jobs import entries_of
from davfusion.stores.dropbox.listing import pages
from davfusion.stores.retry import AnyEffort
from davfusion.stores.store import (
    AlreadyExistsError,
    ConflictError,
    StoreAccessError,
    TransientStoreError,
)

BATCH: Final = 1000
"""Files and folders of one request, the most Dropbox takes."""
TOO_MANY: Final = "too_many_files"

Tags = tuple[str, ...]

_log = logging.getLogger(__name__)


class LargeFolder:
    """One operation, to where nothing is; paths are those of Dropbox.

    `effort` repeats each of its requests. On a failure all of the source is there, and no copy.
    """

    def __init__(
        self, connection: Connection, delete_folder: Callable[[str], None], effort: AnyEffort
    ) -> None:
        self._client = connection.client
        self._delete_folder = delete_folder
        self._effort = effort

    def copy(self, source: str, target: str) -> None:
        """A request for each 2,000 members of a folder, and a job for each 1,000."""
        self._make(target)
        try:
            self._copy_members(source, target)
        except BaseException:
            self._discard(target)
            raise

    def move(self, source: str, target: str) -> None:
        """As copy, with a listing of all before and after."""
        before = self._versions(source)
        self.copy(source, target)
        if self._versions(source) != before:
            self._discard(target)
            raise ConflictError(f"dropbox:{source} was changed while it was moved")
        self._discard(source)

    def _make(self, target: str) -> None:
        with dropbox_errors(f"dropbox:{target}"):
            try:
                self._client.files_create_folder_v2(target)
            except ApiError as error:
                if "conflict" not in tags_of(error):
                    raise
                raise AlreadyExistsError(
                    f"dropbox:{target} would be replaced by a folder of more entries than Dropbox "
                    "moves at once: remove it first",
                    502,
                ) from error

    def _copy_members(self, source: str, target: str) -> None:
        names = [entry.name for entry in self._effort(self._listed, source)]
        for start in range(0, len(names), BATCH):
            for name in self._copy_batch(source, target, names[start : start + BATCH]):
                self._make(f"{target}/{name}")
                self._copy_members(f"{source}/{name}", f"{target}/{name}")

    def _copy_batch(self, source: str, target: str, names: list[str]) -> list[str]:
        """Copy members of a folder; gives the names of those that are too large themselves."""
        large: list[str] = []
        left, tries = names, count()

        def attempt() -> None:
            nonlocal left
            is_again = next(tries) > 0
            failed = dict(self._failures(source, target, left))
            if is_again:  # what is there by now, a try whose answer was lost has copied
                failed = {name: found for name, found in failed.items() if "conflict" not in found}
            large.extend(name for name, found in failed.items() if TOO_MANY in found)
            left = [name for name, found in failed.items() if TOO_MANY not in found]
            errors = [error_for(failed[name], f"dropbox:{source}/{name}") for name in left]
            for error in sorted(errors, key=lambda e: isinstance(e, TransientStoreError)):
                raise error

        self._effort(attempt)
        return large

    def _failures(self, source: str, target: str, names: list[str]) -> Iterator[tuple[str, Tags]]:
        entries = [files.RelocationPath(f"{source}/{n}", f"{target}/{n}") for n in names]
        with dropbox_errors(f"dropbox:{source}"):
            launched = self._client.files_copy_batch_v2(entries)
            results = entries_of(launched, self._client.files_copy_batch_check_v2)
        for name, result in zip(names, results, strict=True):
            if result.is_failure():
                yield name, tags(result.get_failure())

    def _versions(self, folder: str) -> dict[str, str | None]:
        """All that is below a folder; a later entry is about a change since the listing began."""
        found = self._effort(self._listed, folder, recursive=True)
        return {entry.path_lower: getattr(entry, "rev", None) for entry in found}

    def _listed(self, folder: str, *, recursive: bool = False) -> list[Any]:
        with dropbox_errors(f"dropbox:{folder}"):
            return list(chain.from_iterable(pages(self._client, folder, recursive)))

    def _discard(self, folder: str) -> None:
        """Remove a folder; what cannot be removed stays, as the other one is whole."""
        try:
            self._effort(self._delete_folder, folder)
        except StoreAccessError as error:
            _log.warning("dropbox:%s is left over: %s", folder, error)

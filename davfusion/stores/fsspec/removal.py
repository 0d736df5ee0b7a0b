"""Removing many files over several connections."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

from davfusion.stores import paths
from davfusion.stores.background import BackgroundPool
from davfusion.stores.errors import (
    NoSuchFilesytemObjectError,
    PartialFailureError,
    StoreAccessError,
)
from davfusion.stores.fsspec.errors import backend_errors
from davfusion.stores.fsspec.share import FsspecShare

THREADS: Final = 4
"""Connections; an FTP server often takes no more than eight of one client."""


class Removal:
    """Removes what `share` has; fsspec's own ways for many files take names for patterns."""

    def __init__(self, share: FsspecShare) -> None:
        self._share = share
        self._pool = BackgroundPool(THREADS, "fsspec")

    def each(self, remove: Callable[[str], None], files: Iterable[str]) -> None:
        """Call `remove` for each path; PartialFailureError after all, for those that failed."""
        failures: dict[str, StoreAccessError] = {}

        def attempt(path: str) -> None:
            try:
                remove(path)
            except StoreAccessError as error:
                failures[path] = error

        for _ in self._pool.map(attempt, files):
            pass
        if failures:
            raise PartialFailureError(f"{len(failures)} paths not deleted", failures=failures)

    def tree(self, directory: str) -> None:
        """Remove a directory, hidden or not, and all below it; folders only if no file is left."""
        files, folders = self._all_below(directory)
        self.each(self.file, files)
        with self._share.lent(directory) as backend:
            if not backend.keeps_folders and self._share.stat_or_none(backend, directory) is None:
                return
            for folder in reversed(folders):
                with suppress(NoSuchFilesytemObjectError), backend_errors(folder):
                    backend.remove_directory(self._share.at(folder))

    def file(self, path: str) -> None:
        """Remove a file; missing is no error."""
        with suppress(NoSuchFilesytemObjectError), self._share.lent(path) as backend:
            backend.remove(self._share.at(path))

    def _all_below(self, directory: str) -> tuple[list[str], list[str]]:
        """Files and folders, the folders from the top down."""
        files: list[str] = []
        folders = [directory]
        with self._share.lent(directory) as backend:
            for folder in folders:
                for name, is_dir in backend.entries(self._share.at(folder)).items():
                    (folders if is_dir else files).append(paths.join(folder, name))
        return files, folders

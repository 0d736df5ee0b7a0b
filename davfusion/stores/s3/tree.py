"""Copying and moving below a prefix, many keys at a time."""

from collections.abc import Iterable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from davfusion.stores.parallel import run_all
from davfusion.stores.s3.bucket import Bucket, Failures
from davfusion.stores.s3.copy import Copier
from davfusion.stores.s3.listing import Entry, Keys, folders_below
from davfusion.stores.s3.look import Found
from davfusion.stores.store import ConflictError, PartialFailureError, StoreAccessError

COPIES_AT_ONCE: Final = 32
"""More than of other requests: all that one carries is its answer, long after it was asked."""
_SHOWN: Final = 3


@dataclass
class TreeCopy:
    """One copy of all keys below `src` to `dst`: what was copied and what failed."""

    bucket: Bucket
    copier: Copier
    src: str
    dst: str
    copied: dict[str, str] = field(default_factory=dict)
    """Key -> ETag."""
    failures: Failures = field(default_factory=dict)

    def run(self, replaced: Found) -> None:
        """Copy, going on past failures; without any, what else was at the destination goes.

        Markers come after a file of the destination's name is gone: SeaweedFS refuses them beside
        it.
        """
        left_over: set[str] = set()
        if replaced.is_folder:
            left_over.update(entry.key for entry in self.bucket.entries(self.dst))
        markers: list[Entry] = []
        with self.noting():
            self._copy_all(self._contents(left_over, markers))
        if replaced.head is not None:
            self._replace(self.dst.removesuffix("/"), markers)
        with self.noting():
            self._copy_all(markers)
            if not self.copied and not self.failures:
                self.bucket.mark(self.dst)
        if not self.failures:
            standing = {self.dst} | folders_below(self.dst, map(self._target, self.copied))
            kept = self.bucket.kept_folders(self.dst, left_over) - standing
            self.failures |= self.bucket.delete_upwards(left_over - {self.dst} | kept)
            with self.noting():
                self._sweep(left_over, standing)

    def delete_copied(self) -> None:
        """Remove from the source exactly what was copied, unless some of it has changed since."""
        with self.noting():
            for key, _, _, etag in self.bucket.entries(self.src):
                if self.copied.get(key, etag) != etag:
                    self.failures[key] = ConflictError(f"{key} was changed while it was moved")
        if self.failures:
            return
        kept = self.bucket.kept_folders(self.src, self.copied)
        self.failures |= self.bucket.delete_upwards(kept | set(self.copied))
        if not self.failures:
            with self.noting():
                self.bucket.sweep(self.src)

    @contextmanager
    def noting(self) -> Iterator[None]:
        """An error inside concerns the whole source, and what has been done so far stays."""
        try:
            yield
        except StoreAccessError as error:
            self.failures[self.src] = error

    def _replace(self, file: str, markers: list[Entry]) -> None:
        """Remove `file` if all copies stand; else it stays, and so do the `markers`."""
        if not self.failures:
            self.failures |= self.bucket.delete_all([file])
        if self.failures:
            reason = next(iter(self.failures.values()))
            self.failures |= {marker.key: reason for marker in markers}
            markers.clear()

    def _sweep(self, gone: Iterable[str], standing: Set[str]) -> None:
        """Remove the folders of keys that are gone, where the server keeps them empty."""
        swept = self.dst
        for folder in sorted(folders_below(self.dst, gone) - standing):
            if swept == self.dst or not folder.startswith(swept):
                self.bucket.sweep(folder)
                swept = folder

    def _copy_all(self, entries: Iterable[Entry]) -> None:
        for entry, done in run_all(self._copy, entries, COPIES_AT_ONCE):
            error = done.exception()
            if error is None:
                self.copied[entry.key] = entry.etag
            elif isinstance(error, StoreAccessError):
                self.failures[entry.key] = error
            else:
                raise error

    def _contents(self, left_over: set[str], markers: list[Entry]) -> Iterator[Entry]:
        """The source's files; its markers go to `markers`, and what gets replaced stays."""
        for entry in self.bucket.entries(self.src):
            left_over.discard(self._target(entry.key))
            if _is_marker(entry):
                markers.append(entry)
            else:
                yield entry

    def _copy(self, entry: Entry) -> None:
        if _is_marker(entry):
            # Made anew: SeaweedFS finds no marker when it is to be copied.
            self.bucket.mark(self._target(entry.key))
        else:
            self.copier.copy(entry.key, self._target(entry.key), entry.size)

    def _target(self, key: str) -> str:
        return self.dst + key[len(self.src) :]


def _is_marker(entry: Entry) -> bool:
    return entry.size == 0 and entry.key.endswith("/")


def raise_failures(failures: Failures, keys: Keys, what: str) -> None:
    """PartialFailureError by path, if there is any failure."""
    if failures:
        shown = "; ".join(str(error) for error in list(failures.values())[:_SHOWN])
        raise PartialFailureError(
            f"{len(failures)} keys could not be {what}: {shown}",
            failures={keys.path(key): error for key, error in failures.items()},
        )

"""Removing, copying and moving paths: operations of several requests.

Nothing above tries them again as a whole once something may have changed: a second try of a move
would take what has been moved already for left-overs of the destination. So each request has its
own tries here, and what fails after them is named in a PartialFailureError.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from davfusion.stores import paths
from davfusion.stores.s3.bucket import Bucket, Failures
from davfusion.stores.s3.copy import Copier
from davfusion.stores.s3.listing import FOLDER_SUFFIX, Keys
from davfusion.stores.s3.look import Found, look, require_folder_suffix
from davfusion.stores.s3.tree import TreeCopy, raise_failures
from davfusion.stores.store import StoreAccessError
from davfusion.stores.transfer import require_apart


class Change:
    """One operation; the effort of `bucket` is that of the whole operation."""

    def __init__(self, bucket: Bucket, copier: Copier, keys: Keys) -> None:
        self._bucket = bucket
        self._copier = copier.within(bucket)
        self._keys = keys

    def delete_files(self, files: Iterable[str]) -> None:
        """Remove files; their directories stay."""
        files = list(files)
        with self._folders_kept(files):
            failures = self._bucket.delete_all(map(self._keys.file, files))
        raise_failures(failures, self._keys, "deleted")

    def delete_directory(self, directory: str) -> None:
        """Remove a directory and all below it."""
        with self._folders_kept([directory]):
            failures = self._bucket.delete_tree(self._keys.folder(directory))
            failures |= self._delete_suffixed(directory)
        raise_failures(failures, self._keys, "deleted")

    def duplicate(self, src: str, dst: str) -> None:
        """Copy a file or a directory."""
        raise_failures(self._copy(src, dst), self._keys, "copied")

    def move(self, src: str, dst: str) -> None:
        """Move a file or a directory; the directory that held it stays."""
        failures = self._copy(src, dst, is_move=True)
        parent = paths.parent(src)
        if not paths.is_below(dst, parent):
            self._keep_folder(self._keys.folder(parent))
        raise_failures(failures, self._keys, "moved")

    def _copy(self, src: str, dst: str, is_move: bool = False) -> Failures:
        require_apart(src, dst)
        source, target = look(self._bucket, self._keys, src, dst)
        if source.is_folder or source.head is None:
            if not source.is_folder:
                require_folder_suffix(self._bucket, self._keys, src)
            return self._copy_tree(src, dst, target, is_move)
        key = self._keys.file(src)
        self._copier.copy(key, self._keys.file(dst), source.head["ContentLength"])
        failures = self._bucket.delete_tree(self._keys.folder(dst)) if target.is_folder else {}
        return self._bucket.delete_all([key]) if is_move and not failures else failures

    def _copy_tree(self, src: str, dst: str, replaced: Found, is_move: bool) -> Failures:
        tree = TreeCopy(self._bucket, self._copier, self._keys.folder(src), self._keys.folder(dst))
        tree.run(replaced)
        if is_move and not tree.failures:
            # Else a repeated move would replace what has moved by what was left.
            tree.delete_copied()
        if is_move and not tree.failures:
            tree.failures |= self._delete_suffixed(src)
        return tree.failures

    def _delete_suffixed(self, path: str) -> Failures:
        """Remove `name_$folder$`, if it is there."""
        marker = self._keys.file(path) + FOLDER_SUFFIX
        try:
            is_there = self._bucket.head(marker) is not None
        except StoreAccessError as error:
            return {marker: error}
        return self._bucket.delete_all([marker]) if is_there else {}

    @contextmanager
    def _folders_kept(self, deleted: Iterable[str]) -> Iterator[None]:
        """Directories that lose their last member inside stay, and missing ones are not made."""
        parents = {self._keys.folder(paths.parent(path)) for path in deleted} - {self._keys.prefix}
        pool = self._bucket.connection.pool
        there = zip(parents, pool.map(self._bucket.holds, parents), strict=True)
        existing = [folder for folder, is_there in there if is_there]
        try:
            yield
        finally:
            for _ in pool.map(self._keep_folder, existing):
                pass

    def _keep_folder(self, folder: str) -> None:
        """Mark a directory that nothing else shows any more; the root needs no mark."""
        if folder == self._keys.prefix or self._bucket.holds(folder):
            return
        try:
            self._bucket.mark(folder)
        except StoreAccessError as error:
            # SeaweedFS refuses a marker beside a file of the same name; the file shows now.
            if error.status != 409:
                raise

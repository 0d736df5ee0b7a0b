"""Removing, copying and moving paths: operations of several requests.

Nothing above tries them again as a whole once something may have changed: a second try of a move
would take what has been moved already for left-overs of the destination. So each request has its
own tries here, and what fails after them is named in a PartialFailureError.
"""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from davfusion.stores import paths
from davfusion.stores.s3.bucket import Bucket, Failures, Head
from davfusion.stores.s3.copy import Copier
from davfusion.stores.s3.listing import FOLDER_SUFFIX, Keys
from davfusion.stores.s3.look import Found, look, require_folder_suffix
from davfusion.stores.s3.tree import TreeCopy, raise_failures
from davfusion.stores.store import AlreadyExistsError, ConflictError, StoreAccessError
from davfusion.stores.transfer import require_apart

_MARKER_AND_MORE: Final = 2
"""Keys of a listing that show whether a directory has a marker, which comes first, or one member.

Of one key that is a marker, SeaweedFS says that it is all.
"""


class Change:
    """One operation; the effort of `bucket` is that of the whole operation."""

    def __init__(self, bucket: Bucket, copier: Copier, keys: Keys) -> None:
        self._bucket = bucket
        self._copier = copier.within(bucket)
        self._keys = keys

    def delete_files(self, files: Iterable[str]) -> None:
        """Remove files; their directories stay."""
        keys = [self._keys.file(path) for path in files]
        with self._folders_kept(keys):
            failures = self._bucket.delete_all(keys)
        raise_failures(failures, self._keys, "deleted")

    def delete_directory(self, directory: str) -> None:
        """Remove a directory and all below it."""
        folder, suffixed = self._folder_keys(directory)
        with self._folders_kept([folder, suffixed]):
            failures = self._bucket.delete_tree(folder)
            failures |= self._delete_suffixed(directory)
        raise_failures(failures, self._keys, "deleted")

    def duplicate(self, src: str, dst: str, *, replace: bool) -> None:
        """Copy a file or a directory."""
        raise_failures(self._copy(src, dst, replace), self._keys, "copied")

    def move(self, src: str, dst: str, *, replace: bool) -> None:
        """Move a file or a directory; the directory that held it stays."""
        gone = [self._keys.file(src), *self._folder_keys(src)]
        stays = paths.is_below(dst, paths.parent(src))
        with self._folders_kept([] if stays else gone):
            failures = self._copy(src, dst, replace, is_move=True)
        raise_failures(failures, self._keys, "moved")

    def _copy(self, src: str, dst: str, replace: bool, is_move: bool = False) -> Failures:
        require_apart(src, dst)
        source, target = look(self._bucket, self._keys, src, dst)
        if not replace and (target.is_folder or target.head is not None):
            raise AlreadyExistsError(f"{dst} exists")
        if source.is_folder or source.head is None:
            if not source.is_folder:
                require_folder_suffix(self._bucket, self._keys, src)
            return self._copy_tree(src, dst, target, is_move)
        key = self._keys.file(src)
        self._copier.copy(key, self._keys.file(dst), source.head["ContentLength"])
        failures = self._bucket.delete_tree(self._keys.folder(dst)) if target.is_folder else {}
        return self._delete_copied(key, source.head) if is_move and not failures else failures

    def _delete_copied(self, key: str, copied: Head) -> Failures:
        """Remove a file, unless it has changed since it was looked at; the copy stays."""
        now = self._bucket.head(key)
        if now is not None and now["ETag"] != copied["ETag"]:
            return {key: ConflictError(f"{self._keys.path(key)} was changed while it was moved")}
        return self._bucket.delete_all([key])

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
        _, marker = self._folder_keys(path)
        try:
            is_there = self._bucket.head(marker) is not None
        except StoreAccessError as error:
            return {marker: error}
        return self._bucket.delete_all([marker]) if is_there else {}

    def _folder_keys(self, directory: str) -> tuple[str, str]:
        """With what its keys begin, and `name_$folder$`."""
        return self._keys.folder(directory), self._keys.file(directory) + FOLDER_SUFFIX

    @contextmanager
    def _folders_kept(self, gone: Collection[str]) -> Iterator[None]:
        """Directories that lose their last member inside stay, and missing ones are not made.

        `gone` are the keys of files, and what the keys of directories begin with. What they would
        leave empty is marked before, so that it stays whenever this ends; and once more after it,
        for who else has deleted meanwhile.
        """
        parents: dict[str, set[str]] = {}
        for key in gone:
            parents.setdefault(key[: key.rstrip("/").rfind("/") + 1], set()).add(key)
        parents.pop(self._keys.prefix, None)
        pool = self._bucket.connection.pool
        there = pool.map(lambda folder: self._mark_emptied(folder, parents[folder]), parents)
        existing = [folder for folder, is_there in zip(parents, there, strict=True) if is_there]
        try:
            yield
        finally:
            for _ in pool.map(self._keep_folder, existing):
                pass

    def _mark_emptied(self, folder: str, gone: Collection[str]) -> bool:
        """Mark a directory that holds nothing but what is `gone`; whether it is there."""
        within = tuple(key for key in gone if key.endswith("/"))
        for limit in (_MARKER_AND_MORE, self._bucket.batch):
            page = self._bucket.first(folder, limit=limit)
            keys = [entry.key for entry in page.entries]
            stays = any(not (key in gone or key.startswith(within)) for key in keys)
            if stays or not page.following:
                break
        if keys and not (stays or page.following):
            self._bucket.keep(folder)
        return bool(keys)

    def _keep_folder(self, folder: str) -> None:
        """Mark a directory that nothing else shows any more."""
        if not self._bucket.holds(folder):
            self._bucket.keep(folder)

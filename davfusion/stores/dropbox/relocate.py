"""Copying and moving inside Dropbox, which itself never replaces what is there.

A file that replaces a file takes the way of an upload (`write_over`), the only one on which there
is always one of the two. Where a folder is replaced or replaces, the old goes out of the way.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from dropbox import files
from dropbox.exceptions import ApiError

from davfusion.stores import paths
from davfusion.stores.aside import Asides, UnnotedAsides
from davfusion.stores.dropbox.client import Connection
from davfusion.stores.dropbox.errors import dropbox_errors, tags_of
from davfusion.stores.dropbox.large import TOO_MANY, LargeFolder
from davfusion.stores.dropbox.listing import look, metadata_of, pages
from davfusion.stores.dropbox.names import Places
from davfusion.stores.dropbox.removal import Removal
from davfusion.stores.retry import AnyEffort
from davfusion.stores.spelling import fold
from davfusion.stores.store import (
    AlreadyExistsError,
    ConflictError,
    Metadata,
    NoSuchFilesytemObjectError,
    StoreAccessError,
    TransientStoreError,
)
from davfusion.stores.transfer import require_apart

_log = logging.getLogger(__name__)


class Relocation:
    """Copies and moves below one folder of Dropbox.

    What goes out of the way goes to where the end of its path says where it belongs, and is removed
    once the new content stands. A failure brings it back, and after a crash whoever reads what
    `asides` have been told, or restore(). `write_over` stores the content of one version of a file
    over another file.
    """

    asides: Asides = UnnotedAsides()

    def __init__(
        self,
        connection: Connection,
        places: Places,
        write_over: Callable[[str, Metadata, str], None],
        effort: Callable[[], AnyEffort],
    ) -> None:
        self._connection = connection
        self._places = places
        self._write_over = write_over
        self._effort = effort

    def duplicate(self, src: str, dst: str, *, replace: bool) -> None:
        """Copy a file or folder; one request where nothing is at `dst`."""
        require_apart(fold(src), fold(dst))
        try:
            self._copy(self._places.remote(src), self._places.remote(dst))
        except _TakenError as taken:
            if not replace:
                raise AlreadyExistsError(str(taken)) from taken
            self._replace(self._copy, src, dst, taken)
        except _TooManyError:
            self._large().copy(self._places.remote(src), self._places.remote(dst))

    def move(self, src: str, dst: str, *, replace: bool) -> None:
        """Move a file or folder; two requests where nothing is at `dst`."""
        if src != dst and fold(src) == fold(dst):
            # Dropbox takes them for one name, and leaves it as it is.
            with self._out_of_the_way(src, paths.ROOT) as aside:
                self._move(aside, self._places.remote(dst))
            return
        require_apart(fold(src), fold(dst))
        try:
            self._move(self._places.remote(src), self._places.remote(dst))
        except _TakenError as taken:
            if not replace:
                raise AlreadyExistsError(str(taken)) from taken
            self._replace(self._move, src, dst, taken)
        except _TooManyError:
            self._large().move(self._places.remote(src), self._places.remote(dst))

    def _large(self) -> LargeFolder:
        removal = Removal(self._connection, self._places)
        return LargeFolder(self._connection, removal.delete_tree, self._effort())

    def _replace(
        self, carry: Callable[[str, str], None], src: str, dst: str, taken: "_TakenError"
    ) -> None:
        source = self._places.remote(src)
        entry = look(self._connection.client, source)
        if isinstance(entry, files.FileMetadata) and taken.is_by_file:
            self._write_over(src, metadata_of(entry), dst)
            if carry == self._move:
                Removal(self._connection, self._places).delete_version(src, entry.rev)
            return
        with self._out_of_the_way(dst, src):
            carry(source, self._places.remote(dst))

    def restore(self) -> None:
        """Put back all that is out of the way, and is not replaced; one request if nothing is."""
        asides = self._places.asides
        if look(self._connection.client, asides) is None:
            return
        for aside in self._entries(asides):
            self._is_done(self.put_back, aside.path_display)
        if not self._entries(asides):
            self._delete(asides)

    def put_back(self, aside: str, src: str = paths.ROOT) -> None:
        """Bring back what is below `aside`, or remove it where `src` has replaced it.

        Missing is no error: others may be at it. ConflictError where something else has its place.
        """
        with suppress(NoSuchFilesytemObjectError):
            for entry in self._entries(aside, recursive=True):
                origin = self._places.origin(entry.path_display)
                if origin is not None:
                    self._put_back(entry.path_display, origin, src)
            self._delete(aside)

    def _put_back(self, place: str, origin: str, src: str) -> None:
        try:
            self._move(place, origin)
        except _TakenError as error:
            if not self._stands_for(src, origin):
                raise ConflictError(f"what was at dropbox:{origin} is in {place}") from error
            _log.info("dropbox:%s had been replaced", origin)
        else:
            _log.warning("dropbox:%s was being replaced when that broke off, and is back", origin)

    def _stands_for(self, src: str, target: str) -> bool:
        """Whether `src` has been moved or copied to `target`, by the look of it; not if it is /."""
        source = self._places.remote(src)
        if src == paths.ROOT:
            return False
        if look(self._connection.client, source) is None:
            return True
        return self._contents(source) == self._contents(target)

    def _contents(self, remote: str) -> dict[str, str | None]:
        """By path below `remote`, what tells the content of a file; None for a folder."""
        top = look(self._connection.client, remote)
        found = [top] if top else []
        if isinstance(top, files.FolderMetadata):
            found = self._entries(remote, recursive=True)
        return {
            entry.path_lower[len(top.path_lower) :]: getattr(entry, "content_hash", None)
            for entry in found
        }

    def _entries(self, folder: str, *, recursive: bool = False) -> list[Any]:
        with dropbox_errors(f"dropbox:{folder}"):
            found = pages(self._connection.client, folder, recursive)
            return [entry for page in found for entry in page]

    @contextmanager
    def _out_of_the_way(self, path: str, src: str) -> Iterator[str]:
        """Where `path` is until the block ends; then it is removed, or is back after a failure.

        `src` is what is to replace it; / if nothing is.
        """
        aside, is_left = self._places.aside(path), True
        end = self.asides.unfinished(path, aside + src)
        try:
            self._move(self._places.remote(path), f"{aside}{path}")
            try:
                yield f"{aside}{path}"
            except BaseException:
                is_left = not self._is_done(self.put_back, aside, src)
                raise
            is_left = not self._is_done(self._delete, aside)
        finally:
            end(is_left)

    def _is_done(self, change: Callable[..., None], aside: str, *more: str) -> bool:
        try:
            change(aside, *more)
        except StoreAccessError as error:
            _log.warning("%s is put right later: %s", aside, error)
            return False
        return True

    def _copy(self, source: str, target: str) -> None:
        self._call(self._connection.client.files_copy_v2, source, target)

    def _move(self, source: str, target: str) -> None:
        """Two requests; where the answer is lost, what Dropbox has done is taken for done."""
        entry = look(self._connection.client, source)
        if entry is None:
            raise NoSuchFilesytemObjectError(f"dropbox:{source}")
        try:
            self._call(self._connection.client.files_move_v2, source, target)
        except TransientStoreError as error:
            if error.retry_after is not None or not self._is_at(entry, target):
                raise

    def _is_at(self, entry: Any, target: str) -> bool:
        there = self._effort()(look, self._connection.client, target)
        return there is not None and bool(there.id == entry.id)

    def _call(self, call: Callable[[str, str], Any], source: str, target: str) -> None:
        with dropbox_errors(f"dropbox:{source}"):
            try:
                call(source, target)
            except ApiError as error:
                found = tags_of(error)
                if found[:2] == ("to", "conflict") and "file_ancestor" not in found:
                    raise _TakenError(target, found) from error
                if TOO_MANY in found:
                    raise _TooManyError(
                        f"dropbox:{source}: more entries than Dropbox copies or moves at once", 502
                    ) from error
                raise

    def _delete(self, remote: str) -> None:
        with dropbox_errors(f"dropbox:{remote}"):
            self._connection.client.files_delete_v2(remote)


class _TooManyError(StoreAccessError):
    """The folder has more entries than Dropbox takes at once."""


class _TakenError(ConflictError):
    """Something is at the destination."""

    def __init__(self, target: str, found: tuple[str, ...]) -> None:
        super().__init__(f"dropbox:{target} is taken: {'/'.join(found)}")
        self.is_by_file = "file" in found

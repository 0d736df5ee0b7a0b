"""Copying and moving inside Dropbox, which itself never replaces what is there."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from dropbox.exceptions import ApiError

from davfusion.stores.dropbox.client import Connection
from davfusion.stores.dropbox.errors import dropbox_errors, tags_of
from davfusion.stores.dropbox.listing import look, pages
from davfusion.stores.dropbox.names import Places
from davfusion.stores.spelling import fold
from davfusion.stores.store import ConflictError, StoreAccessError
from davfusion.stores.transfer import require_apart

_log = logging.getLogger(__name__)


class Relocation:
    """Copies and moves below one folder of Dropbox.

    What is replaced goes out of the way, to where the end of its path says where it belongs, and
    is removed once the new content stands; a failure brings it back, and restore() after a crash.
    """

    def __init__(self, connection: Connection, places: Places) -> None:
        self._connection = connection
        self._places = places

    def duplicate(self, src: str, dst: str) -> None:
        """Copy a file or folder; one request where nothing is at `dst`."""
        self._relocate(self._connection.client.files_copy_v2, src, dst)

    def move(self, src: str, dst: str) -> None:
        """Move a file or folder; one request where nothing is at `dst`, two for another case."""
        if src != dst and fold(src) == fold(dst):
            # Dropbox takes them for one name, and leaves it as it is.
            with self._out_of_the_way(src) as aside:
                self._move(aside, self._places.remote(dst))
            return
        self._relocate(self._connection.client.files_move_v2, src, dst)

    def restore(self) -> None:
        """Bring back what a crash has left out of the way; what has been replaced is removed.

        One request if there is nothing.
        """
        asides, client = self._places.asides, self._connection.client
        if look(client, asides) is None:
            return
        with dropbox_errors(f"dropbox:{asides}"):
            left = [entry for page in pages(client, asides, recursive=True) for entry in page]
        for entry in left:
            origin = self._places.origin(entry.path_display)
            if origin is not None:
                self._restore(entry.path_display, origin)
        self._delete(asides)

    def _restore(self, aside: str, origin: str) -> None:
        try:
            self._move(aside, origin)
        except ConflictError:  # by what was to replace it
            _log.info("dropbox:%s had been replaced", origin)
        else:
            _log.warning("dropbox:%s was out of the way when a server ended, and is back", origin)

    def _relocate(self, call: Callable[[str, str], Any], src: str, dst: str) -> None:
        require_apart(fold(src), fold(dst))
        source, target = self._places.remote(src), self._places.remote(dst)
        with dropbox_errors(f"dropbox:{source}"):
            try:
                call(source, target)
            except ApiError as error:
                if not _is_taken(error):
                    raise
            else:
                return
        with self._out_of_the_way(dst), dropbox_errors(f"dropbox:{source}"):
            call(source, target)

    @contextmanager
    def _out_of_the_way(self, path: str) -> Iterator[str]:
        """Where `path` is until the block ends; then it is removed, or is back after a failure."""
        aside = self._places.aside(path)
        remote, new = self._places.remote(path), f"{aside}{path}"
        self._move(remote, new)
        try:
            yield new
        except BaseException:
            self._logged(self._move, new, remote)
            raise
        self._logged(self._delete, aside)

    def _logged(self, change: Callable[..., None], *places: str) -> None:
        """A failure here is put right by the next start."""
        try:
            change(*places)
        except StoreAccessError as error:
            _log.warning("left for the next start: %s", error)

    def _move(self, source: str, target: str) -> None:
        with dropbox_errors(f"dropbox:{source}"):
            try:
                self._connection.client.files_move_v2(source, target)
            except ApiError as error:
                if _is_taken(error):
                    raise ConflictError(f"dropbox:{target} is taken") from error
                raise

    def _delete(self, remote: str) -> None:
        with dropbox_errors(f"dropbox:{remote}"):
            self._connection.client.files_delete_v2(remote)


def _is_taken(error: ApiError) -> bool:
    """Whether something is at the destination already."""
    found = tags_of(error)
    return found[:2] == ("to", "conflict") and "file_ancestor" not in found

"""Changes where one upload replaces a file at once, on a condition: a DAV server's PUT.

Where a PUT that breaks off leaves half of a file, it is prepared as elsewhere, and moved.
"""

from collections.abc import Callable
from typing import cast

from davfusion.stores import paths
from davfusion.stores.errors import NoSuchFilesytemObjectError, TransientStoreError
from davfusion.stores.fsspec.errors import backend_errors, from_source
from davfusion.stores.fsspec.gathering import sized
from davfusion.stores.fsspec.multistatus import Entry
from davfusion.stores.fsspec.renaming import Renaming, apart
from davfusion.stores.fsspec.share import require_version, require_whole
from davfusion.stores.fsspec.webdav import Body, DavBackend
from davfusion.stores.store import ABSENT, InterruptEvent, Metadata, SourceStream
from davfusion.stores.transfer import blocks


class Uploading(Renaming):
    """Files are put where they belong; the rest is as elsewhere."""

    def write(
        self,
        source: SourceStream,
        path: str,
        interrupt_event: InterruptEvent | None,
        if_etag: str | None,
        modified: float | None,
    ) -> Metadata:
        """As store_fileobject of the contract: two PROPFINDs and a PUT, on some servers a MOVE.

        A time costs a PROPPATCH more, unless the server takes X-OC-Mtime.
        """
        with sized(source, interrupt_event) as (file, size), self._share.lent(path) as backend:
            dav = cast("DavBackend", backend)
            held = self._look(dav, path)
            require_version(None if held is None else held.metadata, path, if_etag)
            headers = _conditions(held, if_etag)
            if modified is not None:
                modified = modified if held is None else apart(modified, held.metadata)
                headers["X-OC-Mtime"] = str(int(modified))
            start = file.tell()

            def put(there: str) -> bool:
                file.seek(start)
                content = from_source(blocks(file, interrupt_event))
                return dav.upload(self._share.at(there), Body(content, size), headers)

            keeps_time = self._put(dav, path, put)
            if modified is not None and not keeps_time:
                dav.date(self._share.at(path), modified, size)
            try:
                return self._stored(dav, path, size, modified)
            except NoSuchFilesytemObjectError as error:  # rclone removes what a MOVE replaces first
                raise TransientStoreError(f"{path} is being replaced by another") from error

    def _put(self, dav: DavBackend, path: str, put: Callable[[str], bool]) -> bool:
        """What `put` gives for `path`, or for a name beside that is renamed to it."""
        if dav.replaces_whole:
            return self._in(dav, paths.parent(path), lambda: put(path))
        with self._prepared(dav) as temporary:
            keeps_time = self._in(dav, paths.parent(temporary), lambda: put(temporary))
            parent = paths.parent(path)
            if self._share.stat_or_none(dav, parent) is None:  # rclone says 403 of it
                self._make_directory(dav, parent)
            self._rename(dav, temporary, path)
            return keeps_time

    def _look(self, dav: DavBackend, path: str) -> Entry | None:
        try:
            with backend_errors(path):
                return dav.look(self._share.at(path))
        except NoSuchFilesytemObjectError:
            return None

    def _stored(self, dav: DavBackend, path: str, size: int, modified: float | None) -> Metadata:
        found = dav.look(self._share.at(path))
        if found.is_dated and modified is None:  # that was the time of what has been replaced
            dav.undate(self._share.at(path))
            found = dav.look(self._share.at(path))
        require_whole(found.metadata, path, size)
        return found.metadata


def _conditions(held: Entry | None, if_etag: str | None) -> dict[str, str]:
    """The headers by which the server itself compares; a weak ETag matches nothing there."""
    if if_etag == ABSENT:
        return {"If-None-Match": "*"}
    if if_etag is not None and held is not None and held.strong_etag is not None:
        return {"If-Match": held.strong_etag}
    return {}

"""Changes where one upload replaces a file at once, on a condition: a DAV server's PUT."""

from typing import cast

from davfusion.stores import paths
from davfusion.stores.errors import NoSuchFilesytemObjectError, TransientStoreError
from davfusion.stores.fsspec.errors import backend_errors, from_source
from davfusion.stores.fsspec.gathering import sized
from davfusion.stores.fsspec.multistatus import Entry
from davfusion.stores.fsspec.renaming import Renaming, apart
from davfusion.stores.fsspec.share import require_version
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
        """As store_fileobject of the contract: two PROPFINDs and a PUT.

        A time costs a PROPPATCH more, unless the server takes X-OC-Mtime.
        """
        with sized(source, interrupt_event) as (file, size), self._share.lent(path) as backend:
            dav, place = cast("DavBackend", backend), self._share.at(path)
            held = self._look(dav, path)
            require_version(None if held is None else held.metadata, path, if_etag)
            headers = _conditions(held, if_etag)
            if modified is not None:
                modified = modified if held is None else apart(modified, held.metadata)
                headers["X-OC-Mtime"] = str(int(modified))
            start = file.tell()

            def put() -> bool:
                file.seek(start)
                content = from_source(blocks(file, interrupt_event))
                return dav.upload(place, Body(content, size), headers)

            keeps_time = self._in(dav, paths.parent(path), put)
            if modified is not None and not keeps_time:
                dav.date(place, modified, size)
            return self._stored(dav, path, size, modified)

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
        if found.metadata["bytes"] != size:
            raise TransientStoreError(f"{path}: {found.metadata['bytes']} of {size} bytes arrived")
        return found.metadata


def _conditions(held: Entry | None, if_etag: str | None) -> dict[str, str]:
    """The headers by which the server itself compares; a weak ETag matches nothing there."""
    if if_etag == ABSENT:
        return {"If-None-Match": "*"}
    if if_etag is not None and held is not None and held.strong_etag is not None:
        return {"If-Match": held.strong_etag}
    return {}

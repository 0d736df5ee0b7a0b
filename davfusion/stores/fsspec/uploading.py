"""Changes where one upload replaces a file at once, on a condition: a DAV server's PUT.

Where a PUT that breaks off leaves half of a file, it is prepared as elsewhere, and moved.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from typing import BinaryIO, Final, cast

from davfusion.stores import paths
from davfusion.stores.errors import (
    NoSuchFilesytemObjectError,
    StoreAccessError,
    TransientStoreError,
)
from davfusion.stores.fsspec.backend import Backend
from davfusion.stores.fsspec.errors import backend_errors
from davfusion.stores.fsspec.gathering import gathered
from davfusion.stores.fsspec.multistatus import Entry
from davfusion.stores.fsspec.renaming import Renaming, apart
from davfusion.stores.fsspec.share import require_version, require_whole
from davfusion.stores.fsspec.webdav import Body, DavBackend
from davfusion.stores.retry import RetryPolicy
from davfusion.stores.store import ABSENT, InterruptEvent, Metadata, SourceStream, seekable
from davfusion.stores.streams import size_of

_SOON: Final = RetryPolicy(attempts=5, first=0.1)
_TRIED: Final = b"davfusion"
_log = logging.getLogger(__name__)


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

        A time costs a PROPPATCH more, unless the server takes X-OC-Mtime; a source that cannot
        seek, a PROPFIND of the folder.
        """
        with (
            self._sendable(source, path, interrupt_event) as sendable,
            self._share.lent(path) as backend,
        ):
            dav = cast("DavBackend", backend)
            held = self._look(dav, path)
            require_version(None if held is None else held.metadata, path, if_etag)
            headers = _conditions(held, if_etag)
            if modified is not None:
                modified = modified if held is None else apart(modified, held.metadata)
                headers["X-OC-Mtime"] = str(int(modified))
            body = Body(sendable, interrupt_event)
            keeps_time = self._put(dav, path, body, headers)
            if modified is not None and not keeps_time:
                dav.date(self._share.at(path), modified, body.sent)
            try:
                return self._stored(dav, path, body.sent, modified)
            except NoSuchFilesytemObjectError as error:  # rclone removes what a MOVE replaces first
                raise TransientStoreError(f"{path} is being replaced by another") from error

    @contextmanager
    def _sendable(
        self, source: SourceStream, path: str, interrupt_event: InterruptEvent | None
    ) -> Iterator[SourceStream]:
        """`source`, or a temporary file of it for a server that must be told the length before."""
        is_told = seekable(source) is not None or size_of(source) is not None
        if is_told or self._takes_chunks(path):
            yield source
        else:
            with gathered(source, interrupt_event) as (_, file, _):
                yield cast("BinaryIO", file)

    def _takes_chunks(self, path: str) -> bool:
        """Whether the server stores all of a chunked body; it is tried once.

        Some refuse it (411, RFC 9112 section 6.3); behind some, PHP finds it to be empty.
        """
        with self._share.lent(path) as backend:
            dav = cast("DavBackend", backend)
            if dav.takes_chunks is None:
                dav.takes_chunks = self._stores_chunks(dav)
            return dav.takes_chunks

    def _stores_chunks(self, dav: DavBackend) -> bool:
        with self._prepared(dav) as temporary:
            try:
                self._put_there(dav, temporary, Body(BytesIO(_TRIED), is_told=False), {})
                is_whole = dav.stat(self._share.at(temporary))["bytes"] == len(_TRIED)
            except TransientStoreError:
                raise
            except StoreAccessError as error:
                _log.debug("no chunks: %s", error)
                return False
            dav.remove(self._share.at(temporary))
            return is_whole

    def _put(self, dav: DavBackend, path: str, body: Body, headers: Mapping[str, str]) -> bool:
        """PUT `path`, or a name beside that is renamed to it; whether a time is kept."""
        if dav.replaces_whole:
            return self._put_there(dav, path, body, headers)
        with self._prepared(dav) as temporary:
            keeps_time = self._put_there(dav, temporary, body, headers)
            self._ensure(dav, paths.parent(path))  # rclone says 403 of it
            self._rename(dav, temporary, path)
            return keeps_time

    def _put_there(
        self, dav: DavBackend, path: str, body: Body, headers: Mapping[str, str]
    ) -> bool:
        place, folder = self._share.at(path), paths.parent(path)
        if body.can_be_repeated:
            return self._in(dav, folder, lambda: dav.upload(place, body, headers))
        self._ensure(dav, folder)
        return dav.upload(place, body, headers)

    def _discard(self, backend: Backend, temporary: str) -> None:
        """For a moment more, the server may have what broke off locked, or be about to make it."""

        def discard() -> None:
            try:
                backend.remove(self._share.at(temporary))
            except NoSuchFilesytemObjectError as error:
                raise TransientStoreError(f"{temporary} is not there yet") from error

        _SOON.call(discard)

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

"""PATCH with a part of a file, as sabre/dav defines it (https://sabre.io/dav/http-patch/)."""

import hashlib
import re
from collections.abc import Generator
from contextlib import closing
from functools import partial
from typing import Final, NamedTuple

from wsgidav.dav_error import DAVError

from davfusion.provider.errors import translated
from davfusion.provider.live_properties import version_headers
from davfusion.provider.request import DavRequest, Response
from davfusion.provider.tree import DavTree
from davfusion.provider.upload import UploadBody, client_mtime, expected_digests
from davfusion.stores.store import COPY_BUFFER, Metadata, SourceStream, Store, TransientStoreError
from davfusion.stores.transfer import Whole, blocks

PARTIAL_UPDATE: Final = "application/x-sabredav-partialupdate"
ACCEPT_PATCH: Final = ("Accept-Patch", PARTIAL_UPDATE)
"""The header that announces it (RFC 5789 section 3.1)."""
_RANGE = re.compile(r"\s*(?:(append)|bytes\s*=\s*(\d{0,18})-(\d{0,18}))\s*", re.IGNORECASE)


class Update(NamedTuple):
    """Where the body goes: from byte `start`, and it has `length` bytes if that is given."""

    start: int
    length: int | None


def parse_update_range(header: str | None, size: int) -> Update:
    """Of X-Update-Range, for a file of `size` bytes; DAVError 400, 416 for what lies outside."""
    match = _RANGE.fullmatch(header or "")
    if match is None or not (match[1] or match[2] or match[3]):
        raise DAVError(400, "X-Update-Range is missing or cannot be read.")
    if match[1]:
        return Update(size, None)
    if not match[2]:  # the last so many bytes, and beyond
        return Update(max(0, size - int(match[3])), None)
    start = int(match[2])
    length = int(match[3]) - start + 1 if match[3] else None
    if start > size or (length is not None and length < 1):
        unsatisfied = [("Content-Range", f"bytes */{size}")]
        raise DAVError(416, "The range is none of the file.", add_headers=unsatisfied)
    return Update(start, length)


def patch(tree: DavTree, request: DavRequest) -> Response:
    """Replace a part of a file, or append to it: the whole new content is stored, or nothing."""
    metadata = tree.find(request.path, fresh=True)
    if metadata is None:
        raise DAVError(404, "There is no such file.")
    if metadata["is_dir"]:
        raise DAVError(405, "A folder has no parts to update.")
    tree.check_conditions(request, metadata)
    tree.check_locks(request, request.path)
    if (kind := request.header("X-Recalculate-Hash")) is not None:
        return _recalculated(tree, request.path, metadata, kind.strip().lower())
    if (request.header("Content-Type") or "").partition(";")[0].strip().lower() != PARTIAL_UPDATE:
        raise DAVError(415, f"A PATCH is {PARTIAL_UPDATE}.", add_headers=[ACCEPT_PATCH])
    update = parse_update_range(request.header("X-Update-Range"), metadata["bytes"])
    body = UploadBody(
        request.environ,
        expected_digests(request),
        lambda: tree.check_locks(request, request.path),
    )
    with (
        translated(),
        closing(_Patched(tree.store, request.path, metadata, update, body)) as content,
    ):
        stored = tree.store.store_fileobject(
            content,
            request.path,
            if_etag=metadata.get("etag"),
            modified=client_mtime(request),
            content_type=metadata.get("content_type"),
        )
    return Response(204, version_headers(stored))


def _recalculated(tree: DavTree, path: str, metadata: Metadata, kind: str) -> Response:
    """What Nextcloud answers rclone, which asks for the checksum again when it has set a date.

    The content is read only where that checksum is not known of it.
    """
    if kind not in ("md5", "sha1", "sha256"):
        raise DAVError(400, "X-Recalculate-Hash is md5, sha1 or sha256.")
    etag = metadata.get("etag", "")
    known = tree.state.checksums.of(path).get(etag, "").split()
    found = next((checksum for checksum in known if checksum.lower().startswith(f"{kind}:")), None)
    if found is None:
        found = f"{kind.upper()}:{_digest(tree.store, path, metadata, kind)}"
        tree.state.note_checksum(path, etag, " ".join([*known, found]))
    return Response(204, [("OC-Checksum", found)])


def _digest(store: Store, path: str, metadata: Metadata, kind: str) -> str:
    digest = hashlib.new(kind, usedforsecurity=False)
    with translated(), store.open_read(path, etag=metadata.get("etag")) as content:
        for block in blocks(Whole(content, metadata["bytes"])):
            digest.update(block)
    return digest.hexdigest()


class _Patched:
    """The new content as a stream: the old one before the part, the body, the old one behind."""

    def __init__(
        self, store: Store, path: str, old: Metadata, update: Update, body: UploadBody
    ) -> None:
        self._open_old = partial(store.open_read, path, etag=old.get("etag"))
        self._old_size = old["bytes"]
        self._update = update
        self._body = body
        self._position = 0
        self._streams = self._parts()
        self._stream: SourceStream | None = next(self._streams)
        self.size = None if body.size is None else max(old["bytes"], update.start + body.size)
        """Bytes that will come, None where the client does not say."""

    def read(self, size: int = -1, /) -> bytes:
        if size < 0:
            return b"".join(iter(lambda: self.read(COPY_BUFFER), b""))
        while self._stream is not None and size:
            if data := self._stream.read(size):
                self._position += len(data)
                return data
            self._stream = next(self._streams, None)
        return b""

    def close(self) -> None:
        """Close what is open of the old content."""
        self._streams.close()

    def _parts(self) -> Generator[SourceStream, None, None]:
        start, length = self._update
        with self._open_old(0, start) as before:
            yield before
        self._require(start)
        yield self._body
        end = self._position
        if length not in (None, end - start):
            raise DAVError(416, f"The range has {length} bytes, the body {end - start}.")
        if end < self._old_size:
            with self._open_old(end) as behind:
                yield behind
            self._require(self._old_size)

    def _require(self, position: int) -> None:
        """What is left of the old content must be all of it."""
        if self._position != position:
            raise TransientStoreError("the old content ended early")

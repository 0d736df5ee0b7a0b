"""PUT (RFC 9110 section 9.3.4): the body is checked to its end before anything is replaced."""

import base64
import binascii
import hashlib
import re
import zlib
from collections.abc import Callable
from typing import Protocol

from wsgidav.dav_error import DAVError

from davfusion.provider.conditions import write_guard
from davfusion.provider.errors import translated
from davfusion.provider.live_properties import FIRST_SECOND, LAST_SECOND, version_headers
from davfusion.provider.request import DavRequest, Environ, Response, read_body
from davfusion.provider.tree import DavTree
from davfusion.stores.store import COPY_BUFFER

_OC_CHECKSUM = re.compile(r"\s*(MD5|SHA1|SHA256|ADLER32):(.*)", re.IGNORECASE)
_DIGEST = re.compile(r"\s*(md5|sha|sha-256|sha-512)=:?(.*?):?\s*", re.IGNORECASE)
_MEDIA_TYPE = re.compile(r"[!-~]+/[ -~]{1,250}")
_DIGEST_NAMES = {"sha": "sha1", "sha-256": "sha256", "sha-512": "sha512"}


class Digest(Protocol):
    """hashlib's interface, as far as it is used here."""

    def update(self, data: bytes, /) -> None: ...
    def digest(self) -> bytes: ...


class Adler32:
    """The checksum of OC-Checksum that hashlib lacks."""

    def __init__(self) -> None:
        self._value = 1

    def update(self, data: bytes, /) -> None:
        self._value = zlib.adler32(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


def expected_digests(request: DavRequest) -> list[tuple[Digest, bytes | None]]:
    """(a new digest, its value to be) for each digest of the body that the client sent.

    Content-MD5 (RFC 1864), Digest (RFC 3230), Content-Digest and Repr-Digest (RFC 9530),
    OC-Checksum (ownCloud). Raises DAVError 400 for a known digest that cannot be read; algorithms
    that are not known are passed over.
    """
    found: list[tuple[Digest, bytes | None]] = []
    try:
        if header := request.header("Content-MD5"):
            found.append((_new("md5"), base64.b64decode(header.strip(), validate=True)))
        fields = (request.header(name) for name in ("Digest", "Content-Digest", "Repr-Digest"))
        for part in ",".join(filter(None, fields)).split(","):
            if match := _DIGEST.fullmatch(part):
                name = _DIGEST_NAMES.get(match[1].lower(), match[1].lower())
                found.append((_new(name), base64.b64decode(match[2], validate=True)))
        if match := _OC_CHECKSUM.fullmatch(request.header("OC-Checksum") or ""):
            found.append((_new(match[1].lower()), bytes.fromhex(match[2])))
    except (binascii.Error, ValueError) as error:
        raise DAVError(400, "A digest header cannot be read.") from error
    return found


def _new(name: str) -> Digest:
    return Adler32() if name == "adler32" else hashlib.new(name, usedforsecurity=False)


class UploadBody:
    """The request's body as a stream that ends only if it is whole.

    The read that would give out the last bytes raises DAVError 400 when bytes are missing or a
    digest differs, and calls `at_end`, which may still refuse. So does one that meets a broken
    connection or a broken chunk. A digest that is to have the value None is only made.
    """

    def __init__(
        self,
        environ: Environ,
        digests: list[tuple[Digest, bytes | None]],
        at_end: Callable[[], None],
    ) -> None:
        self._environ = environ
        length = environ.get("CONTENT_LENGTH")
        self._announced = _expected_length(environ)
        self.size = int(length) if length else self._announced
        """Bytes that will come, None where the client does not say."""
        self._left = int(length) if length else None if _is_chunked(environ) else 0
        self._received = 0
        self._digests = digests
        self._at_end = at_end
        self._is_checked = False

    def read(self, size: int = -1, /) -> bytes:
        if size < 0:
            return b"".join(iter(lambda: self.read(COPY_BUFFER), b""))
        data: bytes = b""
        if size and self._left != 0:
            wanted = size if self._left is None else min(size, self._left)
            data = read_body(self._environ, wanted)
            for digest, _ in self._digests:
                digest.update(data)
            self._received += len(data)
            if self._left is not None:
                self._left -= len(data)
        if (size and not data) or self._left == 0:
            self._check_end()
        return data

    def _check_end(self) -> None:
        """Once, before the last bytes are given out: a reader may not come back for b""."""
        if self._is_checked:
            return
        self._is_checked = True
        if self._left:
            raise DAVError(400, f"The body ended {self._left} bytes early.")
        if self._announced not in (None, self._received):
            # A proxy between may lose what Finder sends in chunks, and ask for an empty file.
            raise DAVError(400, "The body is not as long as X-Expected-Entity-Length says.")
        if any(value not in (None, digest.digest()) for digest, value in self._digests):
            raise DAVError(400, "The body does not match the digest sent with it.")
        self._at_end()


def _expected_length(environ: Environ) -> int | None:
    """What Finder says of a body that it sends in chunks, however that arrives."""
    value: str = environ.get("HTTP_X_EXPECTED_ENTITY_LENGTH", "").strip()
    return int(value) if value.isascii() and value.isdigit() and len(value) < 20 else None


def _is_chunked(environ: Environ) -> bool:
    return "HTTP_TRANSFER_ENCODING" in environ


def put(tree: DavTree, request: DavRequest) -> Response:
    """Create or replace a file."""
    existing = tree.find_place(request)
    if existing and existing["is_dir"]:
        raise DAVError(405, "A folder cannot be written as a file.")
    if request.header("Content-Range") is not None:
        raise DAVError(400, "PUT takes no Content-Range (RFC 9110 section 14.5).")
    if existing is None:
        tree.check_parent(request.path)

    def check_locks() -> None:
        tree.check_locks(request, request.path, membership=existing is None)

    tree.check_conditions(request, existing)
    check_locks()
    modified = client_mtime(request)
    digests, checksum = expected_digests(request), (request.header("OC-Checksum") or "").strip()
    md5 = hashlib.md5(usedforsecurity=False) if _OC_CHECKSUM.fullmatch(checksum) else None
    if md5:
        digests.append((md5, None))
    # A LOCK granted while the body came in is honoured too, hence the second check.
    body = UploadBody(request.environ, digests, check_locks)
    with translated():
        stored = tree.store.store_fileobject(
            body,
            request.path,
            if_etag=write_guard(request, existing),
            modified=modified,
            content_type=_media_type(request),
        )
    if md5:
        known = _with_md5(checksum, md5.hexdigest())
        tree.state.note_checksum(request.path, stored.get("etag", ""), known)
    headers = version_headers(stored)
    if modified is not None and tree.store.features.modified_times:
        headers.append(("X-OC-Mtime", "accepted"))
    return Response(204 if existing else 201, headers)


def _with_md5(checksum: str, md5: str) -> str:
    """As ownCloud tells checksums: rclone sends SHA-1 there, and compares by MD5 alone."""
    return checksum if checksum[:4].upper() == "MD5:" else f"{checksum} MD5:{md5}"


def client_mtime(request: DavRequest) -> float | None:
    """X-OC-Mtime: the file's own time in seconds (ownCloud, rclone, Nextcloud clients)."""
    header = request.header("X-OC-Mtime")
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError as error:
        raise DAVError(400, "X-OC-Mtime is not a number of seconds.") from error
    if not FIRST_SECOND <= seconds <= LAST_SECOND:
        raise DAVError(400, "X-OC-Mtime is out of range.")
    return seconds


def _media_type(request: DavRequest) -> str | None:
    """The Content-Type, unless it says nothing: then the name's extension tells more.

    Nor is one kept that a store could refuse, when the write has long been answered.
    """
    value = (request.header("Content-Type") or "").strip()
    generic = ("application/octet-stream", "application/x-www-form-urlencoded")
    return value if _MEDIA_TYPE.fullmatch(value) and value.lower() not in generic else None

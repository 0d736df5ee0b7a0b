"""GET and HEAD (RFC 9110 sections 9.3 and 14): whole files, ranges, and a page for a folder."""

import re
import secrets
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from html import escape

from wsgidav.dav_error import DAVError

from davfusion.provider.conditions import parse_http_date
from davfusion.provider.errors import translated
from davfusion.provider.live_properties import (
    content_type,
    http_date,
    quoted_etag,
    version_headers,
    versioned,
)
from davfusion.provider.request import DavRequest, Response
from davfusion.provider.tree import DavTree
from davfusion.stores import paths
from davfusion.stores.errors import ConflictError, NoSuchFilesytemObjectError, TransientStoreError
from davfusion.stores.store import Metadata, ReadableStream

AT_ONCE = 64 * 1024
"""Bytes up to which a body is read before the answer begins."""
MAX_RANGES = 32
"""More than that is no reader's need; such a request gets the whole file (section 14.2)."""
_PIECE = 2 * 1024 * 1024
"""Bytes that are sent at a time: a block goes out as it is, without a copy."""
_ACTIVE = re.compile(r"html|xml|svg", re.IGNORECASE)
_SANDBOX = "sandbox allow-scripts allow-popups allow-forms allow-downloads"
"""An origin of its own for a page that lies here: else it could do all that its reader may."""
_RANGE = re.compile(r"(\d*)-(\d*)")


@dataclass(frozen=True)
class ByteRange:
    """`length` bytes from byte `start`."""

    start: int
    length: int

    def content_range(self, size: int) -> str:
        return f"bytes {self.start}-{self.start + self.length - 1}/{size}"


def parse_ranges(header: str | None, size: int) -> list[ByteRange] | None:
    """The satisfiable ranges of a Range header; None where the whole file is to be sent.

    An empty list: nothing asked for lies in the file (416). A header that cannot be read, or is
    not in bytes, is ignored (section 14.2).
    """
    unit, equals, specs = (header or "").partition("=")
    if not equals or unit.strip().lower() != "bytes":
        return None
    parsed = [_parse_range(spec.strip(), size) for spec in specs.split(",") if spec.strip()]
    if not parsed or len(parsed) > MAX_RANGES or any(r is None for r in parsed):
        return None
    return [r for r in parsed if r is not None and r.length > 0]


def _parse_range(spec: str, size: int) -> ByteRange | None:
    """None for no range; a length of 0 for one outside of the file."""
    match = _RANGE.fullmatch(spec)
    if match is None or spec == "-" or len(spec) > 40:
        return None
    if not match[1]:
        length = min(int(match[2]), size)
        return ByteRange(size - length, length)
    start = int(match[1])
    end = min(int(match[2]), size - 1) if match[2] else size - 1
    if match[2] and int(match[2]) < start:
        return None
    return ByteRange(start, max(0, end - start + 1))


def get(tree: DavTree, request: DavRequest) -> Response:
    """Answer GET or HEAD; HEAD reads nothing of a file."""
    with translated():
        try:
            return _get(tree, request, fresh=False)
        except (ConflictError, NoSuchFilesytemObjectError):
            # What was known of the file is outdated: judge and read what is there now.
            return _get(tree, request, fresh=True)


def _get(tree: DavTree, request: DavRequest, *, fresh: bool) -> Response:
    if fresh:
        tree.store.forget(request.path)
    metadata = tree.metadata(request.path)
    tree.check_conditions(request, metadata)
    return (_folder if metadata["is_dir"] else _file)(tree, request, metadata)


def _headers(tree: DavTree, path: str, metadata: Metadata) -> list[tuple[str, str]]:
    headers = [*version_headers(metadata), ("Accept-Ranges", "bytes")]
    checksum = tree.state.checksums.of(path).get(metadata.get("etag", ""))
    return [*headers, ("OC-Checksum", checksum.split()[0])] if checksum else headers


def _type_headers(kind: str) -> list[tuple[str, str]]:
    policy = [("Content-Security-Policy", _SANDBOX)] if _ACTIVE.search(kind) else []
    return [("Content-Type", kind), *policy]


def _file(tree: DavTree, request: DavRequest, metadata: Metadata) -> Response:
    size, headers = metadata["bytes"], _headers(tree, request.path, metadata)
    ranges = None
    if request.method == "GET" and _if_range_holds(request.header("If-Range"), metadata):
        ranges = parse_ranges(request.header("Range"), size)
    if ranges == []:
        raise DAVError(416, "No such range.", add_headers=[("Content-Range", f"bytes */{size}")])
    if ranges and len(ranges) > 1:
        return _multipart(tree, request, metadata, ranges, headers)
    wanted, status = ByteRange(0, size), 200
    if ranges:
        wanted, status = ranges[0], 206
        headers.append(("Content-Range", wanted.content_range(size)))
    headers += _type_headers(content_type(request.path, metadata))
    length = ("Content-Length", str(wanted.length))
    if request.method == "HEAD":
        return Response(status, [*headers, length], ())
    if not wanted.length:
        return Response(status, headers)
    body = FileBody(_open(tree, request.path, metadata, wanted), wanted.length)
    if wanted.length > AT_ONCE:
        return Response(status, [*headers, length], body)
    with closing(body):
        return Response(status, headers, b"".join(body))


def _if_range_holds(header: str | None, metadata: Metadata) -> bool:
    """RFC 9110 section 13.1.5: the strong tag, else the whole file is sent.

    A date counts only where there is no tag: the client's own dates say little of the content.
    """
    if header is None:
        return True
    if etag := quoted_etag(metadata):
        return header.strip() == etag
    return parse_http_date(header) == int(metadata["modified"])


def _open(tree: DavTree, path: str, metadata: Metadata, part: ByteRange) -> ReadableStream:
    whole = part.start == 0 and part.length == metadata["bytes"]
    return tree.store.open_read(
        path, part.start, None if whole else part.length, metadata.get("etag")
    )


class FileBody:
    """Pieces of a stream that is closed with the response, also when the client has gone.

    A stream that ends early raises TransientStoreError, so that the connection is cut and the
    client does not take the part for the whole.
    """

    def __init__(self, stream: ReadableStream, length: int) -> None:
        self._stream = stream
        self._left = length

    def __iter__(self) -> Iterator[bytes]:
        while self._left and (piece := self._stream.read(min(_PIECE, self._left))):
            self._left -= len(piece)
            yield piece
        if self._left:
            raise TransientStoreError(f"The store's answer ended {self._left} bytes early.")

    def close(self) -> None:
        self._stream.close()


def _multipart(
    tree: DavTree,
    request: DavRequest,
    metadata: Metadata,
    ranges: list[ByteRange],
    headers: list[tuple[str, str]],
) -> Response:
    """multipart/byteranges (RFC 9110 section 14.6)."""
    boundary, size = secrets.token_hex(16), metadata["bytes"]
    kind = content_type(request.path, metadata)
    heads = [
        f"--{boundary}\r\nContent-Type: {kind}\r\n"
        f"Content-Range: {part.content_range(size)}\r\n\r\n".encode()
        for part in ranges
    ]
    tail = f"--{boundary}--\r\n".encode()
    length = sum(len(head) + 2 for head in heads) + sum(p.length for p in ranges) + len(tail)

    def body(first: ReadableStream) -> Iterator[bytes]:
        stream = first
        for head, part in zip(heads, ranges, strict=True):
            yield head
            stream = stream if part is ranges[0] else _open(tree, request.path, metadata, part)
            with stream:
                yield from FileBody(stream, part.length)
            yield b"\r\n"
        yield tail

    headers += [
        ("Content-Type", f"multipart/byteranges; boundary={boundary}"),
        ("Content-Length", str(length)),
    ]
    return Response(206, headers, body(_open(tree, request.path, metadata, ranges[0])))


def _folder(tree: DavTree, request: DavRequest, metadata: Metadata) -> Response:
    """A plain page for a browser: what is in the folder."""
    listing = tree.store.get_directory_metadata(request.path)
    title = escape(request.prefix + request.path)
    rows = [] if request.path == paths.ROOT else [_row(request, paths.parent(request.path), "..")]
    for name, member in sorted(listing.items(), key=lambda item: item[0].casefold()):
        rows.append(_row(request, paths.join(request.path, name), name, member))
    page = (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        "<style>body{font:16px sans-serif;margin:2em}td{padding:.2em 1em .2em 0}"
        "td+td{color:#666;text-align:right}</style></head>"
        f"<body><h1>{title}</h1><table>{''.join(rows)}</table></body></html>"
    )
    headers = version_headers(versioned(metadata, request.folder_etag))
    headers.append(("Content-Type", "text/html; charset=utf-8"))
    return Response(200, headers, page.encode(errors="replace"))


def _row(request: DavRequest, path: str, name: str, metadata: Metadata | None = None) -> str:
    is_dir = metadata is None or metadata["is_dir"]
    link = f'<a href="{escape(request.href(path, is_dir=is_dir))}">{escape(name)}</a>'
    size = "" if metadata is None or is_dir else f"{metadata['bytes']:,}"
    date = http_date(int(metadata["modified"])) if metadata and metadata["modified"] else ""
    return f"<tr><td>{link}{'/' if is_dir else ''}</td><td>{size}</td><td>{date}</td></tr>"

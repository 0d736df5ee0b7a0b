"""Reading a range of one file as a stream; all of a file is compared with its content_hash."""

import io
from types import TracebackType
from typing import Any, Self

from dropbox.content_hash import DropboxContentHasher
from dropbox.exceptions import ApiError, HttpError

from davfusion.stores.dropbox.client import Connection
from davfusion.stores.dropbox.errors import dropbox_errors, tags_of
from davfusion.stores.store import ConflictError, ReadableStream, TransientStoreError


class DropboxStream:
    """The body of an answer; a connection that breaks off raises TransientStoreError.

    With `content_hash`, so do bytes that are not those of the file, at their end. Closing early
    drops the connection instead of reading the rest.
    """

    def __init__(self, answer: Any, what: str, size: int, content_hash: str | None) -> None:
        self._answer = answer
        self._what = what
        self._left = size
        self._expected = content_hash
        self._hasher = DropboxContentHasher()

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes; negative: all the rest."""
        if size == 0:
            return b""
        with dropbox_errors(self._what):
            data: bytes = self._answer.raw.read(None if size < 0 else size)
        if self._expected is not None:
            self._compare(data)
        return data

    def close(self) -> None:
        """Release the connection."""
        self._answer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        self.close()

    def _compare(self, data: bytes) -> None:
        self._hasher.update(data)
        self._left -= len(data)
        if data and self._left:
            return
        expected, self._expected = self._expected, None
        if self._hasher.hexdigest() != expected:
            raise TransientStoreError(f"{self._what}: other bytes came than Dropbox has")


def open_range(
    connection: Connection, remote: str, offset: int, length: int | None, etag: str | None
) -> ReadableStream:
    """A stream of `length` bytes (None: the rest), empty past the end; one request.

    The version is compared with that of the very answer that carries the bytes: a path names
    whatever version is there.
    """
    client, what = connection.client, f"dropbox:{remote}"
    if length == 0:
        return _empty(client, remote, etag)
    with dropbox_errors(what):
        try:
            metadata, answer = client.files_download(remote, extra_headers=_headers(offset, length))
        except (ApiError, HttpError) as error:
            if not _is_past_the_end(error):
                raise
            return _empty(client, remote, etag)
    is_whole = offset == 0 and (length is None or length >= metadata.size)
    stream = DropboxStream(answer, what, metadata.size, metadata.content_hash if is_whole else None)
    try:
        _require_version(metadata, etag, what)
    except ConflictError:
        stream.close()
        raise
    return stream


def _headers(offset: int, length: int | None) -> dict[str, str]:
    plain = {"Accept-Encoding": "identity"}
    if offset == 0 and length is None:
        return plain
    return plain | {"Range": f"bytes={offset}-{'' if length is None else offset + length - 1}"}


def _is_past_the_end(error: ApiError | HttpError) -> bool:
    """Whether Dropbox answered 416, or 409 with a tag that the SDK does not know: `other`."""
    return tags_of(error) == ("other",) or getattr(error, "status_code", None) == 416


def _empty(client: Any, remote: str, etag: str | None) -> ReadableStream:
    with dropbox_errors(f"dropbox:{remote}"):
        metadata, answer = client.files_download(remote)
    answer.close()
    _require_version(metadata, etag, f"dropbox:{remote}")
    return io.BytesIO()


def _require_version(metadata: Any, etag: str | None, what: str) -> None:
    if etag is not None and metadata.rev != etag:
        raise ConflictError(f"{what} is no longer version {etag}")

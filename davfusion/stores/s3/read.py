"""Reading a range of one object as a stream."""

import io
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from botocore.exceptions import ClientError

from davfusion.stores.s3.bucket import Bucket
from davfusion.stores.s3.errors import s3_errors, status_of
from davfusion.stores.s3.pages import unquoted
from davfusion.stores.store import (
    ConflictError,
    NoSuchFilesytemObjectError,
    ReadableStream,
)

if TYPE_CHECKING:
    from botocore.response import StreamingBody


class S3Stream:
    """The body of a GetObject; a connection that breaks off raises TransientStoreError.

    Closing early drops the connection instead of reading the rest.
    """

    def __init__(self, body: "StreamingBody", address: str) -> None:
        self._body = body
        self._address = address

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes; negative: all the rest."""
        with s3_errors(self._address):
            return self._body.read(None if size < 0 else size)

    def close(self) -> None:
        """Release the connection."""
        self._body.close()

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


def open_range(
    bucket: Bucket, key: str, offset: int, length: int | None, etag: str | None
) -> ReadableStream:
    """A stream of `length` bytes (None: the rest) of `key`, empty past its end; one request.

    The version is compared with the ETag of the very answer that carries the bytes, which is
    right also on servers that spell or ignore If-Match in their own way.
    """
    address = bucket.address(key)
    if length == 0:
        return _empty(bucket, key, etag)
    with s3_errors(address):
        try:
            answer = bucket.client.get_object(Bucket=bucket.name, Key=key, **_range(offset, length))
        except ClientError as error:
            if status_of(error) != 416:
                raise
            return _empty(bucket, key, etag)
    stream = S3Stream(answer["Body"], address)
    try:
        _require_version(answer, etag, address)
    except ConflictError:
        stream.close()
        raise
    return stream


def _range(offset: int, length: int | None) -> dict[str, Any]:
    if offset == 0 and length is None:
        return {}
    return {"Range": f"bytes={offset}-{'' if length is None else offset + length - 1}"}


def _empty(bucket: Bucket, key: str, etag: str | None) -> ReadableStream:
    head = bucket.head(key)
    if head is None:
        raise NoSuchFilesytemObjectError(bucket.address(key))
    _require_version(head, etag, bucket.address(key))
    return io.BytesIO()


def _require_version(answer: Mapping[str, Any], etag: str | None, address: str) -> None:
    if etag is not None and unquoted(answer.get("ETag")) != etag:
        raise ConflictError(f"{address} is no longer version {etag}")

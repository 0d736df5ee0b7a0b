"""Uploads in parts that a later try goes on with, also one of another process."""

import logging
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from botocore.exceptions import ClientError

from davfusion.stores.s3.bucket import Bucket
from davfusion.stores.s3.errors import CONFLICT, NO_UPLOAD, code_of, s3_errors
from davfusion.stores.s3.pages import unquoted
from davfusion.stores.s3.upload import Entry, Uploader, entry, part_length, ranges, send_all
from davfusion.stores.s3.uploads import Parts, abort, listed_parts, unfinished
from davfusion.stores.source import Range, Slice, Source
from davfusion.stores.store import StoreAccessError, TransientStoreError, Upload
from davfusion.stores.streams import counted
from davfusion.stores.upload_token import UploadToken

CLOCKS_APART: Final = 60.0
"""Seconds by which the service's clock may be behind ours."""

_SPENT: Final = frozenset({NO_UPLOAD, CONFLICT})
"""Codes of an upload that another try cannot complete.

After the conflict all is to be sent anew, says
docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html on If-Match.
"""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Token(UploadToken):
    """An upload, and what a try that goes on with it must have in common with the first."""

    upload_id: str
    part_size: int
    fields: dict[str, Any]
    """Those of CreateMultipartUpload."""


def token_of(upload_id: str) -> str:
    """What abandon() wants to know of an upload that nobody goes on with."""
    return Token(upload_id, 0, {}).text()


class ResumableUpload:
    """One call of store_resumable for `key`; `upload` carries the token from try to try."""

    def __init__(self, uploader: Uploader, key: str, upload: Upload) -> None:
        self._uploader = uploader
        self._bucket = uploader.bucket
        self._key = key
        self._upload = upload
        self._token = Token.parse(upload.token)

    @property
    def fields(self) -> Mapping[str, Any]:
        """What an earlier try gave to CreateMultipartUpload."""
        return {} if self._token is None else self._token.fields

    @contextmanager
    def kept_for_another_try(self) -> Iterator[None]:
        """Parts stay after a TransientStoreError, and are removed after any other error."""
        try:
            yield
        except Exception as error:
            if not isinstance(error, TransientStoreError) or _is_spent(error):
                self._discard_or_log()
            raise

    def write(self, source: Source, fields: Mapping[str, Any], if_etag: str | None) -> str:
        """Store `source` and return the ETag; what the service has of it is not sent again.

        A part counts as sent if its ETag is the MD5 of its bytes. Where the service gives other
        ETags, as with SSE-KMS and SSE-C, everything is sent again.
        """
        with (
            s3_errors(self._bucket.address(self._key)),
            source.unwrapped(),
            counted(self._upload) as sent,
        ):
            source.require_uninterrupted()
            if source.size < self._uploader.threshold:
                self._discard()
                self._upload.confirm()
                etag = self._uploader.write(self._key, source, fields, if_etag)
                sent(source.size)
                return etag
            return self._in_parts(source, fields, if_etag, sent)

    def _in_parts(
        self,
        source: Source,
        fields: Mapping[str, Any],
        if_etag: str | None,
        sent: Callable[[int], None],
    ) -> str:
        step = part_length(source.size, self._uploader.part_size)
        token, stored = self._earlier(step, fields, if_etag) or self._begin(step, fields)
        send = partial(self._send, token.upload_id, source, stored)
        entries = send_all(send, ranges(source.size, step), sent)
        self._upload.confirm()
        return self._uploader.complete(self._key, token.upload_id, entries, if_etag)

    def _earlier(
        self, step: int, fields: Mapping[str, Any], if_etag: str | None
    ) -> tuple[Token, Parts] | None:
        """The upload of an earlier try and the parts it has; None if there is none that fits."""
        token = self._token
        if token is None:
            return None
        parts = listed_parts(self._bucket, self._key, token.upload_id)
        if parts is None:
            # It may have been completed by a request whose answer was lost.
            self._uploader.conditions.require(self._key, if_etag)
        elif (token.part_size, token.fields) == (step, fields):
            return token, parts
        self._discard()
        return None

    def _begin(self, step: int, fields: Mapping[str, Any]) -> tuple[Token, Parts]:
        token = Token(self._uploader.begin(self._key, fields), step, dict(fields))
        self._token = token
        self._upload.begun(token.text())
        return token, {}

    def _send(self, upload_id: str, source: Source, stored: Parts, part: Range) -> Entry:
        number, start, length = part
        there = stored.get(number)
        if there is not None and there["Size"] == length:
            body = Slice(source, start, length)
            if unquoted(there["ETag"]) == body.md5().hex():
                return entry(number, {**there, **self._sum(body)})
        return self._uploader.send_part(self._key, upload_id, source, part)

    def _sum(self, body: Slice) -> dict[str, str]:
        """What CompleteMultipartUpload asks for and not every server lists (SeaweedFS)."""
        if self._uploader.md5:
            return {}
        return {"ChecksumCRC32": b64encode(body.crc32()).decode()}

    def _discard(self) -> None:
        if self._token is not None:
            abort(self._bucket, self._key, self._token.upload_id)
            self._token = None
            self._upload.begun(None)

    def _discard_or_log(self) -> None:
        try:
            self._discard()
        except StoreAccessError as error:
            _log.warning("an unfinished upload stays behind: %s", error)


def abandon(bucket: Bucket, key: str, text: str | None, since: float) -> None:
    """Remove the upload that the token `text` names; without one, all of `key` since `since`."""
    token = Token.parse(text)
    if token is not None:
        abort(bucket, key, token.upload_id)
        return
    for found, upload_id, begun in unfinished(bucket, key):
        if found == key and begun >= since - CLOCKS_APART:
            abort(bucket, key, upload_id)


def _is_spent(error: TransientStoreError) -> bool:
    cause = error.__cause__
    return isinstance(cause, ClientError) and code_of(cause) in _SPENT

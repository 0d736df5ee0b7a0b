"""Writing one object: in one PutObject, or in parts sent several at a time."""

import hashlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, count
from typing import Any, Final

from davfusion.stores.parallel import run_all
from davfusion.stores.s3.bucket import Bucket
from davfusion.stores.s3.client import content_md5
from davfusion.stores.s3.errors import s3_errors
from davfusion.stores.s3.pages import unquoted
from davfusion.stores.s3.quirks import Condition, Conditions
from davfusion.stores.s3.uploads import abort
from davfusion.stores.source import UNTOLD, Range, Slice, Source
from davfusion.stores.store import StoreAccessError, TransientStoreError

MIB: Final = 1024 * 1024
MAX_PARTS: Final = 10_000
MIN_PART: Final = 5 * MIB
MAX_PART: Final = 5 * 1024 * MIB
"""docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html for these three."""
LARGEST: Final = MAX_PARTS * MAX_PART
"""Bytes of one object."""
PARTS_AT_ONCE: Final = 4
DOUBLED_AFTER: Final = 1000
"""Parts of one length, where nobody knows how many will follow."""
IN_MEMORY: Final = MIB
"""Bytes of an object that is read before it is sent, and is sent at once; see client.py."""

_MD5: Final = re.compile(r"[0-9a-f]{32}")
_log = logging.getLogger(__name__)

Entry = Mapping[str, Any]
"""A part as CompleteMultipartUpload names it."""
SendPart = Callable[[str, Range], Entry]
"""(upload id, range) -> the entry of that part."""
NoteUpload = Callable[[str, str], Callable[[bool], None]]
"""(key, upload id) -> what is to be called at the end, with whether anything of it is left."""


def _unnoted(_key: str, _upload: str) -> Callable[[bool], None]:
    return lambda _is_left: None


def part_length(size: int, part_size: int) -> int:
    """Bytes of each part of `size` bytes but the last: `part_size`, or the nearest S3 takes."""
    least = -(-size // MAX_PARTS)
    return max(part_size, MIN_PART, -(-least // MIB) * MIB)


def ranges(size: int, part_size: int) -> Iterator[Range]:
    """The parts of `size` bytes, numbered from 1.

    Of UNTOLD ones, all that there may be: 7.8 TiB, where the first have 8 MiB.
    """
    if size == UNTOLD:
        least = part_length(0, part_size)
        lengths = [min(least << n // DOUBLED_AFTER, MAX_PART) for n in range(MAX_PARTS)]
        yield from zip(count(1), accumulate(lengths, initial=0), lengths, strict=False)
        return
    step = part_length(size, part_size)
    for number, start in enumerate(range(0, size, step), 1):
        yield number, start, min(step, size - start)


def entry(number: int, answer: Mapping[str, Any]) -> Entry:
    """A part as CompleteMultipartUpload wants it, from what the service says of it."""
    sums = {name: value for name, value in answer.items() if name.startswith("ChecksumCRC")}
    return {"PartNumber": number, "ETag": answer["ETag"], **sums}


def send_all(
    send: Callable[[Range], Entry],
    parts: Iterator[Range],
    sent: Callable[[int], None] = lambda _: None,
) -> list[Entry]:
    """Send parts, several at a time; `sent` is told the bytes of each, in this thread."""
    entries: list[Entry] = []
    with closing(run_all(send, parts, PARTS_AT_ONCE)) as finished:
        for (_, _, length), future in finished:
            entries.append(future.result())
            sent(length)
    return sorted(entries, key=lambda part: int(part["PartNumber"]))


@dataclass(frozen=True)
class Uploader:
    """Writes objects of one bucket; `fields` are those of PutObject and CreateMultipartUpload."""

    bucket: Bucket
    conditions: Conditions
    md5: bool
    threshold: int
    part_size: int
    note: NoteUpload = _unnoted
    """For uploads that no other process goes on with."""

    def write(
        self, key: str, source: Source, fields: Mapping[str, Any], if_etag: str | None
    ) -> str:
        """Store `source` and return the ETag; on any failure nothing has been stored."""
        with s3_errors(self.bucket.address(key)), source.unwrapped():
            source.require_uninterrupted()
            if source.size < self.threshold:
                return self._put(key, source, fields, if_etag)
            return self.in_parts(
                key,
                source.parts(ranges(source.size, self.part_size)),
                lambda upload, part: source.send(
                    partial(self.send_part, key, upload, source), part
                ),
                fields,
                if_etag,
            )

    def _put(self, key: str, source: Source, fields: Mapping[str, Any], if_etag: str | None) -> str:
        whole = Slice(source, 0, source.size)
        content = whole.read() if source.size <= IN_MEMORY else None
        digest = None
        if self.md5:
            digest = whole.md5() if content is None else _md5(content)

        def send(condition: Condition) -> Mapping[str, Any]:
            whole.seek(0)
            body = whole if content is None else content
            return self._call("put_object", key, Body=body, **fields, **condition, **_sum(digest))

        answer = self.conditions.write(key, if_etag, send)
        _verify(answer, digest, self.bucket.address(key))
        return unquoted(answer.get("ETag")) or self._etag(key)

    def in_parts(
        self,
        key: str,
        parts: Iterator[Range],
        send_part: SendPart,
        fields: Mapping[str, Any],
        if_etag: str | None = None,
    ) -> str:
        """A multipart upload of what `send_part` sends; aborted on any failure."""
        upload = self.begin(key, fields)
        with self._aborted_on_failure(key, upload):
            return self.complete(key, upload, send_all(partial(send_part, upload), parts), if_etag)

    def begin(self, key: str, fields: Mapping[str, Any]) -> str:
        """The id of a new multipart upload."""
        checksum = {} if self.md5 else {"ChecksumAlgorithm": "CRC32"}
        return str(self._call("create_multipart_upload", key, **fields, **checksum)["UploadId"])

    def complete(self, key: str, upload: str, entries: list[Entry], if_etag: str | None) -> str:
        """Make one object of the parts, and return its ETag."""
        answer = self.conditions.write(
            key,
            if_etag,
            lambda condition: self._call(
                "complete_multipart_upload",
                key,
                UploadId=upload,
                MultipartUpload={"Parts": entries},
                **condition,
            ),
        )
        return unquoted(answer.get("ETag")) or self._etag(key)

    def send_part(self, key: str, upload: str, source: Source, part: Range) -> Entry:
        """Send one part of `source`."""
        number, start, length = part
        body = Slice(source, start, length)
        digest = body.md5() if self.md5 else None
        with s3_errors(self.bucket.address(key)):
            answer = self._call(
                "upload_part", key, UploadId=upload, PartNumber=number, Body=body, **_sum(digest)
            )
        _verify(answer, digest, self.bucket.address(key))
        return entry(number, answer)

    @contextmanager
    def _aborted_on_failure(self, key: str, upload: str) -> Iterator[None]:
        ended = self.note(key, upload)
        try:
            yield
        except BaseException:
            try:
                abort(self.bucket, key, upload)
                ended(False)
            except StoreAccessError as error:
                ended(True)
                _log.warning("an unfinished upload stays behind for now: %s", error)
            raise
        ended(False)

    def _call(self, operation: str, key: str, **fields: Any) -> Mapping[str, Any]:
        call = getattr(self.bucket.client, operation)
        answer: Mapping[str, Any] = call(Bucket=self.bucket.name, Key=key, **fields)
        return answer

    def _etag(self, key: str) -> str:
        """The ETag where the answer to a write has none, as from some CompleteMultipartUpload."""
        head = self.bucket.head(key)
        if head is None:
            raise TransientStoreError(f"{self.bucket.address(key)} was stored and is not there")
        return unquoted(head.get("ETag"))


def _md5(content: bytes) -> bytes:
    return hashlib.md5(content, usedforsecurity=False).digest()


def _sum(digest: bytes | None) -> dict[str, str]:
    return {} if digest is None else {"ContentMD5": content_md5(digest)}


def _verify(answer: Mapping[str, Any], digest: bytes | None, what: str) -> None:
    """Compare with the ETag where it is an MD5: not with KMS or a customer's key."""
    etag = unquoted(answer.get("ETag"))
    encrypted = answer.get("SSECustomerAlgorithm") or "kms" in answer.get(
        "ServerSideEncryption", ""
    )
    if digest is not None and not encrypted and _MD5.fullmatch(etag) and etag != digest.hex():
        raise TransientStoreError(f"{what}: the service stored other bytes than were sent")

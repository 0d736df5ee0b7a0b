"""Copying keys inside the service: whole, in parts, or through this machine where it cannot."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Final

from botocore.exceptions import ClientError

from davfusion.stores.s3.bucket import Bucket, Head
from davfusion.stores.s3.errors import is_unsupported, s3_errors
from davfusion.stores.s3.upload import LARGEST, MIB, Entry, Uploader, entry, ranges
from davfusion.stores.source import Range, opened
from davfusion.stores.store import NoSuchFilesytemObjectError

COPY_PART: Final = 256 * MIB
"""Bytes of one UploadPartCopy: no byte passes here, so fewer and larger than parts sent."""

_CARRIED: Final = (
    *("Metadata", "ContentType", "ContentEncoding", "ContentDisposition"),
    *("ContentLanguage", "CacheControl"),
)
"""What a copy in parts does not take over by itself."""


@dataclass(frozen=True)
class Copier:
    """Copies within one bucket; `limit` is the most bytes that CopyObject takes."""

    bucket: Bucket
    uploader: Uploader
    limit: int

    def within(self, bucket: Bucket) -> "Copier":
        """A copier with the effort of `bucket`."""
        return replace(self, bucket=bucket)

    def copy(self, src: str, dst: str, size: int) -> None:
        """Copy one key with its metadata: one request, or one for each part above the limit.

        Each try begins anew; a reader of `dst` sees the old object or the copy.
        """
        self.bucket.effort(self._copy, src, dst, size)

    def _copy(self, src: str, dst: str, size: int) -> None:
        abilities = self.bucket.abilities
        with s3_errors(self.bucket.address(src)):
            if not abilities.server_side_copy:
                self._through_here(src, dst)
                return
            try:
                self._within(src, dst, size)
            except ClientError as error:
                if not is_unsupported(error):
                    raise
                abilities.server_side_copy = False
                self._through_here(src, dst)

    def _within(self, src: str, dst: str, size: int) -> None:
        source = {"Bucket": self.bucket.name, "Key": src}
        if size <= self.limit:
            self.bucket.client.copy_object(
                Bucket=self.bucket.name,
                Key=dst,
                CopySource=source,  # type: ignore[arg-type]
            )
            return
        head = self._head(src)
        condition = {"CopySource": source, "CopySourceIfMatch": head["ETag"]}

        def send_part(upload: str, part: Range) -> Entry:
            return self._copy_part(dst, upload, part, condition)

        parts = ranges(head["ContentLength"], min(COPY_PART, self.limit))
        self.uploader.in_parts(dst, parts, send_part, carried(head))

    def _copy_part(self, key: str, upload: str, part: Range, condition: Mapping[str, Any]) -> Entry:
        number, start, length = part
        answer = self.bucket.client.upload_part_copy(
            Bucket=self.bucket.name,
            Key=key,
            UploadId=upload,
            PartNumber=number,
            CopySourceRange=f"bytes={start}-{start + length - 1}",
            **condition,
        )["CopyPartResult"]
        return entry(number, answer)

    def _through_here(self, src: str, dst: str) -> None:
        answer = self.bucket.client.get_object(Bucket=self.bucket.name, Key=src)
        with closing(answer["Body"]) as body:
            source = opened(body, None, LARGEST, self.uploader.threshold)
            self.uploader.write(dst, source, carried(dict(answer)), None)

    def _head(self, key: str) -> Head:
        head = self.bucket.head(key)
        if head is None:
            raise NoSuchFilesytemObjectError(self.bucket.address(key))
        return head


def carried(head: Head) -> dict[str, Any]:
    """The fields of a new object that take over what `head` says of the old one."""
    return {name: head[name] for name in _CARRIED if head.get(name)}

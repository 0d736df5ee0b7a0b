"""Multipart uploads that nobody has completed: what lists and what removes them."""

from collections.abc import Iterator
from typing import Any

from botocore.exceptions import ClientError

from davfusion.stores.s3.bucket import Bucket
from davfusion.stores.s3.errors import is_no_upload, s3_errors

Parts = dict[int, dict[str, Any]]
"""Entries of ListParts by number."""


def unfinished(bucket: Bucket, prefix: str) -> Iterator[tuple[str, str, float]]:
    """(key, upload id, UTC seconds of its beginning) of each whose key begins with `prefix`."""
    with s3_errors(bucket.address(prefix)):
        paginator = bucket.client.get_paginator("list_multipart_uploads")
        for page in paginator.paginate(Bucket=bucket.name, Prefix=prefix):
            for upload in page.get("Uploads", []):
                # Some servers take the prefix for a folder or leave it out.
                if upload["Key"].startswith(prefix):
                    yield upload["Key"], upload["UploadId"], upload["Initiated"].timestamp()


def listed_parts(bucket: Bucket, key: str, upload_id: str) -> Parts | None:
    """The parts that the service has; None if it does not know the upload."""
    parts: Parts = {}
    with s3_errors(bucket.address(key)):
        paginator = bucket.client.get_paginator("list_parts")
        try:
            for page in paginator.paginate(Bucket=bucket.name, Key=key, UploadId=upload_id):
                parts |= {part["PartNumber"]: dict(part) for part in page.get("Parts", [])}
        except ClientError as error:
            if is_no_upload(error):
                return None
            raise
    return parts


def abort(bucket: Bucket, key: str, upload_id: str) -> None:
    """Remove an upload with its parts; one that the service does not know is no error."""
    with s3_errors(bucket.address(key)):
        try:
            bucket.client.abort_multipart_upload(Bucket=bucket.name, Key=key, UploadId=upload_id)
        except ClientError as error:
            if not is_no_upload(error):
                raise

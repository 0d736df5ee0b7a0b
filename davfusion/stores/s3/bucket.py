"""One bucket by keys: the requests S3 knows, in the fewest calls, with no notion of paths."""

import itertools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from davfusion.stores.s3.client import Connection
from davfusion.stores.s3.errors import (
    MISSING,
    error_for,
    is_missing,
    is_unsupported,
    s3_errors,
    status_of,
)
from davfusion.stores.s3.listing import Entry, Page
from davfusion.stores.s3.parallel import run_all
from davfusion.stores.store import StoreAccessError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BATCH: Final = 1000
"""Keys of one ListObjectsV2 or DeleteObjects, the most S3 takes."""
AT_ONCE: Final = 16
"""Requests under way for one operation on many keys."""

Head = dict[str, Any]


class Bucket:
    """The keys of one bucket; errors are those of the Store contract."""

    def __init__(self, name: str, connection: Connection) -> None:
        self.name = name
        self.connection = connection
        self._batch_delete = True

    @property
    def client(self) -> "S3Client":
        """The client of this process."""
        return self.connection.client

    def address(self, key: str) -> str:
        """How messages name a key."""
        return f"s3://{self.name}/{key}"

    def head(self, key: str) -> Head | None:
        """What S3 knows of an object without its content; None if it is not there."""
        with s3_errors(self.address(key)):
            try:
                return dict(self.client.head_object(Bucket=self.name, Key=key))
            except ClientError as error:
                if is_missing(error):
                    return None
                raise

    def pages(self, prefix: str, delimiter: str = "", limit: int = BATCH) -> Iterator[Page]:
        """The listing of what begins with `prefix`, a request for each 1,000 entries."""
        fields: dict[str, Any] = {"Bucket": self.name, "Prefix": prefix, "MaxKeys": limit}
        if delimiter:
            fields["Delimiter"] = delimiter
        while True:
            with s3_errors(self.address(prefix)):
                answer: dict[str, Any] = dict(self.client.list_objects_v2(**fields))
            yield _page(answer)
            token = answer.get("NextContinuationToken")
            if not answer.get("IsTruncated") or not token:
                return
            fields["ContinuationToken"] = token

    def entries(self, prefix: str) -> Iterator[Entry]:
        """All objects whose keys begin with `prefix`."""
        return itertools.chain.from_iterable(page.entries for page in self.pages(prefix))

    def holds(self, prefix: str) -> bool:
        """Whether there is a key that begins with `prefix`; one request."""
        return bool(next(self.pages(prefix, limit=1)))

    def shows(self, prefix: str) -> bool:
        """As `holds`, and also true for a folder that the server keeps after its last key."""
        return bool(next(self.pages(prefix, delimiter="/", limit=1)))

    def mark(self, key: str) -> None:
        """Store an empty object: a directory's marker."""
        with s3_errors(self.address(key)):
            self.client.put_object(Bucket=self.name, Key=key, Body=b"")

    def delete(self, key: str) -> None:
        """Remove one key; missing is no error."""
        with s3_errors(self.address(key)):
            try:
                self.client.delete_object(Bucket=self.name, Key=key)
            except ClientError as error:
                if not is_missing(error):
                    raise

    def delete_all(self, keys: Iterable[str]) -> dict[str, StoreAccessError]:
        """Remove many keys, a request for each 1,000; what failed, and why."""
        failures: dict[str, StoreAccessError] = {}
        source = iter(keys)
        while batch := list(itertools.islice(source, BATCH)):
            failures |= self._delete_batch(batch)
        return failures

    def _delete_batch(self, keys: list[str]) -> dict[str, StoreAccessError]:
        if len(keys) == 1 or not self._batch_delete:
            return self._delete_singly(keys)
        with s3_errors(self.address("")):
            try:
                answer = self.client.delete_objects(
                    Bucket=self.name,
                    Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True},
                )
            except ClientError as error:
                # 400: XML 1.0 cannot express every key (control characters).
                if not is_unsupported(error) and status_of(error) != 400:
                    raise
                self._batch_delete = not is_unsupported(error)
                return self._delete_singly(keys)
        return {
            failed["Key"]: error_for(failed["Code"], 400, self.address(failed["Key"]))
            for failed in answer.get("Errors", [])
            if failed["Code"] not in MISSING
        }

    def _delete_singly(self, keys: list[str]) -> dict[str, StoreAccessError]:
        failures: dict[str, StoreAccessError] = {}
        for key, done in run_all(self.delete, keys, AT_ONCE):
            error = done.exception()
            if isinstance(error, StoreAccessError):
                failures[key] = error
            elif error is not None:
                raise error
        return failures

    def delete_tree(self, prefix: str) -> dict[str, StoreAccessError]:
        """Remove every key that begins with `prefix`; what failed, and why.

        Requests: a listing and a DeleteObjects for each 1,000 keys, and one listing at the end.
        """
        failures = self.delete_all(entry.key for entry in self.entries(prefix))
        if not failures:
            self.sweep(prefix)
        return failures

    def sweep(self, prefix: str) -> None:
        """Remove the folders that some servers (SeaweedFS, MinIO) keep after their last key."""
        kept = list(self.pages(prefix, delimiter="/"))
        if any(kept):
            for folder in itertools.chain.from_iterable(page.prefixes for page in kept):
                self.sweep(folder)
            self.delete(prefix)


def unquoted(etag: str | None) -> str:
    """An ETag as the Store contract has it."""
    return (etag or "").removeprefix("W/").strip('"')


def _page(answer: dict[str, Any]) -> Page:
    return Page(
        [
            Entry(
                entry["Key"],
                entry["Size"],
                entry["LastModified"].timestamp(),
                unquoted(entry.get("ETag")),
            )
            for entry in answer.get("Contents", [])
        ],
        [prefix["Prefix"] for prefix in answer.get("CommonPrefixes", [])],
    )

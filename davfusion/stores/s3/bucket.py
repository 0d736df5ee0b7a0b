"""One bucket by keys: the requests S3 knows, in the fewest calls, with no notion of paths."""

import copy
import itertools
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from davfusion.stores.parallel import run_all
from davfusion.stores.retry import AnyEffort, once
from davfusion.stores.s3.client import Connection, is_aws
from davfusion.stores.s3.errors import (
    MISSING,
    error_for,
    is_missing,
    is_transient,
    is_unsupported,
    s3_errors,
    status_of,
)
from davfusion.stores.s3.listing import Entry, Page, folders_below, is_possible
from davfusion.stores.s3.pages import page_of
from davfusion.stores.store import StoreAccessError, TransientStoreError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BATCH: Final = 1000
"""Keys of one ListObjectsV2 or DeleteObjects, the most S3 takes."""
AT_ONCE: Final = 16
"""Requests under way for one operation on many keys."""


Head = dict[str, Any]
Failures = dict[str, StoreAccessError]
"""By key."""


@dataclass
class Abilities:
    """What the service has not refused so far."""

    batch_delete: bool = True
    server_side_copy: bool = True


class Bucket:
    """The keys of one bucket; errors are those of the Store contract.

    Every request is one call of `effort`; `batch` is how many keys one ListObjectsV2 or
    DeleteObjects is about.
    """

    def __init__(self, name: str, connection: Connection, batch: int = BATCH) -> None:
        self.name = name
        self.connection = connection
        self.batch = batch
        self.effort: AnyEffort = once
        self.abilities = Abilities()

    def trying(self, effort: AnyEffort) -> "Bucket":
        """This bucket, with another `effort`."""
        bucket = copy.copy(self)
        bucket.effort = effort
        return bucket

    @property
    def client(self) -> "S3Client":
        """The client of this process."""
        return self.connection.client

    def address(self, key: str) -> str:
        """How messages name a key."""
        return f"s3://{self.name}/{key}"

    def head(self, key: str) -> Head | None:
        """What S3 knows of an object without its content; None if it is not there."""
        return self.effort(self._head, key)

    def _head(self, key: str) -> Head | None:
        if not is_possible(key):  # asked for it, AWS answers 400
            return None
        with s3_errors(self.address(key)):
            try:
                return dict(self.client.head_object(Bucket=self.name, Key=key))
            except ClientError as error:
                if is_missing(error):
                    return None
                raise

    def pages(self, prefix: str, delimiter: str = "") -> Iterator[Page]:
        """The listing of what begins with `prefix`, a request for each batch of entries.

        One page is fetched while the one before is worked off.
        """
        fields = self._listing(prefix, delimiter, self.batch)
        page = self.effort(self._list, fields)
        while page.following:
            fields = fields | {"ContinuationToken": page.following}
            following = self.connection.pool.submit(self.effort, self._list, fields)
            try:
                yield page
            except GeneratorExit:
                following.cancel()
                raise
            page = following.result()
        yield page

    def first(self, prefix: str, delimiter: str = "", limit: int | None = None) -> Page:
        """The beginning of that listing; one request."""
        return self.effort(self._list, self._listing(prefix, delimiter, limit or self.batch))

    def _listing(self, prefix: str, delimiter: str, limit: int) -> dict[str, Any]:
        fields = {"Bucket": self.name, "Prefix": prefix, "MaxKeys": limit}
        return fields | ({"Delimiter": delimiter} if delimiter else {})

    def _list(self, fields: dict[str, Any]) -> Page:
        if not is_possible(fields["Prefix"]):
            return Page()
        with s3_errors(self.address(fields["Prefix"])):
            return page_of(self.client.list_objects_v2(**fields))

    def entries(self, prefix: str) -> Iterator[Entry]:
        """All objects whose keys begin with `prefix`."""
        return itertools.chain.from_iterable(page.entries for page in self.pages(prefix))

    def holds(self, prefix: str) -> bool:
        """Whether there is a key that begins with `prefix`; one request."""
        return bool(self.first(prefix, limit=1))

    def shows(self, prefix: str) -> bool:
        """As `holds`, and also true for a folder that the server keeps after its last key."""
        return bool(self.first(prefix, "/", limit=1))

    def mark(self, key: str) -> None:
        """Store an empty object: a directory's marker."""
        self.effort(self._mark, key)

    def _mark(self, key: str) -> None:
        with s3_errors(self.address(key)):
            self.client.put_object(Bucket=self.name, Key=key, Body=b"")

    def keep(self, folder: str) -> None:
        """As `mark`, for a directory that is there by other keys."""
        try:
            self.mark(folder)
        except StoreAccessError as error:
            # SeaweedFS refuses a marker beside a file of the same name; the file shows then.
            if error.status != 409:
                raise

    def delete(self, key: str) -> None:
        """Remove one key; missing is no error."""
        self.effort(self._delete, key)

    def _delete(self, key: str) -> None:
        with s3_errors(self.address(key)):
            try:
                self.client.delete_object(Bucket=self.name, Key=key)
            except ClientError as error:
                if not is_missing(error):
                    raise

    def delete_all(self, keys: Iterable[str]) -> Failures:
        """Remove many keys, a request for each batch; what failed, and why."""
        failures: Failures = {}
        source = filter(is_possible, keys)  # of another, AWS would answer 400
        while batch := list(itertools.islice(source, self.batch)):
            failures |= self._delete_batch(batch)
        return failures

    def _delete_batch(self, keys: list[str]) -> Failures:
        left = keys
        failures: Failures = {}

        def delete_left() -> None:
            nonlocal left
            failed = self._delete_once(left)
            left = [key for key in left if isinstance(failed.get(key), TransientStoreError)]
            failures.update({key: error for key, error in failed.items() if key not in left})
            if left:
                raise failed[left[0]]

        try:
            self.effort(delete_left)
        except StoreAccessError as error:
            failures |= dict.fromkeys(left, error)
        return failures

    def _delete_once(self, keys: list[str]) -> Failures:
        if len(keys) == 1 or not self.abilities.batch_delete:
            return self._delete_singly(keys)
        with s3_errors(self.address("")):
            try:
                answer = self.client.delete_objects(
                    Bucket=self.name,
                    Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True},
                )
            except ClientError as error:
                # 400: XML 1.0 cannot express every key (control characters).
                if not is_unsupported(error) and (status_of(error) != 400 or is_transient(error)):
                    raise
                self.abilities.batch_delete = not is_unsupported(error)
                return self._delete_singly(keys)
        return {
            failed["Key"]: error_for(failed["Code"], 400, self.address(failed["Key"]))
            for failed in answer.get("Errors", [])
            if failed["Code"] not in MISSING
        }

    def _delete_singly(self, keys: list[str]) -> Failures:
        failures: Failures = {}
        for key, done in run_all(self._delete, keys, AT_ONCE):
            error = done.exception()
            if isinstance(error, StoreAccessError):
                failures[key] = error
            elif error is not None:
                raise error
        return failures

    def delete_upwards(self, keys: Iterable[str]) -> Failures:
        """As delete_all, a folder right after the last key in it.

        So SeaweedFS keeps no folder, which some listings show and others do not, should this be
        all that happens.
        """
        return self.delete_all(sorted(keys, reverse=True))

    def kept_folders(self, prefix: str, keys: Collection[str]) -> set[str]:
        """Folders at and below `prefix` that the server may keep when `keys` in them have gone.

        SeaweedFS and MinIO do; AWS does not, and in a bucket with versions it would note each as
        deleted.
        """
        if not keys or is_aws(self.client.meta.endpoint_url):
            return set()
        return {prefix} | folders_below(prefix, keys)

    def delete_tree(self, prefix: str) -> Failures:
        """Remove every key that begins with `prefix`; what failed, and why.

        Requests: a listing and a DeleteObjects for each batch of keys, and one listing at the end.
        """
        failures: Failures = {}
        try:
            for page in self.pages(prefix):
                keys = {entry.key for entry in page.entries}
                failures |= self.delete_upwards(keys | self.kept_folders(prefix, keys))
            if not failures:
                self.sweep(prefix)
        except StoreAccessError as error:
            failures[prefix] = error
        return failures

    def sweep(self, prefix: str) -> None:
        """Remove the folders that some servers (SeaweedFS, MinIO) keep after their last key."""
        kept = list(self.pages(prefix, delimiter="/"))
        if any(kept):
            for folder in itertools.chain.from_iterable(page.prefixes for page in kept):
                self.sweep(folder)
            self.delete(prefix)

"""Conditional writes on servers that do them, ignore them, refuse them or spell them otherwise."""

import threading
from collections.abc import Callable
from typing import Final, TypeVar
from uuid import uuid4

from botocore.exceptions import ClientError

from davfusion.stores.s3.bucket import Bucket
from davfusion.stores.s3.errors import is_missing, is_stale, is_unsupported, s3_errors, status_of
from davfusion.stores.s3.listing import PROBE
from davfusion.stores.s3.pages import unquoted
from davfusion.stores.store import ABSENT, ConflictError

R = TypeVar("R")
Condition = dict[str, str]

_NO_ETAG: Final = "0" * 32


class Conditions:
    """Writes that are done only over a known version.

    Before the first write of a kind (over a version, or over nothing) the server is asked with a
    throw-away key below `prefix` whether it heeds the condition: some ignore it, which would lose
    data, and some answer 501. Where it does not, the version is compared just before the write.
    What a probe that failed has left is removed by the next one.
    """

    def __init__(self, bucket: Bucket, prefix: str) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._lock = threading.Lock()
        self._heeded: dict[str, bool] = {}
        self._left: list[str] = []
        """Throw-away keys that may be there."""
        self._bare = False

    @property
    def are_heeded(self) -> bool:
        """Whether this server is known to heed both kinds of condition."""
        return len(self._heeded) == 2 and all(self._heeded.values())

    def probe(self) -> None:
        """Ask the server now instead of at the first conditional write."""
        for if_etag in (ABSENT, _NO_ETAG):
            self._is_heeded(_condition(if_etag, bare=False))

    def write(self, key: str, if_etag: str | None, send: Callable[[Condition], R]) -> R:
        """send(condition), for the condition that holds `if_etag` in this server's spelling.

        Raises ConflictError if the stored version is another.
        """
        if if_etag is None:
            return send({})
        if not self._is_heeded(_condition(if_etag, bare=False)):
            self.require(key, if_etag)
            return send({})
        try:
            return send(_condition(if_etag, self._bare))
        except ClientError as error:
            if not _is_conflict(error):
                raise
            self.require(key, if_etag)
        # The version is right after all: some servers compare If-Match without its quotes.
        self._bare = not self._bare
        return send(_condition(if_etag, self._bare))

    def require(self, key: str, if_etag: str | None) -> None:
        """Raise ConflictError if another version than `if_etag` is stored now."""
        if if_etag is None:
            return
        head = self._bucket.head(key)
        stored = ABSENT if head is None else unquoted(head["ETag"])
        if stored != if_etag:
            wanted = f"version {if_etag}" if if_etag else "absent"
            raise ConflictError(f"{self._bucket.address(key)} is not {wanted}")

    def _is_heeded(self, condition: Condition) -> bool:
        (kind,) = condition
        with self._lock:
            if kind not in self._heeded:
                self._heeded[kind] = self._probe(kind)
            return self._heeded[kind]

    def _probe(self, kind: str) -> bool:
        key = f"{self._prefix}{PROBE}{uuid4().hex}"
        impossible = _condition(ABSENT if kind == "IfNoneMatch" else _NO_ETAG, bare=False)
        self._left.append(key)
        if kind == "IfNoneMatch":
            self._bucket.mark(key)
        refused = False
        try:
            with s3_errors(self._bucket.address(key)):
                refused = self._refuses(key, impossible)
        finally:
            if kind == "IfMatch" and refused:
                self._left.remove(key)
            while self._left:
                self._bucket.delete(self._left[-1])
                self._left.pop()
        return refused

    def _refuses(self, key: str, impossible: dict[str, str]) -> bool:
        """Whether the server refuses a write whose condition cannot hold."""
        try:
            self._bucket.client.put_object(
                Bucket=self._bucket.name,
                Key=key,
                Body=b"",
                **impossible,  # type: ignore[arg-type]
            )
        except ClientError as error:
            if is_unsupported(error) or status_of(error) == 400:
                return False
            if _is_conflict(error):
                return True
            raise
        return False


def _is_conflict(error: ClientError) -> bool:
    """A missing key under If-Match is answered with 404 by AWS, with 412 by others."""
    return is_stale(error) or is_missing(error)


def _condition(if_etag: str, bare: bool) -> Condition:
    if if_etag == ABSENT:
        return {"IfNoneMatch": "*"}
    return {"IfMatch": if_etag if bare else f'"{if_etag}"'}

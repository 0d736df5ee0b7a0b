"""The digest that clients and the spool know a content by, in hex; its length tells which it is.

MD5 is what S3 knows a file by that is stored in one part. What is large is stored in parts, and
known by something else there; so it takes SHA-256, which processors compute twice as fast.
"""

import hashlib
import threading
from collections.abc import Iterable
from queue import Queue
from typing import TYPE_CHECKING, Final, Self

from davfusion.cache.pending import LARGE_FROM
from davfusion.stores.store import COPY_BUFFER, InterruptEvent, ReadableStream
from davfusion.stores.transfer import blocks

if TYPE_CHECKING:
    from hashlib import _Hash

_AHEAD: Final = 8
"""Blocks that a digest may lag behind."""
_SHA256_LENGTH: Final = 64


def of_size(size: int | None) -> "_Hash":
    """The digest for a content of so many bytes; None: nobody knows yet."""
    is_large = size is not None and size >= LARGE_FROM
    return hashlib.sha256() if is_large else hashlib.md5(usedforsecurity=False)


def like(digest: str) -> "_Hash":
    """The digest to compare with one."""
    is_sha = len(digest) == _SHA256_LENGTH
    return hashlib.sha256() if is_sha else hashlib.md5(usedforsecurity=False)


def matches(
    content: ReadableStream, digest: str, interrupt_event: InterruptEvent | None = None
) -> bool:
    """Whether that is the digest of all that is left."""
    return matching(content, [digest], interrupt_event) == digest


def matching(
    content: ReadableStream, digests: Iterable[str], interrupt_event: InterruptEvent | None = None
) -> str | None:
    """Which of the digests is that of all that is left."""
    wanted = list(digests)
    found = {len(digest): like(digest) for digest in wanted}
    for block in blocks(content, interrupt_event):
        for each in found.values():
            each.update(block)
    return next((each for each in wanted if found[len(each)].hexdigest() == each), None)


class Beside:
    """Computes a digest, in a thread of its own where more than one block comes.

    The digest is complete when this has been left.
    """

    def __init__(self, digest: "_Hash") -> None:
        self._digest = digest
        self._blocks: Queue[bytes | None] = Queue(_AHEAD)
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._thread is not None:
            self._blocks.put(None)
            self._thread.join()

    def update(self, block: bytes) -> None:
        """As of hashlib."""
        if self._thread is None and len(block) < COPY_BUFFER:
            self._digest.update(block)
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="digest", daemon=True)
            self._thread.start()
        self._blocks.put(block)

    def _run(self) -> None:
        while (block := self._blocks.get()) is not None:
            self._digest.update(block)

"""The digest that clients and the spool know a content by; its beginning tells which it is.

MD5, in hex, is what S3 knows a file by that is stored in one part. What is large is stored in
parts, and known by something else there; so it takes XXH3, which costs next to nothing. Both tell
versions apart and find what has rotted; neither stands against who makes two contents alike.
"""

import hashlib
from collections.abc import Iterable
from typing import Final, Protocol

from xxhash import xxh3_128

from davfusion.cache.pending import LARGE_FROM
from davfusion.stores.store import InterruptEvent, ReadableStream
from davfusion.stores.transfer import blocks

_XXH3: Final = "xxh3-"


class Digest(Protocol):
    """hashlib's interface, as far as it is used here."""

    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


class _Xxh3:
    """XXH3 of 128 bits, which in hex alone would look like MD5."""

    def __init__(self) -> None:
        self._hash = xxh3_128()
        self.update = self._hash.update

    def hexdigest(self) -> str:
        return _XXH3 + self._hash.hexdigest()


def _md5() -> Digest:
    return hashlib.md5(usedforsecurity=False)


def of_size(size: int | None) -> Digest:
    """The digest for a content of so many bytes; None: nobody knows yet."""
    return _Xxh3() if size is not None and size >= LARGE_FROM else _md5()


def like(digest: str) -> Digest:
    """The digest to compare with one."""
    return _Xxh3() if digest.startswith(_XXH3) else _md5()


def matches(
    content: ReadableStream, digest: str, interrupt_event: InterruptEvent | None = None
) -> bool:
    """Whether that is the digest of all that is left."""
    return matching(content, [digest], interrupt_event) == digest


def matching(
    content: ReadableStream, digests: Iterable[str], interrupt_event: InterruptEvent | None = None
) -> str | None:
    """Which of the digests is that of all that is left."""
    wanted = set(digests)
    found = {type(digest): digest for digest in map(like, wanted)}.values()
    for block in blocks(content, interrupt_event):
        for each in found:
            each.update(block)
    return next((each for each in (f.hexdigest() for f in found) if each in wanted), None)

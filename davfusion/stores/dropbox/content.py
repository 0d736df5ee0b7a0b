"""What is sent, and Dropbox's digest of it: dropbox.com/developers/reference/content-hash."""

from hashlib import sha256
from typing import Any, Final

from davfusion.stores.source import Slice, Source
from davfusion.stores.store import TransientStoreError

MIB: Final = 1024 * 1024
BLOCK: Final = 4 * MIB
"""Bytes of which content_hash takes a digest each, and of which parts are multiples."""


def block_digests(data: bytes) -> bytes:
    """The digests of all blocks, of which content_hash() is one."""
    view = memoryview(data)
    starts = range(0, len(data), BLOCK)
    return b"".join(sha256(view[start : start + BLOCK]).digest() for start in starts)


def content_hash(digests: bytes) -> str:
    """Dropbox's content_hash of the content with these block_digests."""
    return sha256(digests).hexdigest()


def source_hash(source: Source) -> str:
    """Dropbox's content_hash of all of `source`, read block by block."""
    digests = bytearray()
    for start in range(0, source.size, BLOCK):
        digest = sha256()
        for piece in Slice(source, start, min(BLOCK, source.size - start)).blocks():
            digest.update(piece)
        digests += digest.digest()
    return content_hash(bytes(digests))


def read_all(source: Source, start: int, length: int) -> bytes:
    """`length` bytes, in memory at once."""
    data = bytearray()
    while len(data) < length:
        data += source.read_at(start + len(data), length - len(data))
    return bytes(data)


def verified(stored: Any, digest: str) -> Any:
    """`stored`, if its content is what was sent."""
    if stored.content_hash != digest:
        what = f"dropbox:{stored.path_display}"
        raise TransientStoreError(f"{what}: Dropbox stored other bytes than were sent")
    return stored

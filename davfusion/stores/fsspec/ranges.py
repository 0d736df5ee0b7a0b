"""Reading a file by ranges, all of one version."""

from typing import Protocol, Self

from davfusion.stores.store import (
    ConflictError,
    Metadata,
    NoSuchFilesytemObjectError,
    TransientStoreError,
)

WINDOW = 8 * 1024 * 1024
"""Bytes asked for at a time."""


class RangedFiles(Protocol):
    """What Ranges asks a service."""

    def stat(self, path: str) -> Metadata: ...
    def read_range(self, path: str, start: int, end: int) -> bytes: ...


class Ranges:
    """A stream of ranges. After each, a stat tells whether it was still the same version.

    A version that stands before and after is the one that was read.
    """

    def __init__(
        self, files: RangedFiles, path: str, offset: int, length: int | None, etag: str | None
    ) -> None:
        self._files = files
        self._path = path
        self._length = length
        self._at = offset
        self._read = b""
        self._etag = etag
        self._begin(files.stat(path))
        self._may_begin_again = etag is None

    def read(self, size: int = -1, /) -> bytes:
        if size < 0:
            return b"".join(iter(lambda: self.read(WINDOW), b""))
        if not self._read and self._at < self._end:
            self._read = self._next()
        data, self._read = self._read[:size], self._read[size:]
        return data

    def close(self) -> None:
        self._read = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self, found: Metadata) -> None:
        if found["is_dir"]:
            raise NoSuchFilesytemObjectError(f"{self._path} is a directory")
        if self._etag not in (None, found.get("etag")):
            raise ConflictError(f"{self._path} is no longer version {self._etag}")
        self._version = found.get("etag")
        size = found["bytes"]
        self._end = size if self._length is None else min(self._at + self._length, size)

    def _next(self) -> bytes:
        while True:
            end = min(self._at + WINDOW, self._end)
            data = self._files.read_range(self._path, self._at, end)
            found = self._files.stat(self._path)
            if found.get("etag") == self._version:
                break
            if not self._may_begin_again:
                raise ConflictError(f"{self._path} is no longer version {self._version}")
            self._begin(found)
        if len(data) != end - self._at:
            raise TransientStoreError(f"{self._path}: {len(data)} of {end - self._at} bytes came")
        self._at = end
        self._may_begin_again = False
        return data

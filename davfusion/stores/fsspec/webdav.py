"""A DAV server as a Backend (RFC 4918)."""

import os
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, ClassVar, Final, Self

import requests

from davfusion.stores import paths
from davfusion.stores.errors import (
    AlreadyExistsError,
    ConflictError,
    NoSuchFilesytemObjectError,
    StoreAccessError,
    TransientStoreError,
)
from davfusion.stores.fsspec import multistatus
from davfusion.stores.fsspec.backend import unquoted
from davfusion.stores.fsspec.dav_session import DavSession
from davfusion.stores.fsspec.errors import from_source
from davfusion.stores.fsspec.folders import FolderBackend
from davfusion.stores.fsspec.multistatus import Entry
from davfusion.stores.fsspec.ranges import WINDOW, Ranges
from davfusion.stores.source import exactly
from davfusion.stores.store import (
    Features,
    InterruptEvent,
    Metadata,
    ReadableStream,
    SourceStream,
    seekable,
)
from davfusion.stores.streams import size_of

_ACCEPTED: Final = "accepted"
_CARELESS: Final = ("rclone/", "WsgiDAV/")
"""Servers that have half of a file, and the old one no more, when a PUT breaks off."""


class DavBackend(FolderBackend):
    """Requests to one server, of any number of threads."""

    features: ClassVar[Features] = Features(
        server_side_copy=True,
        server_side_move=True,
        atomic_replace=True,
        ranged_read=True,
        modified_times=True,
    )
    shared: ClassVar[bool] = True
    uploads: ClassVar[bool] = True
    removes_trees: ClassVar[bool] = True
    filesystem_class: ClassVar[type | None] = DavSession
    options: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, filesystem: DavSession) -> None:
        super().__init__(filesystem)
        self._session = filesystem
        self.takes_chunks: bool | None = None
        """Whether it stores a body whose length it is not told; None until that has been tried."""

    def close(self) -> None:
        self._session.close()

    @property
    def replaces_whole(self) -> bool:
        """Whether a PUT that breaks off leaves what was there; known once anything was asked."""
        return not self._session.server.startswith(_CARELESS)

    def stat(self, path: str) -> Metadata:
        return self.look(path).metadata

    def look(self, path: str) -> Entry:
        """What the server says of `path`."""
        return self._propfind(path, "0")[0]

    def listing(self, directory: str) -> dict[str, Metadata]:
        found = self._propfind(directory.rstrip("/") + "/", "1")
        own = directory.rstrip("/")
        if any(entry.path == own and not entry.metadata["is_dir"] for entry in found):
            raise NoSuchFilesytemObjectError(f"{directory} is a file")
        return {
            name: entry.metadata
            for entry in found
            if entry.path != own and paths.is_valid_name(name := paths.name(entry.path))
        }

    def _propfind(self, path: str, depth: str) -> list[Entry]:
        headers = {"Depth": depth, "Content-Type": "application/xml"}
        try:
            with self._session.asked(
                "PROPFIND", path, headers=headers, body=multistatus.PROPFIND, accepted=_is_207
            ) as answer:
                found = list(multistatus.entries(answer.content))
        except StoreAccessError as error:
            # Apache says 400 of what lies below a file, and of a file with a slash.
            above = paths.parent(path)
            if error.status == 400 and above != path and not self._is_directory(above):
                raise NoSuchFilesytemObjectError(path) from error
            raise
        if not found:  # it would pass for an empty folder
            raise TransientStoreError(f"PROPFIND {path}: an answer about nothing")
        return found

    def _is_directory(self, path: str) -> bool:
        try:
            return self.stat(path)["is_dir"]
        except NoSuchFilesytemObjectError:
            return False

    def open(self, path: str, offset: int, length: int | None, etag: str | None) -> ReadableStream:
        """One GET, whose ETag tells the version; a server that sends none is asked besides."""
        end = "" if length is None else offset + max(length, 1) - 1
        answer = self._session.send("GET", path, {"Range": f"bytes={offset}-{end}"})
        found = unquoted(answer.headers.get("ETag", ""))
        if not found or length == 0 or not _holds(answer, offset, length):
            answer.close()
            return Ranges(self, path, offset, length, etag)
        if etag not in (None, found):
            answer.close()
            raise ConflictError(f"{path} is no longer version {etag}")
        return _Body(answer)

    def read_range(self, path: str, start: int, end: int) -> bytes:
        """A server without ranges sends all from the beginning."""
        headers = {"Range": f"bytes={start}-{end - 1}"}
        with self._session.asked("GET", path, headers=headers) as answer:
            stream = _Body(answer)
            if answer.status_code != 206:
                for _ in range(start // WINDOW):
                    stream.read(WINDOW)
                stream.read(start % WINDOW)
            return stream.read(end - start)

    def upload(self, path: str, body: "Body", headers: Mapping[str, str]) -> bool:
        """PUT, in chunks if the length is not told; whether a time in `headers` is kept."""
        content: Any = body
        if not body.size:  # `requests` would take it for none
            content = iter(body) if body.size is None else b"".join(body)
        try:
            with self._session.asked("PUT", path, headers=headers, body=content) as answer:
                return answer.headers.get("X-OC-Mtime", "") == _ACCEPTED
        except StoreAccessError as error:
            raise _or_missing_parent(error, path) from None

    def set_modified(self, path: str, when: float) -> None:
        self.date(path, when, self.stat(path)["bytes"])

    def date(self, path: str, when: float, size: int) -> None:
        """Keep a time beside a file of `size` bytes, where the server has properties of others."""
        self._proppatch(path, multistatus.modified_patch(when, size))

    def undate(self, path: str) -> None:
        """Forget that time."""
        self._proppatch(path, multistatus.UNDATING)

    def _proppatch(self, path: str, body: bytes) -> None:
        headers = {"Content-Type": "application/xml"}
        with self._session.asked(
            "PROPPATCH", path, headers=headers, body=body, accepted=_is_kept_or_unknown
        ):
            return

    def copy(self, src: str, dst: str) -> None:
        self._transfer("COPY", src, dst)

    def rename(self, src: str, dst: str) -> None:
        self._transfer("MOVE", src, dst)

    def _transfer(self, method: str, src: str, dst: str) -> None:
        headers = {"Destination": self._session.url(dst), "Overwrite": "T"}
        try:
            with self._session.asked(method, src, headers=headers, accepted=_is_done):
                return
        except StoreAccessError as error:
            # Apache says 500 in place of 409.
            if error.status == 503 and not self._is_directory(paths.parent(dst)):
                raise NoSuchFilesytemObjectError(paths.parent(dst)) from error
            raise _or_missing_parent(error, dst) from None

    def make_directory(self, path: str) -> None:
        try:
            with self._session.asked("MKCOL", path + "/"):
                return
        except StoreAccessError as error:
            if error.status == 405:
                raise AlreadyExistsError(f"{path} exists") from error
            raise _or_missing_parent(error, path) from None

    def remove(self, path: str) -> None:
        with self._session.asked("DELETE", path, accepted=_is_done):
            return

    def space(self) -> tuple[int | None, int | None]:
        with self._session.asked(
            "PROPFIND", "/", headers={"Depth": "0"}, body=multistatus.QUOTA, accepted=_is_207
        ) as answer:
            return multistatus.quota(answer.content)


class Body:
    """What is left of a source, as `requests` takes it: in blocks, with its length if that is told.

    Where the source can seek, each use of it begins anew.
    """

    def __init__(
        self,
        source: SourceStream,
        interrupt_event: InterruptEvent | None = None,
        *,
        is_told: bool = True,
    ) -> None:
        self._source = source
        self._interrupt_event = interrupt_event
        self._file = seekable(source)
        self.sent = 0
        """Bytes."""
        size = size_of(source)
        if self._file is not None:
            self._start = self._file.tell()
            size = self._file.seek(0, os.SEEK_END) - self._start
        self.size = size if is_told else None

    @property
    def can_be_repeated(self) -> bool:
        return self._file is not None

    def __len__(self) -> int:
        return self.size or 0

    def __iter__(self) -> Iterator[bytes]:
        self.sent = 0
        if self._file is not None:
            self._file.seek(self._start)
        for block in from_source(exactly(self._source, self.size, self._interrupt_event)):
            self.sent += len(block)
            yield block


class _Body:
    """The body of an answer; one that breaks off raises."""

    def __init__(self, answer: requests.Response) -> None:
        self._answer = answer
        self._raw: Any = answer.raw

    def read(self, size: int = -1, /) -> bytes:
        if size < 0:
            return b"".join(iter(partial(self.read, WINDOW), b""))
        data: bytes = self._raw.read(size)
        return data

    def close(self) -> None:
        self._answer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _holds(answer: requests.Response, offset: int, length: int | None) -> bool:
    """Whether that is the range, or all where all was wanted, of a server without ranges."""
    if answer.status_code == 206:
        return answer.headers.get("Content-Range", "").startswith(f"bytes {offset}-")
    return answer.status_code == 200 and offset == 0 and length is None


def _or_missing_parent(error: StoreAccessError, path: str) -> StoreAccessError:
    """What `error` of creating `path` means: by 409 its folder is missing (RFC 4918, 9.7.1)."""
    if error.status != 409:
        return error
    return NoSuchFilesytemObjectError(f"{paths.parent(path)}: {error}")


def _is_kept_or_unknown(status: int) -> bool:
    """Some servers have no properties of others, and say so in one of these ways."""
    return 200 <= status < 300 or status in (403, 405, 501)


def _is_207(status: int) -> bool:
    return status == 207


def _is_done(status: int) -> bool:
    """207 says that parts of it failed (RFC 4918, 9.6.1 and 9.8.5)."""
    return 200 <= status < 300 and status != 207

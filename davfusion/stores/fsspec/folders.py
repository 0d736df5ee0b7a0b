"""Services with folders of files, by fsspec's common interface: its local files."""

from collections.abc import Mapping
from contextlib import ExitStack, closing
from typing import Any, ClassVar

from davfusion.stores.fsspec.backend import OWN_INSTANCE, Backend, Info, require_version, version_of
from davfusion.stores.store import Features, ReadableStream

FOLDER_FEATURES = Features(
    server_side_move=True,
    atomic_move=True,
    atomic_replace=True,
    ranged_read=True,
    modified_times=True,
)


class FolderBackend(Backend):
    """Files that are written in place and renamed; one connection for each thread."""

    features: ClassVar[Features] = FOLDER_FEATURES
    renames: ClassVar[bool] = True
    shared: ClassVar[bool] = False
    keeps_folders: ClassVar[bool] = True
    options: ClassVar[Mapping[str, Any]] = OWN_INSTANCE

    def open(self, path: str, offset: int, length: int | None, etag: str | None) -> ReadableStream:
        """An open file stays the version it was; that is what stands there before and after."""
        before, after = self.stat(path), None
        while before != after:
            require_version(before, path, etag)
            with ExitStack() as stack:
                file = stack.enter_context(closing(self.filesystem.open(path, "rb")))
                before, after = self.stat(path), before
                if before == after:
                    stack.pop_all()
        return Part(file, offset, _end(before["bytes"], offset, length))

    def remove_directory(self, path: str) -> None:
        self.filesystem.rmdir(path)

    def _version(self, info: Info) -> str:
        identity = info.get("ino", "")
        return version_of(int(info["size"]), self._modified(info), identity)


class LocalBackend(FolderBackend):
    """fsspec's local files: what LocalStore does better, for comparison."""

    def set_modified(self, path: str, when: float) -> None:
        import os  # noqa: PLC0415

        os.utime(path, (when, when))


class Part:
    """The bytes of an open file from `offset` to before `end`."""

    def __init__(self, file: Any, offset: int, end: int) -> None:
        self._file = file
        self._left = max(0, end - offset)
        if self._left:
            file.seek(offset)

    def read(self, size: int = -1, /) -> bytes:
        wanted = self._left if size < 0 else min(size, self._left)
        data: bytes = self._file.read(wanted)
        if len(data) < wanted:
            raise EOFError(f"{len(data)} of {wanted} bytes came")
        self._left -= len(data)
        return data

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> "Part":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _end(size: int, offset: int, length: int | None) -> int:
    return size if length is None else min(size, offset + length)

"""An object store as fsspec's classes for them are: keys without folders, and no times to set."""

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
from fsspec import AbstractFileSystem


class FlatFileSystem(AbstractFileSystem):  # type: ignore[misc] # fsspec has no types
    """Objects in memory, all of the time at which the first was stored."""

    protocol = "flat"
    root_marker = ""

    def __init__(self, objects: dict[str, bytes], **options: Any) -> None:
        super().__init__(**options)
        self._objects = objects
        self._now = time.time()

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        content = self._objects.get(path)
        if content is not None:
            etag = f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'
            size = len(content)
            return {
                "name": path,
                "type": "file",
                "size": size,
                "ETag": etag,
                "updated": self._now,
            }
        if next(self._below(path), None) is None:
            raise FileNotFoundError(path)
        return {"name": path, "type": "directory", "size": 0}

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        top = path + "/" if path else ""
        names = {top + key[len(top) :].split("/")[0] for key in self._below(path)}
        infos = [self.info(name) for name in sorted(names)] or [self.info(path)]
        return infos if detail else [info["name"] for info in infos]

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **_: Any
    ) -> bytes:
        return self._object(path)[start:end]

    def put_file(self, lpath: str, rpath: str, **_: Any) -> None:
        self._objects[rpath] = Path(lpath).read_bytes()

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        self._objects[path2] = self._object(path1)

    def rm_file(self, path: str) -> None:
        if self._objects.pop(path, None) is None:
            raise FileNotFoundError(path)

    def _object(self, path: str) -> bytes:
        try:
            return self._objects[path]
        except KeyError:
            raise FileNotFoundError(path) from None

    def _below(self, path: str) -> Iterator[str]:
        top = path + "/" if path else ""
        return (key for key in list(self._objects) if key.startswith(top))


fsspec.register_implementation("flat", FlatFileSystem, clobber=True)

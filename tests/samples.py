"""Names, contents and trees that test a store, and the shortest ways to store and see them."""

import io
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from davfusion.stores import paths
from davfusion.stores.store import Metadata, ReadableStream, Store

BAD_PATHS = [
    "",
    "a",
    "a/b",
    "//",
    "/a//b",
    "/a/",
    "/../x",
    "/a/..",
    "/.",
    "/a/./b",
    "/a\0b",
    "/\udc80",
]
NAMES = [
    "plain.txt",
    "a b%41+;#?",
    "き",
    "𠀋",
    "caf\u00e9",
    "cafe\u0301",
    "&<>\"'`$!*|~^[]{}()=@,",
    " leading and trailing ",
    "back\\slash",
    "new\nline",
    "..dots...",
    "-r",
    "x" * 255,
    "é" * 127 + "x",
]
BINARY = bytes(range(256)) * 17
LARGE = BINARY * 512
MTIME = 1_234_567_890.0


class Source:
    """A source that cannot seek, gives its content in pieces and then calls `at_end`."""

    def __init__(self, content: bytes, at_end: Callable[[], None] = lambda: None) -> None:
        self._stream = io.BytesIO(content)
        self._at_end = at_end

    def read(self, size: int = -1, /) -> bytes:
        block = self._stream.read(min(size, 100_000) if size >= 0 else size)
        if self._stream.tell() == len(self._stream.getbuffer()):
            self._at_end()
        return block


class SizedSource(Source):
    """A Source that says how many bytes will come, as a request does."""

    def __init__(
        self, content: bytes, size: int | None = None, at_end: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(content, at_end)
        self.size = len(content) if size is None else size


class SourceError(Exception):
    """What a broken source raises; no store knows it."""


def fail() -> None:
    """The end of a source whose client went away."""
    raise SourceError


def put(store: Store, path: str, content: bytes = b"content", **conditions: str) -> Metadata:
    """Store `content`."""
    return store.store_fileobject(io.BytesIO(content), path, if_etag=conditions.get("if_etag"))


def put_all(store: Store, files: Iterable[str]) -> None:
    """Store a small file under each path, several at once."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda path: put(store, path, path.encode()), files))


def read(store: Store, path: str, offset: int = 0, length: int | None = None) -> bytes:
    """What a stream of that range holds."""
    with store.open_read(path, offset, length) as stream:
        return b"".join(iter(lambda: stream.read(65536), b""))


def drain(stream: ReadableStream, size: int) -> None:
    """Read to the end, so much at once."""
    while stream.read(size):
        continue


def names(store: Store, directory: str) -> set[str]:
    """The names in `directory`."""
    return set(store.get_directory_metadata(directory))


def contents(store: Store, directory: str) -> dict[str, bytes | None]:
    """Path below `directory` -> content of everything there; None for a directory."""
    return {
        path.removeprefix(paths.prefix(directory)): None
        if metadata["is_dir"]
        else store.get_file(path)
        for path, metadata in store.walk_metadata(directory)
    }


TREE: dict[str, bytes | None] = {
    "empty": None,
    "sub": None,
    "sub/file": b"in sub",
    "sub/deep": None,
    "sub/deep/き b%20": b"deep",
    "sub/deep/nothing": b"",
    "top": BINARY,
}


def put_tree(store: Store, directory: str, tree: dict[str, bytes | None] = TREE) -> None:
    """Store `tree` below `directory`."""
    store.create_directory(directory)
    for name, content in tree.items():
        if content is None:
            store.create_directory(paths.join(directory, name))
        else:
            put(store, paths.join(directory, name), content)

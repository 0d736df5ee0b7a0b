"""Pure: what keys mean as files and directories.

A directory shows by a marker (an empty key `name/`, or `name_$folder$` as Hadoop writes), or by
any key below it. A folder shadows a file of the same name, except that `name_$folder$` alone
does not. A key with a segment that can be no name shows the directories above that segment, and
nothing else. No order of keys is relied on: some servers list in tree order.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from davfusion.stores import paths
from davfusion.stores.store import UNDATED_DIRECTORY, InvalidPathValueError, Metadata

FOLDER_SUFFIX: Final = "_$folder$"
PROBE: Final = ".davfusion-probe-"
"""With what the names of throw-away keys begin; listings leave them out."""
LONGEST_KEY: Final = 1024
"""Bytes of UTF-8 (docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html)."""

_log = logging.getLogger(__name__)


class Entry(NamedTuple):
    """One object of a listing."""

    key: str
    size: int
    modified: float
    etag: str


@dataclass(frozen=True)
class Page:
    """One answer of the service: objects, and with a delimiter the prefixes that more lie under."""

    entries: list[Entry] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    following: str | None = None
    """The token by which the next page is asked for; None: there is none."""

    def __bool__(self) -> bool:
        return bool(self.entries or self.prefixes)


@dataclass(frozen=True)
class Keys:
    """Paths of one share <-> keys of its bucket; `prefix` is empty or ends with `/`."""

    prefix: str

    def file(self, path: str) -> str:
        """The key of a file."""
        return self.prefix + path[1:]

    def folder(self, path: str) -> str:
        """The key of a directory's marker, with which every key below it begins."""
        return self.prefix if path == paths.ROOT else f"{self.prefix}{path[1:]}/"

    def require_storable(self, path: str) -> None:
        """InvalidPathValueError where S3 takes no such key, or listings would show something else.

        The slash of a folder's marker counts, for files too.
        """
        if not is_possible(self.folder(path)):
            raise InvalidPathValueError(f"S3 takes no key of more than {LONGEST_KEY} bytes: {path}")
        for name in path.split("/"):
            if name.startswith(PROBE) or name.endswith(FOLDER_SUFFIX):
                raise InvalidPathValueError(f"on S3 that name stands for something else: {name!r}")

    def path(self, key: str) -> str:
        """The path that `key`, of a file or a marker, stands for."""
        relative = key[len(self.prefix) :].removesuffix("/")
        return "/" + (relative.removesuffix(FOLDER_SUFFIX) if relative else "")


def is_possible(key: str) -> bool:
    """Whether there can be a key that is this one or begins with it."""
    return len(key.encode()) <= LONGEST_KEY


def file(entry: Entry) -> Metadata:
    """Metadata of a file, with the time at which it was stored."""
    return Metadata(modified=entry.modified, bytes=entry.size, is_dir=False, etag=entry.etag)


def is_folder_key(entry: Entry) -> bool:
    """Whether this is a `name_$folder$` marker: always empty."""
    return entry.size == 0 and entry.key.endswith(FOLDER_SUFFIX)


def folders_below(prefix: str, keys: Iterable[str]) -> set[str]:
    """The folders below `prefix` that the keys, which begin with it, lie in."""
    start = len(prefix)
    return {key[: end + 1] for key in keys for end in range(start, len(key)) if key[end] == "/"}


class Oddities:
    """Keys that are no paths of ours are passed over, with one warning for each store."""

    def __init__(self) -> None:
        self._told = False

    def is_path(self, key: str, segments: Iterable[str]) -> bool:
        """Whether all `segments` of `key` can be names."""
        if all(map(paths.is_valid_name, segments)):
            return True
        if not self._told:
            self._told = True
            _log.warning("keys that cannot be paths are left out, such as %r", key)
        return False


def children(pages: Iterable[Page], prefix: str, odd: Oddities) -> dict[str, Metadata] | None:
    """Name -> metadata of what lies directly below `prefix`; None: nothing begins with it."""
    files: dict[str, Metadata] = {}
    folders: set[str] = set()
    hinted: set[str] = set()
    seen = prefix == ""
    for page in pages:
        seen = seen or bool(page)
        folders.update(_names(page.prefixes, prefix, odd))
        for entry in page.entries:
            name = entry.key[len(prefix) :]
            if not name or name.startswith(PROBE):
                continue
            if "/" in name:
                folders.update(_names([entry.key], prefix, odd))
            elif is_folder_key(entry):
                hinted.add(name.removesuffix(FOLDER_SUFFIX))
            elif odd.is_path(entry.key, [name]):
                files[name] = file(entry)
    folders |= {name for name in hinted - files.keys() if paths.is_valid_name(name)}
    return files | dict.fromkeys(folders, UNDATED_DIRECTORY) if seen else None


def _names(keys: Iterable[str], prefix: str, odd: Oddities) -> Iterator[str]:
    """The names of the directories directly below `prefix` that `keys` lie in."""
    for key in keys:
        name = key[len(prefix) :].partition("/")[0]
        if odd.is_path(key, [name]):
            yield name


class Walk:
    """Turns a flat listing into paths, in the order that Store.walk_metadata promises.

    Shows what listing directory by directory would, for keys in their own order or in that of
    the tree. Whether a file or a `name_$folder$` shows is known only when no more keys of that
    name can come; the few that this is open for are held back.
    """

    def __init__(self, keys: Keys, top: str, odd: Oddities) -> None:
        self._prefix = keys.folder(top)
        self._top = top
        self._odd = odd
        self._directories: set[str] = set()
        self._held: dict[str, Metadata] = {}

    def page(self, page: Page) -> Iterator[tuple[str, Metadata]]:
        """What `page` adds."""
        for entry in page.entries:
            relative = entry.key[len(self._prefix) :]
            yield from self._settled([name for name in self._held if _is_past(relative, name)])
            yield from self._entry(entry, relative)

    def rest(self) -> Iterator[tuple[str, Metadata]]:
        """What is held back after the last page."""
        return self._settled(list(self._held))

    def _entry(self, entry: Entry, relative: str) -> Iterator[tuple[str, Metadata]]:
        above, _, name = relative.rpartition("/")
        folders = above.split("/") if above or name != relative else []
        for depth, segment in enumerate(folders, 1):
            if not self._odd.is_path(entry.key, [segment]):
                return
            yield from self._directory("/".join(folders[:depth]))
        if name and not name.startswith(PROBE):
            self._hold(entry, relative)

    def _directory(self, relative: str) -> Iterator[tuple[str, Metadata]]:
        if relative not in self._directories:
            self._directories.add(relative)
            self._held.pop(relative, None)
            yield paths.join(self._top, relative), UNDATED_DIRECTORY

    def _hold(self, entry: Entry, relative: str) -> None:
        is_marker = is_folder_key(entry)
        relative = relative.removesuffix(FOLDER_SUFFIX) if is_marker else relative
        name = relative.rpartition("/")[2]
        if relative in self._directories or not self._odd.is_path(entry.key, [name]):
            return
        if is_marker:
            self._held.setdefault(relative, UNDATED_DIRECTORY)
        else:
            self._held[relative] = file(entry)

    def _settled(self, names: list[str]) -> Iterator[tuple[str, Metadata]]:
        for name in sorted(names, key=lambda name: -name.count("/")):
            metadata = self._held.pop(name)
            if metadata["is_dir"]:
                self._directories.add(name)
            yield paths.join(self._top, name), metadata


def _is_past(key: str, name: str) -> bool:
    """Whether nothing of `name` comes after `key`, in order of keys as in order of the tree."""
    above = name[: name.rfind("/") + 1]
    end = name + FOLDER_SUFFIX
    return not key.startswith(above) or (key > end and key.split("/") > end.split("/"))

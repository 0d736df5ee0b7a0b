"""From what a user names - a folder, s3://bucket/prefix, dropbox:/folder - to a Store.

A store's module is imported when it is named, so that a folder needs no SDK.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import urlsplit
from urllib.request import url2pathname

from davfusion.stores.errors import InvalidPathValueError
from davfusion.stores.paths import check_path
from davfusion.stores.store import Store

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):(.*)", re.IGNORECASE | re.DOTALL)
"""At least two letters: `C:` is a drive."""


class TargetError(ValueError):
    """A target that names no store; the message says what would."""


def open_store(
    target: str, options: "Mapping[str, Any] | DataclassInstance | None" = None
) -> Store:
    """The store that `target` names; nothing is sent yet.

    `options` are the keyword arguments of a store that takes some, by name or as a dataclass.
    Raises TargetError, and StoreAccessError for a folder that cannot be used.
    """
    match = _SCHEME.fullmatch(target)
    scheme, rest = (match[1].lower(), match[2]) if match else ("local", target)
    if scheme in SCHEMES:
        return SCHEMES[scheme](rest, _keywords(options))
    return _open_fsspec(scheme, target, options if isinstance(options, Mapping) else {})


def _keywords(options: "Mapping[str, Any] | DataclassInstance | None") -> Mapping[str, Any]:
    if options is None or isinstance(options, Mapping):
        return options or {}
    return asdict(options)


def _open_local(path: str, _: Mapping[str, Any]) -> Store:
    from davfusion.stores.local import LocalStore  # noqa: PLC0415

    if not path:
        raise TargetError("local: needs a folder, as in local:/srv/files")
    return LocalStore(Path(path).expanduser())


def _open_file_url(rest: str, options: Mapping[str, Any]) -> Store:
    parts = urlsplit(rest, allow_fragments=False)
    if parts.netloc not in ("", "localhost"):
        raise TargetError(f"file: names a folder of this machine, not of {parts.netloc}")
    return _open_local(url2pathname(parts.path), options)


def _open_s3(rest: str, options: Mapping[str, Any]) -> Store:
    from davfusion.stores.s3 import S3Store  # noqa: PLC0415

    bucket, _, prefix = rest.removeprefix("//").partition("/")
    if not bucket:
        raise TargetError("s3: needs a bucket, as in s3://bucket/prefix")
    try:
        check_path("/" + prefix.strip("/"))
    except InvalidPathValueError as error:
        raise TargetError(f"s3: the prefix is no path: {error}") from error
    return S3Store(bucket, prefix.strip("/"), **options)


def _open_dropbox(rest: str, options: Mapping[str, Any]) -> Store:
    from davfusion.stores.dropbox import DropboxStore  # noqa: PLC0415

    folder = rest.strip("/")
    try:
        check_path(f"/{folder}")
    except InvalidPathValueError as error:
        raise TargetError(f"dropbox: the folder is no path: {error}") from error
    return DropboxStore(folder, **options)


def _open_memory(rest: str, _: Mapping[str, Any]) -> Store:
    from davfusion.stores.memory import MemoryStore  # noqa: PLC0415

    if rest.strip("/"):
        raise TargetError("memory: takes no path")
    return MemoryStore()


def _open_fsspec(scheme: str, target: str, options: Mapping[str, Any]) -> Store:
    """A store of any scheme that fsspec knows; `options` are the storage options of its class."""
    from fsspec import available_protocols  # noqa: PLC0415

    from davfusion.stores.fsspec import FsspecStore  # noqa: PLC0415

    if scheme not in (*available_protocols(), "webdavs"):
        known = ", ".join(f"{name}:" for name in (*SCHEMES, "ftp", "webdav", "webdavs", *EXTRAS))
        raise TargetError(
            f"no store is called {scheme}: (there are {known} and what else fsspec knows); "
            f"a folder of that name is local:{target}"
        )
    try:
        return FsspecStore(target, **options)
    except ImportError as error:
        cure = f"pip install 'davfusion[{EXTRAS[scheme]}]'" if scheme in EXTRAS else str(error)
        raise TargetError(f"{scheme}: needs a package that is not installed: {cure}") from error
    except (TypeError, ValueError) as error:
        raise TargetError(f"{scheme}: {error}") from error


Opener: TypeAlias = Callable[[str, Mapping[str, Any]], Store]

SCHEMES: Final[Mapping[str, Opener]] = {
    "local": _open_local,
    "file": _open_file_url,
    "s3": _open_s3,
    "dropbox": _open_dropbox,
    "memory": _open_memory,
}

EXTRAS: Final[Mapping[str, str]] = {
    "abfs": "abfs",
    "abfss": "abfs",
    "az": "abfs",
    "gcs": "gcs",
    "gdrive": "gdrive",
    "gs": "gcs",
    "sftp": "sftp",
    "smb": "smb",
    "ssh": "sftp",
}
"""Schemes of fsspec's that need a package, and the extra that brings it."""

"""From a URL to the filesystem it names."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from inspect import Parameter, signature
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from fsspec.registry import get_filesystem_class

from davfusion.stores.credentials import credentials_for
from davfusion.stores.errors import InvalidPathValueError
from davfusion.stores.fsspec.backend import Backend
from davfusion.stores.paths import check_path

_BACKENDS: Final[Mapping[str, str]] = {
    "sftp": "sftp.SftpBackend",
    "ssh": "sftp.SftpBackend",
    "ftp": "ftp.FtpBackend",
    "smb": "smb.SmbBackend",
    "webdav": "webdav.DavBackend",
    "webdavs": "webdav.DavBackend",
    "file": "folders.LocalBackend",
    "memory": "memory.MemoryBackend",
    **dict.fromkeys(("gs", "gcs", "s3", "s3a"), "backend.StreamingBackend"),
    **dict.fromkeys(("abfs", "abfss", "az"), "azure.AzureBackend"),
    **dict.fromkeys(("gist", "git", "github", "http", "https"), "backend.ReadBackend"),
    "gdrive": "backend.DriveBackend",
}
"""Schemes whose services do more than fsspec's interface says; all others are object stores."""
_HOSTS: Final = frozenset({"sftp", "ssh", "ftp", "smb", "webdav", "webdavs"})
"""Schemes whose URLs are `scheme://user@host:port/path` with an encoded path."""
_COLONS: Final = frozenset({"github", "gist"})
"""Schemes in whose URLs what looks like a password is none."""


@dataclass(frozen=True)
class Address:
    """Where a share is, and how to connect to it."""

    name: str
    """For people and logs; without a secret."""
    root: str
    """The service's name for what is served; empty for all of it."""
    top: str
    """What the service's names begin with where `root` is empty."""
    backend: type[Backend]
    filesystem_class: Any
    options: Mapping[str, Any]

    def connect(self) -> Backend:
        """A new connection."""
        return self.backend(self.filesystem_class(**self.options))


def parse(url: str, options: Mapping[str, Any]) -> Address:
    """The address that `url` names, with fsspec's storage `options`.

    Raises ValueError, and ImportError where a package is missing.
    """
    scheme = url.partition(":")[0].lower()
    if scheme not in _COLONS and urlsplit(url).password is not None:
        raise ValueError(
            "a password in an address is seen by others: put it into DAVFUSION_STORE_PASSWORD or "
            "~/.netrc"
        )
    backend = _backend(scheme)
    filesystem_class: Any = backend.filesystem_class or get_filesystem_class(scheme)
    if scheme in _HOSTS:
        _require_known(options, filesystem_class.__init__, *backend.also_given)
        name, root, found = _host(scheme, url)
        top = "/"
    else:
        name, root = url.rstrip("/"), filesystem_class._strip_protocol(url)
        found, top = filesystem_class._get_kwargs_from_urls(url), filesystem_class.root_marker
    all_options = {**backend.options, **found, **options}
    return Address(name, root.rstrip("/"), top, backend, filesystem_class, all_options)


def _backend(scheme: str) -> type[Backend]:
    module, _, name = _BACKENDS.get(scheme, "backend.Backend").partition(".")
    found: type[Backend] = getattr(import_module(f"{__package__}.{module}"), name)
    return found


def _require_known(options: Iterable[str], *calls: Callable[..., Any]) -> None:
    """fsspec's classes take every option, and leave out those that they do not know."""
    taken = [each for call in calls for each in signature(call).parameters.values()]
    known = {each.name for each in taken if each.kind is not Parameter.VAR_KEYWORD} - {"self"}
    for option in set(options) - known:
        raise ValueError(f"there is no option {option}; there are {', '.join(sorted(known))}")


def _host(scheme: str, url: str) -> tuple[str, str, dict[str, Any]]:
    """Name, root and options of a URL that begins with a host."""
    parts = urlsplit(url, allow_fragments=False)
    if not parts.hostname:
        raise ValueError(f"needs a host, as in {scheme}://user@host/folder")
    root = unquote(parts.path).rstrip("/")
    if scheme == "smb" and not root:
        raise ValueError("needs a share, as in smb://user@host/share/folder")
    try:
        check_path(root or "/")
    except InvalidPathValueError as error:
        raise ValueError(f"the folder is no path: {error}") from error
    options: dict[str, Any] = {"host": parts.hostname}
    if parts.port is not None:
        options["port"] = parts.port
    user, password = credentials_for(parts.hostname, parts.username and unquote(parts.username))
    options |= {key: value for key, value in (("username", user), ("password", password)) if value}
    if scheme == "webdavs":
        options["secure"] = True
    return f"{scheme}://{parts.netloc}{parts.path}".rstrip("/"), root, options

"""What the user chose, checked and frozen: the command line and a file build the same values."""

import importlib.util
import ipaddress
import re
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from pydantic_core import CoreSchema

MB: Final = 1024 * 1024

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
HttpServerName = Literal["cheroot", "granian"]
LogLevel = Literal["debug", "info", "warning", "error"]

ROOT: Final = "/"
"""The name of a share that is all of the tree; any other is the name of a folder in its root."""
EVERYBODY: Final = "*"
"""In a list of users: all of them."""

_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]+)?)\s*([KMGT]?)I?B?", re.IGNORECASE)
_UNITS = {"": 1, "K": 1024, "M": MB, "G": 1024 * MB, "T": 1024 * 1024 * MB}
_OPTION = re.compile(r"(?<![\w-])--([a-z][a-z0-9-]*)")
_KEYS = {"user": "users"}
"""Option -> key of a file, where they differ by more than their dashes."""
_SECRET = re.compile("(?!.*_file$).*(key|secret|token|pass|credential)", re.IGNORECASE)


JUNK: Final[Mapping[str, tuple[str, ...]]] = {
    "mac": ("._*", ".DS_Store"),
    "windows": ("Thumbs.db", "desktop.ini"),
    "office": ("~$*", ".~lock.*#"),
    "none": (),
}
"""AppleDouble and Finder's views; Explorer's; owner files of Microsoft Office and LibreOffice."""


LOOPBACK: Final = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1"))


class ConfigError(ValueError):
    """A value cannot be used; the text names it and says what would do."""


def in_file(text: str) -> str:
    """A message about options in the words of a file: `--cache-id` is `cache_id` there."""
    return _OPTION.sub(lambda match: _KEYS.get(match[1], match[1].replace("-", "_")), text)


def parse_size(text: str) -> int:
    """Bytes of `2000MB`, `1.5 GB`, `500KiB` or a plain number; units are powers of 1024.

    Raises ConfigError.
    """
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise ConfigError(f"{text!r} is not a size such as 2000MB or 1.5GB")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def parse_cache_size(text: str) -> int:
    """As parse_size, but ConfigError for what would hold next to nothing."""
    size = parse_size(text)
    if 0 < size < MB:
        raise ConfigError(f"{text!r} is less than 1MB: a number alone is bytes; 0 keeps nothing")
    return size


def parse_seconds(text: str) -> float:
    """Seconds of `60`, `0.5` or `60s`; raises ConfigError."""
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]+)?)\s*s?", text.strip(), re.ASCII)
    if not match:
        raise ConfigError(f"{text!r} is not a number of seconds such as 60 or 0.5")
    return float(match[1])


def parse_junk(text: str) -> tuple[str, ...]:
    """The patterns of `mac,office` or `none`, see JUNK; raises ConfigError."""
    kinds = [kind.strip().lower() for kind in text.split(",")]
    if unknown := [kind for kind in kinds if kind not in JUNK]:
        raise ConfigError(f"{unknown[0]!r} is none of {', '.join(JUNK)}")
    return tuple(name for kind in kinds for name in JUNK[kind])


def parse_prefix(text: str) -> str:
    """The path of URLs `/dav`, also given as `dav/`; "" for none. Raises ConfigError."""
    prefix = "/" + text.strip("/") if text.strip("/") else ""
    if not re.fullmatch(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*", prefix):
        raise ConfigError(f"{text!r} is no path such as /dav, of letters, digits and -._~")
    return prefix


def parse_network(text: str) -> Network:
    """The address `10.0.0.1` or the network `10.0.0.0/8`; raises ConfigError."""
    try:
        return ipaddress.ip_network(text.strip())
    except ValueError as error:
        raise ConfigError(f"{text!r} is no address or network: {error}") from error


def parse_origin(text: str) -> str:
    """The origin `https://app.example` as browsers send it, `*` or `none`; raises ConfigError."""
    if not re.fullmatch(r"\*|none|null|[a-z][a-z0-9+.-]*://[^/\s]+", text):
        raise ConfigError(f"{text!r} is no origin such as https://app.example, without a path")
    return text


class Parsed:
    """In a field's annotation: how a configuration file's value of it is read, as text."""

    def __init__(self, parse: Callable[[str], Any]) -> None:
        self._parse = parse

    def __get_pydantic_core_schema__(self, _source: object, _handler: object) -> "CoreSchema":
        """pydantic's hook."""
        from pydantic_core import core_schema  # noqa: PLC0415 - only a file needs it

        return core_schema.no_info_after_validator_function(self._parse, core_schema.str_schema())


def _whole(least: int, most: int) -> Parsed:
    def parse(text: str) -> int:
        if not (re.fullmatch("[0-9]{1,9}", text) and least <= int(text) <= most):
            raise ConfigError(f"{text!r} is not a whole number from {least} to {most}")
        return int(text)

    return Parsed(parse)


CacheSize = Annotated[int, Parsed(parse_cache_size)]
Seconds = Annotated[float, Parsed(parse_seconds)]


@dataclass(frozen=True)
class S3Options:
    """How to speak to an S3 service; None: as the environment says, as every AWS tool."""

    endpoint_url: str | None = None
    path_style: bool | None = None
    checksums: Literal["md5", "sdk"] = "md5"
    region: str | None = None
    profile: str | None = None
    access_key_id: str | None = field(default=None, repr=False)
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    def __post_init__(self) -> None:
        """ConfigError for one half of the credentials."""
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ConfigError("needs access_key_id and secret_access_key, or neither of them")


@dataclass(frozen=True)
class DropboxOptions:
    """Where the login to Dropbox is kept; None: as stores/dropbox/credentials.py finds one."""

    token_file: Path | None = None

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012


@dataclass(frozen=True)
class NoOptions:
    """Of a folder or of memory."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012


OPTIONS: Final[Mapping[str, "type[DataclassInstance]"]] = {
    "s3": S3Options,
    "dropbox": DropboxOptions,
    **dict.fromkeys(("", "local", "file", "memory"), NoOptions),
}
"""Scheme of a target -> the options that its store takes; any, where the scheme is missing."""


def scheme_of(target: str) -> str:
    """What stands before the colon of a target, in lower case; empty for a folder."""
    match = re.match(r"([a-z][a-z0-9+.-]+):", target, re.IGNORECASE)
    return match[1].lower() if match else ""


def given(options: "DataclassInstance") -> dict[str, Any]:
    """The options that differ from their defaults."""
    usual = asdict(type(options)())
    return {name: value for name, value in asdict(options).items() if value != usual[name]}


def is_secret(option: str) -> bool:
    """Whether the value of a store's option of that name must not be shown or noted."""
    return _SECRET.match(option) is not None


@dataclass(frozen=True)
class Rights:
    """Who may do what; None: everybody who comes in. Who may write may read, too."""

    readers: frozenset[str] | None = None
    writers: frozenset[str] | None = None

    def may_read(self, user: str) -> bool:
        """Whether the share is there at all for `user` ("": one without a name)."""
        return self._is_open or any(_is_among(user, some) for some in (self.readers, self.writers))

    def may_write(self, user: str) -> bool:
        """Whether `user` may change anything."""
        return self._is_open or _is_among(user, self.writers)

    @property
    def _is_open(self) -> bool:
        return self.readers is None and self.writers is None


def _is_among(user: str, users: frozenset[str] | None) -> bool:
    return users is not None and (user in users or EVERYBODY in users)


@dataclass(frozen=True)
class ShareConfig:
    """One share. Every value can be pickled, for the worker processes."""

    target: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Keyword arguments of the store."""
    cache_dir: Path | None = None
    """None: the server's, or among the user's caches."""
    cache_id: str | None = None
    """None: made from the target."""
    cache_size: CacheSize = 2000 * MB
    cache_expiration: Seconds | None = None
    """None: 60, and nothing is cached where asking the store costs as little."""
    write_mode: Literal["back", "through"] | None = None
    """None: write-back, but through where the store is this machine's own."""
    write_back_delay: Seconds = 1.0
    """How long a write waits for the next one of its path before it is sent."""
    junk: Annotated[tuple[str, ...], Parsed(parse_junk)] = JUNK["mac"]
    """Patterns of the names of files that stay on this machine."""
    read_only: bool = False
    read: tuple[str, ...] | None = None
    """Names of users, @group, or EVERYBODY. None, with `write` None: all users may do all."""
    write: tuple[str, ...] | None = None

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012


@dataclass(frozen=True)
class ServerConfig:
    """What is served, to whom and how. Every value can be pickled, for the worker processes."""

    shares: Mapping[str, ShareConfig]
    """By name; ROOT is the name of the only one."""
    host: str = "127.0.0.1"
    port: Annotated[int, _whole(0, 65535)] = 8080
    users: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Name -> hash of the password."""
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Name -> names of users."""
    htpasswd: Path | None = None
    anonymous: bool = False
    cors_origins: tuple[Annotated[str, Parsed(parse_origin)], ...] = ()
    """Of web pages that may read answers; none given: see `origins`."""
    prefix: Annotated[str, Parsed(parse_prefix)] = ""
    """Path of URLs below which all lies; without a slash at its end."""
    trusted_proxies: tuple[Annotated[Network, Parsed(parse_network)], ...] = LOOPBACK
    """Whose X-Forwarded headers count."""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    cache_dir: Path | None = None
    """None: among the user's caches."""
    workers: Annotated[int, _whole(1, 64)] = 2
    server: HttpServerName = "cheroot"
    log_level: LogLevel = "info"

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    @property
    def has_users(self) -> bool:
        """Whether clients must name themselves; also true for an htpasswd file that is empty."""
        return bool(self.users or self.htpasswd)

    @property
    def origins(self) -> tuple[str, ...]:
        """All where a password stands before every answer, else only those that are named."""
        return self.cors_origins or (("*",) if self.has_users else ())

    def rights(self, share: ShareConfig) -> Rights:
        """Who may do what in `share`, of those who come in."""
        return Rights(self._members(share.read), self._members(share.write))

    def _members(self, names: tuple[str, ...] | None) -> frozenset[str] | None:
        if names is None:
            return None
        groups = [self.groups[name[1:]] if name.startswith("@") else (name,) for name in names]
        return frozenset(user for group in groups for user in group)


def check(config: ServerConfig) -> ServerConfig:
    """Return `config`, with the folder of each cache, if its values fit together.

    Raises ConfigError, in the words of the command line.
    """
    if (config.tls_cert is None) != (config.tls_key is None):
        raise ConfigError("--tls-cert and --tls-key belong together: give both or none")
    if config.has_users and config.anonymous:
        raise ConfigError("--anonymous and users contradict each other: leave one of them out")
    if not (config.has_users or config.anonymous or is_loopback(config.host)):
        raise ConfigError(
            f"without users, anyone who reaches {config.host} could read and delete everything: "
            "give --user or --htpasswd, or say --anonymous if that is meant"
        )
    if config.server == "granian":
        _check_granian()
    shares = {
        name: replace(share, cache_dir=share.cache_dir or config.cache_dir)
        for name, share in config.shares.items()
    }
    return replace(config, shares=shares)


def _check_granian() -> None:
    if sys.platform != "linux":
        raise ConfigError("--server granian runs on Linux only")
    if importlib.util.find_spec("granian") is None:
        raise ConfigError("--server granian is not installed: pip install 'davfusion[granian]'")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`; a name counts by what it resolves to."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return all(ipaddress.ip_address(str(address[4][0])).is_loopback for address in found)

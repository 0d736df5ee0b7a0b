"""What the user chose, checked and frozen."""

import importlib.util
import ipaddress
import re
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

MB: Final = 1024 * 1024

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
HttpServerName = Literal["cheroot", "granian"]

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)I?B?", re.IGNORECASE)
_UNITS = {"": 1, "K": 1024, "M": MB, "G": 1024 * MB, "T": 1024 * 1024 * MB}


JUNK: Final[Mapping[str, tuple[str, ...]]] = {
    "mac": ("._*", ".DS_Store"),
    "windows": ("Thumbs.db", "desktop.ini"),
    "office": ("~$*", ".~lock.*#"),
    "none": (),
}
"""AppleDouble and Finder's views; Explorer's; owner files of Microsoft Office and LibreOffice."""


LOOPBACK: Final = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1"))


class ConfigError(Exception):
    """A value cannot be used; the text names it and says what would do."""


@dataclass(frozen=True)
class S3Options:
    """How to speak to an S3 service; None: as the environment says, as every AWS tool."""

    endpoint_url: str | None = None
    path_style: bool | None = None
    checksums: Literal["md5", "sdk"] = "md5"


@dataclass(frozen=True)
class DropboxOptions:
    """Where the login to Dropbox is kept; None: as stores/dropbox/credentials.py finds one."""

    token_file: Path | None = None


@dataclass(frozen=True)
class ServeConfig:
    """One share and how it is served. Every value can be pickled, for the worker processes."""

    target: str
    host: str = "127.0.0.1"
    port: int = 8080
    cache_dir: Path | None = None
    """None: among the user's caches."""
    cache_id: str | None = None
    """None: made from the target."""
    cache_size: int = 2000 * MB
    """Bytes."""
    cache_expiration: float | None = None
    """Seconds; None: 60, and nothing is cached where asking the store costs as little."""
    write_mode: Literal["back", "through"] | None = None
    """None: write-back, but through where the store is this machine's own."""
    write_back_delay: float = 1.0
    """Seconds that a write waits for the next one of its path before it is sent."""
    junk: tuple[str, ...] = JUNK["mac"]
    """Patterns of the names of files that stay on this machine."""
    workers: int = 2
    read_only: bool = False
    users: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """(name, hash of the password)."""
    htpasswd: Path | None = None
    anonymous: bool = False
    cors_origins: tuple[str, ...] = ()
    """Of web pages that may read answers; none given: see `origins`."""
    prefix: str = ""
    """Path of URLs below which all lies; without a slash at its end."""
    trusted_proxies: tuple[Network, ...] = LOOPBACK
    """Whose X-Forwarded headers count."""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    server: HttpServerName = "cheroot"
    log_level: str = "info"
    s3: S3Options = S3Options()
    dropbox: DropboxOptions = DropboxOptions()

    @property
    def has_users(self) -> bool:
        """Whether clients must name themselves; also true for an htpasswd file that is empty."""
        return bool(self.users or self.htpasswd)

    @property
    def origins(self) -> tuple[str, ...]:
        """All where a password stands before every answer, else only those that are named."""
        return self.cors_origins or (("*",) if self.has_users else ())


def check(config: ServeConfig) -> ServeConfig:
    """Return `config` if its values fit together; raises ConfigError."""
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
    return config


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


def parse_size(text: str) -> int:
    """Bytes of `2000MB`, `1.5 GB`, `500KiB` or a plain number; units are powers of 1024.

    Raises ConfigError.
    """
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise ConfigError(f"{text!r} is not a size such as 2000MB or 1.5GB")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def parse_seconds(text: str) -> float:
    """Seconds of `60`, `0.5` or `60s`; raises ConfigError."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*s?", text.strip(), re.ASCII)
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

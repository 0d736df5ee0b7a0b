"""The servers that race, and the command of each.

Each is started as its documentation says that it is fastest without giving up correctness: rclone
with its full cache, parallel streams for what it reads, and the store's own modification times
(without which it asks for each file); stock wsgidav behind cheroot with its own provider.
"""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from benchmarks.seaweedfs import KEY, SECRET

_BIN: Final = Path(sys.executable).parent
OURS: Final = "davfusion"


@dataclass(frozen=True)
class Contender:
    """A server; {port}, {target}, {endpoint}, {cache}, {key} and {secret} are filled in."""

    name: str
    command: Sequence[str]
    help: Sequence[str]
    """The command that shows its help."""
    workloads: frozenset[str] = field(default=frozenset())
    """The only ones that it takes part in; empty: all."""

    def takes_part(self, workload: str) -> bool:
        return not self.workloads or workload in self.workloads

    def filled_in(self, values: Mapping[str, object]) -> list[str]:
        """Its command. Only the names above are replaced."""
        given = {"key": KEY, "secret": SECRET, **values}
        return [word.format_map(given) for word in self.command]


def _ours(target: str, *more: str) -> list[str]:
    serve = [sys.executable, "-m", "davfusion", "serve", target, "--port", "{port}"]
    return [*serve, "--cache-dir", "{cache}", "--log-level", "warning", "--anonymous", *more]


_OUR_HELP: Final = [sys.executable, "-m", "davfusion", "--help"]
_RCLONE: Final = str(_BIN / "rclone")
_WSGIDAV: Final = str(_BIN / "wsgidav")

S3: Final = Contender(OURS, _ours("s3://{target}"), _OUR_HELP)
FOLDER: Final = Contender(OURS, _ours("{target}"), _OUR_HELP)

RCLONE: Final = Contender(
    "rclone",
    [
        *(_RCLONE, "serve", "webdav", ":s3:{target}", "--addr", "127.0.0.1:{port}"),
        *("--s3-provider", "Other", "--s3-endpoint", "{endpoint}"),
        *("--s3-access-key-id", "{key}", "--s3-secret-access-key", "{secret}"),
        *("--vfs-cache-mode", "full", "--cache-dir", "{cache}", "--config", "/dev/null"),
        *("--use-server-modtime", "--vfs-write-back", "1s", "--transfers", "8"),
        *("--vfs-read-chunk-streams", "8", "--vfs-read-chunk-size", "4M"),
    ],
    [_RCLONE, "serve", "webdav", "--help"],
)

WSGIDAV: Final = Contender(
    "wsgidav",
    [
        *(_WSGIDAV, "--host", "127.0.0.1", "--port", "{port}", "--root", "{target}"),
        *("--auth", "anonymous", "--server", "cheroot", "--no-config", "-qq"),
    ],
    [_WSGIDAV, "--help"],
)

_OTHER_SERVERS: Final = ("granian",)
_ABOUT_HTTP: Final = frozenset({"hot", "stat-1", "stat-64"})
"""What the HTTP server decides."""


def other_servers() -> list[str]:
    """The HTTP servers beside cheroot that davfusion offers and that are installed."""
    shown = subprocess.run([*S3.command[:4], "--help"], check=True, capture_output=True, text=True)
    offered = "--server" in shown.stdout
    return [name for name in _OTHER_SERVERS if offered and find_spec(name)]


def with_server(name: str) -> Contender:
    """davfusion on another HTTP server, in what that decides."""
    command = [*S3.command, "--server", name]
    return Contender(f"{OURS} on {name}", command, S3.help, _ABOUT_HTTP)

"""What a workload is given: whose turn it is, and the server that runs."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.client import Client
from benchmarks.contenders import Contender
from benchmarks.origins import Origin
from benchmarks.processes import HOST, Usage, WrongError, usage

Figures = dict[str, float]
"""Name -> value; the name ends with its unit, and with "/s" if more is better."""

MIB: Final = 1 << 20
PIECE: Final = 8 * MIB
_NOISE: Final = random.Random(1).randbytes(PIECE)


def scaled(count: int, scale: float) -> int:
    return max(1, round(count * scale))


@dataclass(frozen=True)
class Turn:
    """Who runs, and on what."""

    contender: Contender
    origin: Origin
    target: str
    """The bucket's name, or the path of the folder."""
    endpoint: str | None
    """Of the S3 server; None for a folder."""
    scale: float
    cache: Path
    """An empty folder."""
    kept: Path
    """A folder that this contender finds again at its next turn of the workload."""
    log: Path


@dataclass
class Site:
    """One running server."""

    turn: Turn
    port: int
    group: int
    """Of the server's processes."""
    started: float
    """Seconds from its start to its first answer."""
    chance: random.Random = field(default_factory=lambda: random.Random(7))
    checks: list[Callable[[], None]] = field(default_factory=list)
    """What is checked after the server's usage has been taken: it costs the server something."""

    @property
    def origin(self) -> Origin:
        """What lies behind the server."""
        return self.turn.origin

    @property
    def scale(self) -> float:
        return self.turn.scale

    def count(self, full: int) -> int:
        """How many it is at this scale."""
        return scaled(full, self.scale)

    def client(self) -> Client:
        return Client(self.port)

    def usage(self) -> Usage:
        """What the server has taken so far."""
        return usage(self.group)

    def url(self, path: str) -> str:
        return f"http://{HOST}:{self.port}{path}"


def big_content(scale: float) -> bytes:
    """256 MiB at scale 1, in which no 8 MiB are like the others."""
    return b"".join(i.to_bytes(8) + _NOISE[8:] for i in range(scaled(32, scale)))


def require_stored(origin: Origin, key: str, content: bytes) -> None:
    """Raises WrongError unless that is what the store has."""
    if origin.get(key) != content:
        raise WrongError(f"{key} is stored with other bytes than were sent")

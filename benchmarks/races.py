"""The races: who runs against whom at what, in turns (A B A B)."""

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

from benchmarks import contenders
from benchmarks.contenders import Contender
from benchmarks.origins import Bucket, Folder, Origin
from benchmarks.results import Results, digits
from benchmarks.seaweedfs import S3, running_s3
from benchmarks.site import Turn
from benchmarks.workload import Workload
from benchmarks.workloads import ON_BOTH, ON_S3

ON_S3_RACE: Final = "s3"
ON_FOLDER_RACE: Final = "folder"
PEERS: Final = {ON_S3_RACE: contenders.RCLONE.name, ON_FOLDER_RACE: contenders.WSGIDAV.name}
"""Whom davfusion is compared with."""
_SHOWN: Final = 2_000
"""Characters of a log."""


@dataclass(frozen=True)
class Race:
    """Some contenders at some workloads."""

    name: str
    contenders: Sequence[Contender]
    workloads: Sequence[Workload]

    def only(self, patterns: Sequence[str]) -> "Race":
        """With the workloads that one of the patterns means, as `list`, `s3/*` or `put-*`."""
        chosen = [w for w in self.workloads if not patterns or self._is_meant(w, patterns)]
        return Race(self.name, self.contenders, chosen)

    def _is_meant(self, workload: Workload, patterns: Sequence[str]) -> bool:
        names = (workload.name, f"{self.name}/{workload.name}")
        return any(fnmatch(name, pattern) for name in names for pattern in patterns)

    def taking_part(self, workload: Workload) -> list[Contender]:
        return [
            contender
            for contender in self.contenders
            if contender.takes_part(workload.name) and workload.only in (None, contender.name)
        ]


def all_races(servers: Sequence[str]) -> list[Race]:
    """With davfusion on these HTTP servers, too."""
    ours = [contenders.S3, *map(contenders.with_server, servers)]
    return [
        Race(ON_S3_RACE, [*ours, contenders.RCLONE], ON_S3),
        Race(ON_FOLDER_RACE, [contenders.FOLDER, contenders.WSGIDAV], ON_BOTH),
    ]


def run(races: Sequence[Race], results: Results, reps: int, scale: float) -> None:
    """Run all of them, into `results`."""
    needs_s3 = any(race.name == ON_S3_RACE and race.workloads for race in races)
    with (
        running_s3() if needs_s3 else nullcontext() as s3,
        tempfile.TemporaryDirectory(prefix="davfusion-bench-") as folder,
    ):
        for race in races:
            _Runner(race, s3, Path(folder), results, scale).run(reps)


@dataclass
class _Runner:
    race: Race
    s3: S3 | None
    folder: Path
    results: Results
    scale: float
    seeded: dict[Callable[[Origin, float], None], Origin] = field(default_factory=dict)
    turns: int = 0

    def run(self, reps: int) -> None:
        for workload in self.race.workloads:
            for rep in range(1, reps + 1):
                for contender in self.race.taking_part(workload):
                    self._take(workload, contender, rep)
            for kept in self.folder.glob("kept-*"):
                shutil.rmtree(kept)

    @property
    def _log(self) -> Path:
        """Of the turn's server."""
        return self.folder / "log"

    def _log_end(self) -> str:
        return self._log.read_text(errors="replace")[-_SHOWN:]

    def _take(self, workload: Workload, contender: Contender, rep: int) -> None:
        """One turn, and its figures or what went wrong into the results."""
        title = f"{self.race.name}/{workload.name} {rep} {contender.name}"
        try:
            with self._turn(workload, contender) as turn:
                figures = workload.measure(turn)
        except Exception as error:  # of whatever kind: the other turns go on
            self.results.wrong.append(f"{title}: {error!r}")
            _say(f"{title}: WRONG: {error!r}\nIts log ends with:\n{self._log_end()}")
            return
        self.results.add(self.race.name, workload.name, contender.name, figures)
        _say(f"{title}: {', '.join(f'{name} {digits(v)}' for name, v in figures.items())}")

    @contextmanager
    def _turn(self, workload: Workload, contender: Contender) -> Iterator[Turn]:
        self.turns += 1
        kept = self.folder / f"kept-{contender.name}"
        cache = self.folder / f"cache-{self.turns}"
        for folder in (kept, cache):
            folder.mkdir(exist_ok=True)
        self._log.write_bytes(b"")
        origin = self._origin(workload)
        yield Turn(
            contender,
            origin,
            str(origin.path) if isinstance(origin, Folder) else origin.name,
            self.s3.endpoint if isinstance(origin, Bucket) and self.s3 else None,
            self.scale,
            cache,
            kept,
            self._log,
        )
        shutil.rmtree(cache)
        if workload.writes and isinstance(origin, Folder):
            shutil.rmtree(origin.path)

    def _origin(self, workload: Workload) -> Origin:
        """A new one, or that of an earlier turn where nobody writes."""
        if not workload.writes and workload.seed in self.seeded:
            return self.seeded[workload.seed]
        name = f"{self.race.name}-{self.turns}"
        origin: Origin
        if self.race.name == ON_S3_RACE and self.s3 is not None:
            origin = Bucket(self.s3, name)
        else:
            origin = Folder(self.folder / name)
        workload.seed(origin, self.scale)
        if not workload.writes:
            self.seeded[workload.seed] = origin
        return origin


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

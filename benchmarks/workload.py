"""What a workload is made of, and how one turn of it is measured."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace

from benchmarks.origins import Origin
from benchmarks.serving import distant, serving
from benchmarks.site import Figures, Site, Turn


def nothing(_origin: Origin, _scale: float) -> None:
    """Seed nothing."""


def as_it_is(turn: Turn) -> Turn:
    """Prepare nothing."""
    return turn


@dataclass(frozen=True)
class Workload:
    """What is measured; `run` is called with a server that has just been started."""

    name: str
    run: Callable[[Site], Figures]
    seed: Callable[[Origin, float], None] = nothing
    """Called with the scale. Origins are shared by the workloads that seed the same."""
    far: bool = False
    """Whether an S3 store is at the far end of a link."""
    writes: bool = False
    """Whether each turn needs an origin of its own."""
    prepare: Callable[[Turn], Turn] = as_it_is
    """Called before the server is started."""
    only: str | None = None
    """The one contender that it is about."""

    def measure(self, turn: Turn) -> Figures:
        """The figures of one turn, with what the server took in all; WrongError."""
        turn = self.prepare(turn)
        is_far = self.far and turn.endpoint is not None
        link = distant(turn) if is_far else nullcontext(turn.endpoint)
        with link as endpoint, serving(replace(turn, endpoint=endpoint)) as site:
            figures = self.run(site)
            used = site.usage()
            for check in site.checks:
                check()
        return {**figures, "cpu s": used.cpu, "memory MiB": used.memory}

"""What davfusion is to reach in the race on S3."""

from typing import Final

from benchmarks.contenders import OURS

_RATIOS: Final = {
    ("list", "list cold s"): 1.0,
    ("list", "list warm s"): 5.0,
    ("walk", "walk cold s"): 8.0,
    ("walk", "walk warm s"): 2.0,
    ("read", "read cold MB/s"): 1.5,
    ("read", "first byte ms"): 2.0,
    ("read", "read warm MB/s"): 1.1,
    ("read-near", "read cold MB/s"): 1.5,
    ("read-near", "first byte ms"): 2.0,
    ("read-near", "read warm MB/s"): 1.1,
    ("seek", "seek ms"): 1.2,
    ("put-big", "put big MB/s"): 1.2,
    ("put-big", "put big stored s"): 1.0,
    ("put-small", "put small /s"): 1.0,
    ("put-small", "put small stored s"): 1.5,
    ("put-8", "put 8 clients /s"): 1.0,
    ("delete", "delete /s"): 20.0,
    ("delete", "delete stored s"): 5.0,
    ("rename", "rename folder s"): 5.0,
    ("save", "save ms"): 1.0,
}
_HOT: Final = {("hot", "get 4k /s"), ("hot", "stat /s")}
_LIMITS: Final = {("start", "start s"): 1.5, ("start", "help s"): 0.3}
MEMORY: Final = 300.0
"""MiB of all processes together, in every workload."""


def least_ratio(workload: str, figure: str, contender: str) -> float | None:
    """How many times as good as the other server it is to be at least."""
    if (workload, figure) in _HOT:
        return 0.7 if contender == OURS else 1.0
    return _RATIOS.get((workload, figure))


def limit(workload: str, figure: str) -> float | None:
    """What the value itself is to be at most."""
    return MEMORY if figure == "memory MiB" else _LIMITS.get((workload, figure))

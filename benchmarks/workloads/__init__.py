"""All workloads, one module each."""

from functools import partial
from typing import Final

from benchmarks.contenders import OURS
from benchmarks.growth.series import ENTRIES, PENDING
from benchmarks.workload import Workload
from benchmarks.workloads import (
    delete,
    hot,
    journal,
    list,
    put_big,
    put_parallel,
    put_small,
    read,
    rename,
    save,
    seek,
    start,
    walk,
)

ON_BOTH: Final = (
    Workload("list", list.run, list.seed, far=True),
    Workload("walk", walk.run, walk.seed, far=True),
    Workload("seek", seek.run, read.seed, far=True),
    Workload("read-near", read.run, read.seed),
    Workload("put-big", put_big.run, writes=True),
    Workload("put-small", put_small.run, far=True, writes=True),
    Workload("put-8", put_parallel.run, writes=True),
    Workload("hot", hot.run, hot.seed),
    Workload("delete", delete.run, hot.seed, far=True, writes=True),
    Workload("rename", rename.run, hot.seed, far=True, writes=True),
    Workload("save", save.run, far=True, writes=True),
    Workload("start", start.run),
)
"""On a local folder, nothing is far."""

_LISTS: Final = tuple(
    Workload(
        f"list-{files}",
        partial(list.run, files=files),
        partial(list.seed, files=files),
        far=True,
    )
    for files in ENTRIES
)
_CLIENTS: Final = (
    *(Workload(f"stat-{n}", partial(hot.run_stat, clients=n), hot.seed) for n in (1, 64)),
    *(Workload(f"put-{n}", partial(put_parallel.run, clients=n), writes=True) for n in (1, 64)),
)
_JOURNALS: Final = tuple(
    Workload(
        f"journal-{paths}",
        partial(journal.run, paths=paths),
        prepare=partial(journal.prepare, paths=paths),
        only=OURS,
    )
    for paths in PENDING
)
GROWTH: Final = (*_LISTS, *_CLIENTS, *_JOURNALS)
ON_S3: Final = (Workload("read", read.run, read.seed, far=True), *ON_BOTH, *GROWTH)

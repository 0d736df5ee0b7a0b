"""A client renames a folder of 300 files, and lists it under its new name."""

import time

from benchmarks.processes import wait_until
from benchmarks.site import Figures, Site, require_stored
from benchmarks.workloads.hot import FILES


def run(site: Site) -> Figures:
    names = {f"f{i}" for i in range(site.count(FILES))}
    before = site.origin.get("small/f0")
    moved = {f"moved/{name}" for name in names}
    with site.client() as client:
        start = time.perf_counter()
        client.move("/small/", "/moved/")
        client.list("/moved/", names)
        answered = time.perf_counter() - start
    wait_until(lambda: set(site.origin.sizes()) == moved, "moving the files in the store")
    stored = time.perf_counter() - start
    require_stored(site.origin, "moved/f0", before)
    return {"rename folder s": answered, "rename stored s": stored}

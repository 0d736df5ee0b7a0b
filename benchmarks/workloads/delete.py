"""A client deletes 300 files, one after the other."""

import time

from benchmarks.processes import wait_until
from benchmarks.site import Figures, Site
from benchmarks.workloads.hot import FILES


def run(site: Site) -> Figures:
    count = site.count(FILES)
    with site.client() as client:
        client.list("/small/", {f"f{i}" for i in range(count)})
        start = time.perf_counter()
        for i in range(count):
            client.delete(f"/small/f{i}")
        answered = time.perf_counter() - start
    wait_until(lambda: not site.origin.sizes("small/"), "deleting the files in the store")
    return {"delete /s": count / answered, "delete stored s": time.perf_counter() - start}

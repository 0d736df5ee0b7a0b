"""One client writes 400 files of 4 KiB, one after the other."""

import time

from benchmarks.processes import wait_until
from benchmarks.site import Figures, Site, require_stored

_FILES = 400
_SIZE = 4096


def run(site: Site) -> Figures:
    count = site.count(_FILES)
    contents = [site.chance.randbytes(_SIZE) for _ in range(count)]
    all_stored = {f"new/f{i}": _SIZE for i in range(count)}
    with site.client() as client:
        start = time.perf_counter()
        client.send("MKCOL", "/new/", (201,))
        for i, content in enumerate(contents):
            client.put(f"/new/f{i}", content)
        answered = time.perf_counter() - start
    wait_until(lambda: site.origin.sizes("new/") == all_stored, "storing the files")
    stored = time.perf_counter() - start
    for i in range(0, count, 7):
        require_stored(site.origin, f"new/f{i}", contents[i])
    return {"put small /s": count / answered, "put small stored s": stored}

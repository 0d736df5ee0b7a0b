"""Several clients write 800 files of 4 KiB together."""

import time
from concurrent.futures import ThreadPoolExecutor

from benchmarks.processes import WrongError
from benchmarks.site import Figures, Site

_FILES = 800
_SIZE = 4096


def run(site: Site, clients: int = 8) -> Figures:
    count, content = site.count(_FILES), site.chance.randbytes(_SIZE)
    with site.client() as client:
        client.send("MKCOL", "/par/", (201,))
    seconds = write_files(site, "/par", count, clients, content)
    site.checks.append(lambda: _check(site, count, content))
    return {f"put {clients} clients /s": count / seconds}


def write_files(site: Site, folder: str, count: int, clients: int, content: bytes) -> float:
    """Write `folder`/f0 and so on, by that many clients at a time; the seconds that it took."""

    def write(first: int) -> None:
        with site.client() as client:
            for i in range(first, count, clients):
                client.put(f"{folder}/f{i}", content)

    with ThreadPoolExecutor(clients) as pool:
        start = time.perf_counter()
        list(pool.map(write, range(clients)))
        return time.perf_counter() - start


def _check(site: Site, count: int, content: bytes) -> None:
    """Every file is there, and some are as they were written."""
    with site.client() as client:
        client.list("/par/", {f"f{i}" for i in range(count)})
        for i in range(0, count, 50):
            if client.send("GET", f"/par/f{i}", (200,)) != content:
                raise WrongError(f"GET /par/f{i}: other bytes than were written")

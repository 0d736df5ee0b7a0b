"""Eight clients ask for the same small file again and again: GET, and PROPFIND with depth 0."""

import random

from benchmarks.client import wrk
from benchmarks.origins import Origin
from benchmarks.processes import WrongError
from benchmarks.site import Figures, Site, scaled

FILES = 300
_FILE = "small/f0"
_SECONDS = 4


def seed(origin: Origin, scale: float) -> None:
    chance = random.Random(2)
    origin.put_many({f"small/f{i}": chance.randbytes(4096) for i in range(scaled(FILES, scale))})


def run(site: Site) -> Figures:
    require_content(site)
    get = wrk(site.url(f"/{_FILE}"), 8, site.count(_SECONDS))
    stat = wrk(site.url(f"/{_FILE}"), 8, site.count(_SECONDS), depth_0=True)
    require_content(site)
    return {"get 4k /s": get, "stat /s": stat}


def run_stat(site: Site, clients: int) -> Figures:
    """Only the PROPFIND, by another number of clients."""
    require_content(site)
    return {
        f"stat {clients} /s": wrk(
            site.url(f"/{_FILE}"), clients, site.count(_SECONDS), depth_0=True
        )
    }


def require_content(site: Site) -> None:
    with site.client() as client:
        if client.send("GET", f"/{_FILE}", (200,)) != site.origin.get(_FILE):
            raise WrongError(f"GET /{_FILE}: other bytes than are stored")

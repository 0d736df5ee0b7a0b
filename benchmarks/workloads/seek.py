"""A client picks 32 times 64 KiB out of a file of 256 MiB that nobody has read before."""

import time

from benchmarks.processes import WrongError
from benchmarks.site import Figures, Site, big_content

_PICKS = 32
_SPAN = 1 << 16


def run(site: Site) -> Figures:
    content = big_content(site.scale)
    places = [site.chance.randrange(len(content) - _SPAN) for _ in range(_PICKS)]
    with site.client() as client:
        start = time.perf_counter()
        for at in places:
            asked = {"Range": f"bytes={at}-{at + _SPAN - 1}"}
            if client.send("GET", "/big.bin", (206,), headers=asked) != content[at : at + _SPAN]:
                raise WrongError("GET /big.bin with a range: other bytes than are stored")
        seconds = time.perf_counter() - start
    return {"seek ms": seconds / _PICKS * 1e3}

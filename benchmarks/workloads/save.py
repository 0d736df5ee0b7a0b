"""An editor saves 20 times: it writes beside, moves the old file away and the new one in."""

import time

from benchmarks.processes import wait_until
from benchmarks.site import Figures, Site, require_stored

_SAVES = 20
_SIZE = 200_000


def run(site: Site) -> Figures:
    contents = [site.chance.randbytes(_SIZE) for _ in range(_SAVES + 1)]
    with site.client() as client:
        client.put("/doc.odt", contents[0])
        start = time.perf_counter()
        for content in contents[1:]:
            client.put("/~tmp1", content)
            client.move("/doc.odt", "/~bak")
            client.move("/~tmp1", "/doc.odt")
            client.delete("/~bak")
        seconds = time.perf_counter() - start
    wait_until(
        lambda: (
            site.origin.sizes() == {"doc.odt": _SIZE} and site.origin.get("doc.odt") == contents[-1]
        ),
        "storing the last save",
    )
    require_stored(site.origin, "doc.odt", contents[-1])
    return {"save ms": seconds / _SAVES * 1e3}

"""A client uploads a file of 256 MiB: until the answer, and until the store has it."""

import tempfile
import time

from benchmarks.client import CREATED, curl
from benchmarks.processes import WrongError, wait_until
from benchmarks.site import Figures, Site, big_content, require_stored


def run(site: Site) -> Figures:
    content = big_content(site.scale)
    with tempfile.NamedTemporaryFile() as local:
        local.write(content)
        local.flush()
        start = time.perf_counter()
        shown = curl("-T", local.name, "--write-out", "%{http_code}", site.url("/up.bin"))
        answered = time.perf_counter() - start
    if int(shown[0]) not in CREATED:
        raise WrongError(f"PUT /up.bin: {shown[0]}")
    wait_until(lambda: site.origin.sizes().get("up.bin") == len(content), "storing /up.bin")
    stored = time.perf_counter() - start
    require_stored(site.origin, "up.bin", content)
    return {"put big MB/s": len(content) / 1e6 / answered, "put big stored s": stored}

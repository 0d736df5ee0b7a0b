"""The time until a server answers its first request, and until its command shows its help."""

import subprocess
import time

from benchmarks.serving import environment
from benchmarks.site import Figures, Site


def run(site: Site) -> Figures:
    start = time.perf_counter()
    subprocess.run(site.turn.contender.help, check=True, capture_output=True, env=environment(None))
    return {"start s": site.started, "help s": time.perf_counter() - start}

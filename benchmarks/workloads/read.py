"""A client reads a file of 256 MiB from its begin to its end, and once more."""

import hashlib

from benchmarks.client import curl
from benchmarks.origins import Origin
from benchmarks.processes import WrongError
from benchmarks.site import Figures, Site, big_content

_SHOWN = "%{time_starttransfer} %{time_total} %{size_download} %{http_code}"


def seed(origin: Origin, scale: float) -> None:
    origin.put_many({"big.bin": big_content(scale)})


def run(site: Site) -> Figures:
    content = big_content(site.scale)
    first, cold = _read(site, len(content))
    _, warm = _read(site, len(content))
    site.checks.append(lambda: _check(site, content))
    return {"read cold MB/s": cold, "first byte ms": first, "read warm MB/s": warm}


def _read(site: Site, size: int) -> tuple[float, float]:
    """Milliseconds to the first byte, and MB/s of the whole."""
    first, total, got, status = curl("--write-out", _SHOWN, site.url("/big.bin"))
    if (int(got), status) != (size, "200"):
        raise WrongError(f"GET /big.bin: {got} bytes of {size}, status {status}")
    return float(first) * 1e3, size / 1e6 / float(total)


def _check(site: Site, content: bytes) -> None:
    with site.client() as client:
        got = client.send("GET", "/big.bin", (200,))
    if hashlib.sha256(got).digest() != hashlib.sha256(content).digest():
        raise WrongError("GET /big.bin: other bytes than are stored")

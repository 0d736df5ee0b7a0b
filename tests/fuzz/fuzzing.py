"""What all fuzz targets share: inputs made of what such a parser looks for, and of anything."""

import os
from collections.abc import Callable, Iterable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("DAVFUSION_FUZZ", "150"))
ODD = (
    "",
    " ",
    "\t",
    "\r\n",
    "\n",
    "\0",
    "%",
    "%00",
    "\x1b",
    "\x85",
    "\xa0",
    "é",
    "²",
    "٣",
    "😀",
    "\ud800",
)
"""What is easily taken for something else: digits that are none, spaces that are none."""

fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES <= 1_000,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
"""For CI the same inputs each time; the long run looks further."""


def texts(*pieces: str, odd: Iterable[str] = ODD) -> st.SearchStrategy[str]:
    """`pieces` in any order and number, with anything between them."""
    numbers = st.integers(-(10**25), 10**25).map(str)
    piece = st.sampled_from([*pieces, *odd]) | numbers | st.text(max_size=5)
    return st.lists(piece, max_size=12).map("".join)


def wsgi_texts(*pieces: str) -> st.SearchStrategy[str]:
    """As texts, of header values: bytes, each shown as a character."""
    return texts(*pieces).map(as_header)


def as_header(text: str) -> str:
    """What WSGI makes of the bytes of a header."""
    data = text.encode("utf-8", "surrogatepass")
    return data.translate(None, b"\r\n\0").decode("latin-1")


def octets(*pieces: bytes) -> st.SearchStrategy[bytes]:
    """As texts, of bytes."""
    odd = [text.encode("utf-8", "surrogatepass") for text in ODD]
    piece = st.sampled_from([*pieces, *odd]) | st.binary(max_size=5)
    return st.lists(piece, max_size=12).map(b"".join)


def refusal(call: Callable[[], Any], *errors: type[Exception]) -> Exception | None:
    """The error of `errors` with which `call` has refused; any other is raised."""
    try:
        call()
    except errors as error:
        return error
    return None

"""The name of ours where another program has changed the file that it was to replace."""

import datetime
import itertools
import socket
from collections.abc import Callable
from typing import Final

from davfusion.stores import paths

_LONGEST: Final = 255
"""Bytes of a name that file systems take."""


def copy_name(name: str, date: datetime.date, host: str, number: int = 1) -> str:
    """`name (conflicted copy DATE HOST).ext`; from the second on with a number."""
    stem, dot, extension = name.rpartition(".")
    if not stem:
        stem, dot, extension = name, "", ""
    again = f" {number}" if number > 1 else ""
    ending = f" (conflicted copy {date.isoformat()} {host}{again}){dot}{extension}"
    room = _LONGEST - len(ending.encode())
    if room <= 0:
        return copy_name(name[:40], date, host, number)
    return stem.encode()[:room].decode(errors="ignore") + ending


def free_name(path: str, is_taken: Callable[[str], bool]) -> str:
    """A path beside `path` for a version that is to stay beside the one that is there."""
    host = socket.gethostname().partition(".")[0].replace("/", "-") or "davfusion"
    today = datetime.datetime.now().astimezone().date()
    for number in itertools.count(1):
        copy = paths.join(paths.parent(path), copy_name(paths.name(path), today, host[:40], number))
        if not is_taken(copy):
            return copy
    raise AssertionError("there is always a further number")

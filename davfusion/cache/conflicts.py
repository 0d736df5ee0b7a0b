"""The name of ours where another program has changed the file that it was to replace."""

import datetime
import itertools
import socket
from collections.abc import Callable
from typing import Final

from davfusion.stores import paths

_LONGEST: Final = 255
"""Bytes of a name that file systems take."""
_LONGEST_EXTENSION: Final = 32
"""Bytes; what is longer tells nobody what kind of file it is."""


def copy_name(name: str, date: datetime.date, host: str, number: int = 1) -> str:
    """`name (conflicted copy DATE HOST).ext`; from the second on with a number.

    What is too long of `name` is cut off; `host` has at most 160 bytes.
    """
    stem, dot, extension = name.rpartition(".")
    if not stem:
        stem, dot, extension = name, "", ""
    if len(extension.encode()) > _LONGEST_EXTENSION:
        stem, dot, extension = name, "", ""
    again = f" {number}" if number > 1 else ""
    ending = f" (conflicted copy {date.isoformat()} {host}{again}){dot}{extension}"
    room = _LONGEST - len(ending.encode())
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

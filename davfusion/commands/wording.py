"""Figures in words."""

import time

_UNITS = ("B", "KB", "MB", "GB", "TB")


def size(number: int) -> str:
    """Bytes, in units that are powers of 1024 as those of --cache-size."""
    value, unit = float(number), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.1f} {_UNITS[unit]}" if unit else f"{number} B"


def count(number: int, one: str, many: str | None = None) -> str:
    """`1 file`, `1,200 files`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def age(seconds: float) -> str:
    """`5 s`, `12 min`, `3 h`, `4 days`."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


def when(moment: float) -> str:
    """Local date and time."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(moment))


def plain(text: str) -> str:
    """Fit for a terminal: a file's name may hold anything."""
    return "".join(char if char.isprintable() else "?" for char in text)


def one_line(text: str | None) -> str:
    """An error's text without line breaks."""
    return " ".join((text or "no reason is known").split())

"""Work that Dropbox does by and by: asking whether it is done."""

import time
from collections.abc import Callable
from typing import Any, Final

from davfusion.stores.dropbox.errors import error_for, tags

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 2.0
"""Seconds between two questions."""


def entries_of(
    launched: Any, check: Callable[[str], Any], sleep: Callable[[float], None] = time.sleep
) -> list[Any]:
    """The results of a job, once it is done; raises errors of the Store contract."""
    status, pause = launched, _FIRST_PAUSE
    if launched.is_async_job_id():
        job = launched.get_async_job_id()
        while (status := check(job)).is_in_progress():
            sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
    if not status.is_complete():
        raise error_for(tags(status), "a job of Dropbox's")
    results: list[Any] = status.get_complete().entries
    return results

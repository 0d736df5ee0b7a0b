"""Unsettled: changes that were given up, of which nobody knows yet whether they are carried out."""

import json
import logging
import os
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final

from davfusion.platform import is_running
from davfusion.stores import paths
from davfusion.stores.errors import TransientStoreError

RETRY_AFTER: Final = 5.0
"""Seconds that a client is asked to wait."""

_log = logging.getLogger(__name__)


class Unsettled:
    """The paths of such changes, in all processes that share `folder`.

    Were they written meanwhile, such a change would replace what was acknowledged since. Each has
    a file there, named after the process that waits for its outcome, and void with that.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def note(self, change: Future[Any], touched: Iterable[str]) -> bool:
        """What becomes of a change of these paths is not known until `change` is done.

        False where that cannot be noted.
        """
        file = self.folder / f"{os.getpid()} {uuid.uuid4().hex}"
        unfinished = file.with_name(f".{file.name}")
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            unfinished.write_text(json.dumps(list(touched)), encoding="utf-8")
            unfinished.replace(file)
        except OSError as error:
            _log.warning("a change that the store does not answer is waited for: %s", error)
            return False
        change.add_done_callback(lambda _: file.unlink(missing_ok=True))
        return True

    def clear(self) -> None:
        """Forget what processes of before have left; none of today's may have begun."""
        for file in self._files():
            file.unlink(missing_ok=True)

    def paths(self) -> list[str]:
        """What may still be changed."""
        return [path for file in self._files() for path in _touched(file)]

    def require_none(self, touched: Iterable[str]) -> None:
        """Raise TransientStoreError if one of these paths, or one above or below, may change."""
        unsettled = self.paths()
        for path in touched if unsettled else ():
            if paths.overlaps(path, unsettled):
                text = f"an earlier change of {path} has not been answered yet"
                raise TransientStoreError(text, retry_after=RETRY_AFTER)

    def _files(self) -> Iterator[Path]:
        try:
            yield from self.folder.iterdir()
        except FileNotFoundError:
            return


def _touched(file: Path) -> list[str]:
    """The paths of one change; none if it is being noted, or settled by now."""
    process = file.name.partition(" ")[0]
    if not process.isdecimal():
        return []
    try:
        if is_running(int(process)):
            touched: list[str] = json.loads(file.read_text(encoding="utf-8"))
            return touched
        file.unlink()
    except FileNotFoundError:
        _log.debug("settled by now: %s", file)
    return []

"""A power cut at the n-th thing that is done to the disk or asked of the service."""

import os
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from davfusion.stores.store import Store
from davfusion.stores.wrapper import P, R
from tests.flaky import FlakyStore

_cuts: "list[PowerCut]" = []
"""Those that are waiting for their moment: an audit hook cannot be removed again."""


class PowerCutError(BaseException):
    """The process is dead: whatever runs on is not to be seen any more."""


class PowerCut:
    """Cuts at the `number`-th change of `folder` or call of the service, while it is entered.

    What the folder holds at that moment, the clean blocks aside, is what the next start will find.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self._folder = folder
        self._left = number
        self._frozen = folder.with_name(folder.name + "-frozen")

    @property
    def happened(self) -> bool:
        return self._left == 0

    def __enter__(self) -> "PowerCut":
        if not _hooked:
            sys.addaudithook(_audit)
            _hooked.append(True)
        _cuts.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        if self in _cuts:
            _cuts.remove(self)

    def restore(self) -> None:
        """Put the folder back to that moment; nobody has anything open in it any more."""
        shutil.rmtree(self._folder)
        self._frozen.rename(self._folder)

    def concerns(self, path: str) -> bool:
        return path.startswith(str(self._folder))

    def tick(self) -> None:
        """Something is about to be done."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._left -= 1
        if not self._left:
            _cuts.remove(self)
            ignore = shutil.ignore_patterns("blocks")
            shutil.copytree(self._folder, self._frozen, ignore=ignore)
            raise PowerCutError


_hooked: list[bool] = []


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if not _cuts or event not in ("open", "os.rename", "os.remove", "os.link"):
        return
    if event == "open" and not _may_write(*args):
        return
    for cut in _cuts:
        if cut.concerns(str(args[0])):
            cut.tick()


def _may_write(_path: object, mode: str | None, flags: int) -> bool:
    """Of open(), whose mode tells, or of os.open()."""
    return bool(flags & (os.O_WRONLY | os.O_RDWR) if mode is None else set(mode) & set("wxa"))


class Service(FlakyStore):
    """A service beside whose calls something else can happen, and which a dead process has left.

    `meanwhile` is called once, at the call with the number `at` from now.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.meanwhile: Callable[[], object] | None = None
        self.at = 0

    def _call(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        self._notice()
        result = super()._call(method, *args, **kwargs)
        self._notice()
        return result

    def _notice(self) -> None:
        for cut in _cuts:
            cut.tick()
        self.at -= 1
        if self.meanwhile is not None and self.at <= 0:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()

"""`davfusion drain`: waits until the store has all, and sends it where no server does."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

import click

from davfusion import preparing, share
from davfusion.access_log import configure_logging
from davfusion.cache.folder import CacheInUseError
from davfusion.cache.mover import Mover
from davfusion.cache.outbox import Outbox
from davfusion.cache.reading import damage
from davfusion.cache.unsent import Unsent, unsent
from davfusion.commands.caches import Cache
from davfusion.commands.wording import count, one_line, plain, size
from davfusion.config import ShareConfig

_POLL: Final = 0.1
_LOOK: Final = 0.5
"""Seconds between two looks at the journal."""
_BREAK_OFF: Final = 5.0
"""Seconds that what is being sent gets to break off; after a crash it goes on just as well."""
_LINE: Final = 5.0
"""Seconds between two lines of progress, where no terminal shows them."""
_LISTED: Final = 20


def drain(caches: list[Cache], timeout: float | None) -> int:
    """All of them, one after the other; 0 if the stores have everything."""
    configure_logging("warning")
    deadline = None if timeout is None else time.monotonic() + timeout
    with _stopping() as stop:
        drains = [Drain(cache, stop, deadline) for cache in caches]
        outcomes = [each.run() for each in drains]
    code = int(not all(outcomes))
    if any(each.is_stuck for each in drains):
        # Threads that wait for the store would keep this process for as long as they wait.
        sys.stdout.flush()
        os._exit(code)
    return code


@contextmanager
def _stopping() -> Iterator[threading.Event]:
    """Set by Ctrl-C or SIGTERM; a second one ends at once."""
    stop = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)

    def note(_number: int, _frame: FrameType | None) -> None:
        stop.set()
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)

    before = [signal.signal(number, note) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


class Drain:
    """Of one cache."""

    def __init__(self, cache: Cache, stop: threading.Event, deadline: float | None) -> None:
        self._cache = cache
        self._stop = stop
        self._deadline = deadline
        self._journal = cache.folder.journal(0)
        self._progress = Progress(cache.name)
        self._sender: Sender | None = None

    @property
    def is_stuck(self) -> bool:
        """Whether something is still being sent."""
        return self._sender is not None and self._sender.is_alive()

    def run(self) -> bool:
        """Whether the store has everything; says what it has not."""
        if not self._cache.folder.journal_path.exists():
            click.echo(f"{self._cache.name}: the store has everything")
            return True
        if problem := damage(self._cache.folder.journal_path):
            click.echo(f"{self._cache.name}: the journal is damaged ({problem}): davfusion check")
            return False
        try:
            return self._report(self._send_all())
        except share.ShareError as error:
            self._progress.end()
            click.echo(f"{self._cache.name}: {one_line(str(error))}")
            return False
        finally:
            if self._sender is not None:
                self._sender.stop()
            self._journal.close()
            if not self.is_stuck:
                self._cache.folder.release()

    def _send_all(self) -> Unsent:
        """Returns what is left when there is nothing more to be waited for."""
        Outbox(self._journal, self._cache.folder.spool).hurry()
        looked = 0.0
        while True:
            if time.monotonic() >= looked + _LOOK or self._is_over():
                looked, left = time.monotonic(), unsent(self._journal)
                self._progress.show(left)
                if left.is_final or self._is_over():
                    return left
            if self._sender is None:
                self._sender = self._start_sender()
            elif not self._sender.is_alive():
                raise share.ShareError("sending has failed; the error stands above")
            self._stop.wait(_POLL)

    def _is_over(self) -> bool:
        is_late = self._deadline is not None and time.monotonic() >= self._deadline
        return is_late or self._stop.is_set()

    def _start_sender(self) -> "Sender | None":
        """None where a server sends."""
        folder = self._cache.folder
        if folder.is_in_use():
            return None
        config = _sendable(self._cache)
        if not preparing.answers(config):
            self._progress.say("the store does not answer; it is tried again and again")
        self._journal.close()
        try:
            folder.claim()
            folder.recover()
        except CacheInUseError:
            return None
        except OSError as error:
            raise share.ShareError(
                f"{folder.path} cannot be written ({error.strerror}): run this as the server's user"
            ) from error
        Outbox(self._journal, folder.spool).hurry()
        return Sender(share.open_mover(config))

    def _report(self, left: Unsent) -> bool:
        self._progress.end()
        name = self._cache.name
        if left.is_nothing:
            click.echo(f"{name}: the store has everything")
            return True
        if left.failed:
            click.echo(f"{name}: {count(len(left.failed), 'change')} failed:")
            for row in left.failed[:_LISTED]:
                click.echo(f"  {plain(row.path)}: {plain(one_line(row.error))}")
            if len(left.failed) > _LISTED:
                click.echo(f"  and {len(left.failed) - _LISTED:,} more")
            click.echo("  see to the cause, then run `davfusion retry` and this again")
        if left.waiting:
            reason = f": {one_line(left.error)}" if left.error else ""
            waiting = count(left.waiting, "change")
            click.echo(f"{name}: {waiting} ({size(left.bytes)}) not sent yet{reason}")
        return False


def _sendable(cache: Cache) -> ShareConfig:
    """Raises ShareError where it is not known where to, or there is no such place."""
    if cache.config is None:
        raise share.ShareError(
            f"nothing says which store {cache.folder.path} belongs to: "
            f"run `davfusion drain TARGET --cache-id {cache.folder.path.name}`"
        )
    if cache.config.target.lower().startswith("memory:"):
        raise share.ShareError("memory: is there only while its server runs, which is not the case")
    store = share.open_target(cache.config)
    if cache.note and cache.note.is_anothers(store):
        raise share.ShareError(
            f"what waits is for {cache.note.store}, but the login is that of {store.get_name()}"
        )
    return cache.config


class Sender:
    """A mover in a thread of this process."""

    def __init__(self, mover: Mover) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=mover.run, args=(self._stop,), daemon=True)
        self._thread.start()

    def is_alive(self) -> bool:
        """Whether it works."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Break off what is being sent, as far as that is possible in a moment."""
        self._stop.set()
        self._thread.join(_BREAK_OFF)


class Progress:
    """On a terminal one line that changes, elsewhere a line now and then."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._is_live = sys.stdout.isatty()
        self._shown = 0.0
        self._text = ""

    def show(self, left: Unsent) -> None:
        """What is left."""
        text = f"{count(left.waiting, 'change')} ({size(left.bytes)}) to send"
        text += f", {len(left.failed):,} failed" if left.failed else ""
        text += f"; trying again: {one_line(left.error)}" if left.error else ""
        if self._is_live:
            click.echo(f"\r{self._name}: {text}"[:79] + "\x1b[K", nl=False)
        elif text != self._text and time.monotonic() >= self._shown + _LINE:
            self._shown = time.monotonic()
            click.echo(f"{self._name}: {text}")
        self._text = text

    def say(self, text: str) -> None:
        """Something that is to stay."""
        self.end()
        click.echo(f"{self._name}: {text}")

    def end(self) -> None:
        """Leave the line."""
        if self._is_live and self._text:
            click.echo("\r\x1b[K", nl=False)

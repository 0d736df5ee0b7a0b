"""What must be true before shares are served: stores that answer, caches that are ours."""

import dataclasses
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from davfusion.access_log import configure_logging
from davfusion.cache.folder import CacheFolder, CacheInUseError
from davfusion.config import ROOT, ServerConfig, ShareConfig
from davfusion.cures import cure
from davfusion.platform import START_METHOD
from davfusion.share import (
    PreparedShare,
    ShareError,
    cache_folder,
    open_target,
    writes_back,
)
from davfusion.share_note import note_share, read_note
from davfusion.stores import paths
from davfusion.stores.errors import TransientStoreError
from davfusion.stores.memory import MemoryTree, MemoryTreeManager
from davfusion.stores.store import Store, StoreAccessError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

logger = logging.getLogger(__name__)

_PATIENCE: Final = 1.0
"""Seconds that a start waits for the store's first answer."""
_PATIENCE_AGAIN: Final = 0.6
"""The same for a share that has been served from this cache before."""


Leave = Callable[[], None] | None


class Preparation:
    """Makes the shares of one server ready, also those that a later configuration brings.

    `shares` are all that it has prepared, by cache folder: their folders stay this server's.
    `leave` is called first in the processes that it forks.
    """

    def __init__(self) -> None:
        self.shares: dict[Path, PreparedShare] = {}
        self.leave: Leave = None
        self._claims: list[CacheFolder] = []

    def prepare(self, config: ServerConfig) -> tuple[PreparedShare, ...]:
        """Ask the stores whether they can be used, and claim and recover the cache folders.

        Called before the workers start. Raises ShareError. A store that does not answer is no
        error: what is cached is served, and writes are kept, until it does.
        """
        candidates = self.candidates(config)
        checks = [
            AccessCheck(each.config, self.leave) if each.is_new else None for each in candidates
        ]
        return tuple(map(self._prepared, candidates, checks))

    def candidates(self, config: ServerConfig) -> "list[_Candidate]":
        """What can be served as far as asking no service tells; changes nothing. ShareError."""
        candidates = []
        for name, share in config.shares.items():
            with naming(name):
                candidates.append(self._candidate(name, share))
        _check_apart(candidates)
        return candidates

    def close(self) -> None:
        """Leave the cache folders to other servers."""
        for claim in self._claims:
            claim.release()

    def _candidate(self, name: str, config: ShareConfig) -> "_Candidate":
        store = open_target(config)
        folder = cache_folder(config, store, name)
        before = self.shares.get(folder.path)
        found = _Candidate(name, config, store, folder, writes_back(config, store), before)
        if before and (before.sends, before.store) != (found.sends, store.get_name()):
            raise ShareError(
                f"another store, or another --write-mode, for the cache folder {folder.path} takes "
                "a restart, or another --cache-id"
            )
        return found

    def _prepared(self, found: "_Candidate", check: "AccessCheck | None") -> PreparedShare:
        with naming(found.name):
            patience = _PATIENCE_AGAIN if read_note(found.folder.path) else _PATIENCE
            warning = check.warning(found.store, patience) if check else None
            if found.before:
                note_share(found.folder, found.config, found.name, found.store.get_name())
                share = dataclasses.replace(
                    found.before, name=found.name, config=found.config, warning=warning
                )
            else:
                self._claim(found)
                memory = _shared_memory(self.leave) if found.store.features.one_process else None
                share = PreparedShare(
                    found.name,
                    found.config,
                    found.store.get_name(),
                    found.folder.path,
                    memory,
                    found.sends,
                    time.time(),
                    warning,
                )
        self.shares[share.folder] = share
        return share

    def _claim(self, found: "_Candidate") -> None:
        folder, noted = found.folder, read_note(found.folder.path)
        try:
            folder.claim()
            self._claims.append(folder)
            folder.recover()
            if not found.sends or (noted is not None and noted.is_anothers(found.store)):
                _require_nothing_pending(folder)
            note_share(folder, found.config, found.name, found.store.get_name())
        except CacheInUseError as error:
            raise ShareError(f"{error}: stop it, or give this one another --cache-id") from error
        except OSError as error:
            raise ShareError(
                f"the cache folder {folder.path} cannot be written ({error.strerror}): "
                "choose another with --cache-dir"
            ) from error


@dataclasses.dataclass(frozen=True)
class _Candidate:
    """A share that is to be served."""

    name: str
    config: ShareConfig
    store: Store
    folder: CacheFolder
    sends: bool
    before: PreparedShare | None
    """What this server has prepared for its cache folder."""

    @property
    def is_new(self) -> bool:
        """Whether its store has not been asked with these settings."""
        return self.before is None or self.before.config != self.config


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Errors say which of several shares they are about."""
    try:
        yield
    except ShareError as error:
        if name == ROOT:
            raise
        raise ShareError(f"share {name}: {error}") from error


def _check_apart(candidates: Sequence[_Candidate]) -> None:
    """No two have one cache, and none is inside of what is served: clients could delete it."""
    names: dict[Path, str] = {}
    served = [_served(each.config.target) for each in candidates]
    for each in candidates:
        path = each.folder.path
        with naming(each.name):
            if other := names.get(path):
                raise ShareError(f"it has the cache of share {other}: give one another --cache-id")
            if any(path.resolve().is_relative_to(folder) for folder in served):
                raise ShareError(
                    f"the cache folder {path} lies inside of what is served: "
                    "choose another with --cache-dir"
                )
        names[path] = each.name


def _served(target: str) -> Path:
    return Path(target.removeprefix("local:")).expanduser().resolve()


class AccessCheck:
    """A question to a store, whether it can be used, that is under way from the start.

    It is asked in a process of its own: a thread that is in the middle of something, if only of
    its end, when the workers are forked may leave them a lock of OpenSSL's that nobody opens. What
    is late goes on there.
    """

    def __init__(self, config: ShareConfig, leave: Leave = None) -> None:
        self._config = config
        self._begun = time.monotonic()
        context: Any = multiprocessing.get_context(START_METHOD)
        self._receiver, sender = context.Pipe(duplex=False)
        self._given_up: Any = context.Event()
        level = logging.getLogger("davfusion").getEffectiveLevel()
        arguments = (config, sender, self._given_up, logging.getLevelName(level), leave)
        self._process = context.Process(target=_report_access, args=arguments, daemon=True)
        self._process.start()
        sender.close()

    def warning(self, store: Store, patience: float) -> str | None:
        """A warning where nobody answers within that many seconds, or only that it cannot just now.

        ShareError for a refusal.
        """
        with self._receiver:
            left = self._begun + patience - time.monotonic()
            if not self._receiver.poll(max(0.0, left)):
                self._given_up.set()
                return f"{store.get_name()} has not answered yet. {self._offline(store)}"
            error: StoreAccessError | None = self._receiver.recv()
            self._process.join()
        if isinstance(error, TransientStoreError):
            return f"{error}; {cure(self._config, error)}. {self._offline(store)}"
        if error is not None:
            raise ShareError(f"{error}; {cure(self._config, error)}") from error
        return None

    def end(self) -> None:
        """Ask no more."""
        self._process.kill()
        self._process.join()

    def _offline(self, store: Store) -> str:
        writes = "kept and sent later" if writes_back(self._config, store) else "refused"
        return f"Until it answers, what is cached is served, and writes are {writes}."


def answers(config: ShareConfig) -> bool:
    """Whether the store answers; ShareError where it refuses."""
    check = AccessCheck(config)
    try:
        return check.warning(open_target(config), _PATIENCE) is None
    finally:
        check.end()


def _report_access(
    config: ShareConfig, answer: "Connection", given_up: Any, log_level: str, leave: Leave
) -> None:
    """Send the error of the store's check_access, or None; log it where nobody waits any more."""
    if leave:
        leave()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    configure_logging(log_level)
    error = None
    try:
        open_target(config).check_access()
    except StoreAccessError as found:
        error = found
    with suppress(BrokenPipeError):  # too late for whoever asked
        answer.send(error)
    if error is not None and given_up.is_set():
        logger.warning("%s: %s; %s", config.target, error, cure(config, error))


def _require_nothing_pending(folder: CacheFolder) -> None:
    journal = folder.journal(0)
    try:
        if journal.has_below(paths.ROOT):
            raise ShareError(
                "changes of an earlier run have not been sent yet: run `davfusion drain`, or serve "
                "with --write-mode back"
            )
    finally:
        journal.close()


def _shared_memory(leave: Leave) -> MemoryTree:
    manager = MemoryTreeManager(ctx=multiprocessing.get_context(START_METHOD))
    manager.start(_end_with_parent, (leave,))
    return manager.tree()


def _end_with_parent(leave: Leave) -> None:
    """Nobody would stop the process of a manager whose parent was killed."""
    if leave:
        leave()
    if hang_up := getattr(signal, "SIGHUP", None):
        signal.signal(hang_up, signal.SIG_IGN)  # it is for the parent, which decides
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()

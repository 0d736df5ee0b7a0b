"""Looks whether a cache folder is as it should be, and puts right what can be put right.

It works beside a running server, where files come and go while it looks: what it finds counts
only if it is found again a little later. Nothing that may be the only copy is ever removed.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from davfusion.cache import lost
from davfusion.cache.block_cache import BlockCache
from davfusion.cache.folder import CacheFolder, CacheInUseError
from davfusion.cache.holds import Holds, has_ended
from davfusion.cache.packs import named_records
from davfusion.cache.pending import COLUMNS, Row
from davfusion.cache.reading import damage, reading
from davfusion.cache.spool import content_problem

SETTLE: Final = 1.0
"""Seconds between two looks."""
_RESTART: Final = "the next start of the server does that"
_REPAIR: Final = "davfusion check --repair"


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be."""

    subject: str
    """A path of the share or a file."""
    problem: str
    cure: str
    repaired: bool = False


@dataclass(frozen=True)
class Report:
    """What was looked at, and what is wrong with it."""

    contents: int = 0
    """Contents of pending changes that were read."""
    blocks: int = 0
    findings: tuple[Finding, ...] = ()

    @property
    def is_well(self) -> bool:
        """Whether nothing is left to be done."""
        return all(finding.repaired for finding in self.findings)


def check_cache(
    folder: CacheFolder,
    *,
    repair: bool = False,
    progress: Callable[[str], None] = lambda _: None,
    wait: Callable[[float], None] = time.sleep,
) -> Report:
    """Check all of it; `progress` is told what is being looked at.

    `repair` claims the folder if nobody uses it, as a server does, and puts it in order.
    """
    check = _Check(folder, progress)
    found = check.look_again(check.look(), wait)
    if repair and found:
        try:
            _repair(folder)
            left = check.look_again(check.look(), wait)
        finally:
            folder.release()
        subjects = {finding.subject for finding in left}
        mended = [finding for finding in found if finding.subject not in subjects]
        found = [*(replace(finding, repaired=True) for finding in mended), *left]
    blocks, of_blocks = _check_blocks(folder, progress, repair=repair)
    return Report(check.contents, blocks, (*found, *of_blocks))


class _Check:
    def __init__(self, folder: CacheFolder, progress: Callable[[str], None]) -> None:
        self._folder = folder
        self._spool = folder.path / "spool"
        self._progress = progress
        self.contents = 0

    def look(self) -> list[Finding]:
        problem = damage(self._folder.journal_path)
        findings = [*self._old_journals(), *self._lost(), *self._databases()]
        if problem is not None:
            cure = f"stop the server, then `{_REPAIR}`: the contents come back as new changes"
            return [Finding(str(self._folder.journal_path), problem, cure), *findings]
        unnamed = self._files()
        rows = {row.spool: row for row in self._rows()}
        return [
            *findings,
            *self._contents(list(rows.values())),
            *(self._unnamed(path) for path in unnamed if path.name not in rows),
            *self._holds(),
        ]

    def look_again(self, first: list[Finding], wait: Callable[[float], None]) -> list[Finding]:
        """Of what was found, that which is found again."""
        if not first:
            return []
        wait(SETTLE)
        subjects = {finding.subject for finding in self.look()}
        return [finding for finding in first if finding.subject in subjects]

    def _files(self) -> list[Path]:
        """The files of the spool that some change should name."""
        spool = self._folder.spool
        with suppress(FileNotFoundError):  # there is no spool yet
            return [
                *(Path(path) for space in ("new", "cur") for path in spool.list(space)),
                *(found.path.with_name(found.name) for found in named_records(spool)),
            ]
        return []

    def _rows(self) -> list[Row]:
        """Those that have content."""
        if not self._folder.journal_path.exists():
            return []
        with reading(self._folder.journal_path) as db:
            found = db.execute(f"SELECT {COLUMNS} FROM pending WHERE spool IS NOT NULL")  # noqa: S608
            return [Row(*row) for row in found]

    def _contents(self, rows: list[Row]) -> Iterator[Finding]:
        self.contents = len(rows)
        for number, row in enumerate(rows, 1):
            self._progress(f"content {number} of {len(rows)}")
            problem = content_problem(self._folder.spool, row)
            if problem is not None:
                # With the file's name: a path that is written again and again is never the same.
                subject = f"{row.path} ({row.spool})"
                yield Finding(subject, problem, "write the file again, or delete it")

    def _unnamed(self, path: Path) -> Finding:
        cure = f"stop the server, then `{_REPAIR}` puts it back"
        return Finding(str(path), "no change names this file of the spool", cure)

    def _lost(self) -> Iterator[Finding]:
        for found in lost.lost_files(self._spool):
            self._progress(f"lost+found: {found.file.name}")
            if found.note is not None:
                problem = f"it holds {found.note.path}, {found.note.bytes} bytes"
                yield Finding(str(found.file), problem, f"`{_REPAIR}` puts it back")
            else:
                problem = "it does not say whose content it is, or is not whole"
                yield Finding(str(found.file), problem, "look at it, then move or delete it")

    def _old_journals(self) -> Iterator[Finding]:
        for path in sorted(self._folder.path.glob(f"{self._folder.journal_path.name}.damaged-*")):
            if not path.name.endswith(("-wal", "-shm")):
                problem = "a journal that could not be read: new folders, deletions and moves of it"
                cure = "look whether the share is as it should be, then move or delete it"
                yield Finding(str(path), f"{problem} may be missing", cure)

    def _holds(self) -> Iterator[Finding]:
        owners = self._folder.path / "owners"
        if not self._folder.journal_path.exists():
            return
        with reading(self._folder.journal_path) as db:
            held = db.execute("SELECT path, owner FROM hold").fetchall()
        for path, owner in held:
            if has_ended(owners / owner):
                problem = "a process that moved or copied it has ended, and it still waits for it"
                yield Finding(path, problem, f"`{_REPAIR}` releases it; {_RESTART}, too")

    def _databases(self) -> Iterator[Finding]:
        for name, cure in (
            ("listings.sqlite", f"`{_REPAIR}` begins a new one; nothing is lost with it"),
            ("state.sqlite", "restart the server: locks and properties begin anew"),
        ):
            path = self._folder.path / name
            self._progress(name)
            problem = damage(path)
            if problem is not None:
                yield Finding(str(path), problem, cure)


def _repair(folder: CacheFolder) -> None:
    """What the start of a server does, where none runs; then what only a repair does."""
    with suppress(CacheInUseError):
        folder.claim()
        folder.recover()
    if damage(folder.path / "listings.sqlite") is not None:
        folder.listings.clear()
    if not folder.journal_path.exists() or damage(folder.journal_path) is not None:
        return
    journal = folder.journal(0)
    try:
        Holds(journal, folder.path / "owners").remove_void(folder.doubt)
        for found in lost.lost_files(folder.path / "spool"):
            lost.put_back(journal, folder.spool, found)
    finally:
        journal.close()


def _check_blocks(
    folder: CacheFolder, progress: Callable[[str], None], *, repair: bool
) -> tuple[int, list[Finding]]:
    """How many there are, and what is wrong with them."""
    path = folder.path / "blocks"
    if not path.exists():
        return 0, []
    progress("blocks")
    blocks = BlockCache(path, 0)
    try:
        checked = blocks.check(repair=repair)
    finally:
        blocks.close()
    cure = f"`{_REPAIR}` removes it; it is fetched again when it is read"
    findings = [
        Finding(_readable(key), "a block of it is damaged", cure, repaired=repair)
        for key in checked.damaged
    ]
    findings += [
        Finding(str(file), "no block has this file", cure, repaired=repair)
        for file in checked.orphans
    ]
    return checked.blocks, findings


def _readable(key: str) -> str:
    """The path in a block's key."""
    return key.partition("\0")[0]

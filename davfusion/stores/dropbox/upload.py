"""Writing one file: in one request, or in parts where it is large."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from dropbox import files

from davfusion.stores.dropbox.commits import Commits
from davfusion.stores.dropbox.errors import dropbox_errors
from davfusion.stores.dropbox.session import Session
from davfusion.stores.dropbox.whole import Whole
from davfusion.stores.source import Passing, Source
from davfusion.stores.store import ABSENT, ConflictError, InterruptEvent, Upload

_REV: Final = re.compile(r"[0-9a-f]{9,}")


class Once:
    """The Upload of a caller that will not go on with it."""

    token: str | None = None
    may_be_directory = True

    def __init__(self, interrupt_event: InterruptEvent | None = None) -> None:
        self._interrupt_event = interrupt_event

    def is_set(self) -> bool:
        return self._interrupt_event is not None and self._interrupt_event.is_set()

    def begun(self, token: str | None) -> None:
        """Nobody asks for it."""

    def sent(self, size: int) -> None:
        """Nobody counts it."""

    def confirm(self) -> None:
        """Nobody objects."""


def commit_info(remote: str, if_etag: str | None, modified: float) -> Any:
    """What is to become of an upload; ConflictError for an ETag that is no `rev`.

    Strict, so that the same content again is a new version with a time of its own, and nothing
    comes back that was deleted meanwhile.
    """
    if if_etag is None:
        mode = files.WriteMode.overwrite
    elif if_etag == ABSENT:
        mode = files.WriteMode.add
    elif _REV.fullmatch(if_etag):
        mode = files.WriteMode.update(if_etag)
    else:
        raise ConflictError(f"dropbox:{remote} is not version {if_etag}")
    when = datetime.fromtimestamp(int(modified), UTC).replace(tzinfo=None)
    return files.CommitInfo(remote, mode, client_modified=when, strict_conflict=True)


@dataclass(frozen=True)
class Uploader:
    """Writes files; from `threshold` bytes on in parts of `part_size`, a multiple of BLOCK."""

    commits: Commits
    threshold: int
    part_size: int

    @property
    def held(self) -> int:
        """Bytes from which on a source that cannot seek is not held in memory, but in parts."""
        return min(self.threshold, self.part_size)

    def write(self, source: Source, commit: Any, upload: Upload) -> Any:
        """Store `source` and return the metadata; on any failure nothing has been stored."""
        with source.unwrapped(), dropbox_errors(f"dropbox:{commit.path}"):
            source.require_uninterrupted()
            if self._is_in_parts(source, upload):
                return Session(self.commits, source, commit, upload).write(self.part_size)
            if upload.token is not None:
                upload.begun(None)
            return Whole(self.commits, source, commit, upload, self.part_size).write()

    def _is_in_parts(self, source: Source, upload: Upload) -> bool:
        """Also what an earlier try broke off of, and what cannot be read twice."""
        is_begun = upload.token is not None and source.size >= self.part_size
        return isinstance(source, Passing) or source.size >= self.threshold or is_begun

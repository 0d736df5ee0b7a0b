"""What a server notes in its cache folder, so that other commands know what it serves."""

import dataclasses
import json
import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from davfusion.cache.folder import CacheFolder
from davfusion.config import S3Options, ServeConfig

_NAME: Final = "share.json"


@dataclass(frozen=True)
class ShareNote:
    """The share of a cache folder; no secrets."""

    target: str
    s3: S3Options
    cache_size: int
    """Bytes."""
    pid: int
    """Of the server that wrote it."""


def note_share(folder: CacheFolder, config: ServeConfig) -> None:
    """Write the note, whole or not at all."""
    note = ShareNote(config.target, config.s3, config.cache_size, os.getpid())
    growing = folder.path / f"{_NAME}.{uuid.uuid4().hex}"
    try:
        with os.fdopen(os.open(growing, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            json.dump(dataclasses.asdict(note), file)
        growing.replace(folder.path / _NAME)
    finally:
        growing.unlink(missing_ok=True)


def read_note(folder: Path) -> ShareNote | None:
    """The note of a cache folder, None where there is none or it cannot be read."""
    try:
        values = json.loads((folder / _NAME).read_text(encoding="utf-8"))
        return ShareNote(
            str(values["target"]),
            S3Options(**values["s3"]),
            int(values["cache_size"]),
            int(values["pid"]),
        )
    except (OSError, ValueError, TypeError, KeyError):
        return None

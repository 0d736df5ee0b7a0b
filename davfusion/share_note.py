"""What a server notes in its cache folder, so that other commands know what it serves."""

import json
import os
import re
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from davfusion.cache.folder import CacheFolder
from davfusion.config import S3Options, ServeConfig
from davfusion.platform import fsync_directory

_NAME: Final = "share.json"
_SCHEME: Final = re.compile("[a-z][a-z0-9+.-]+:", re.IGNORECASE)
_ENDPOINTS: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
"""Where the AWS SDK looks for the service: another program's environment may not have them."""


@dataclass(frozen=True)
class ShareNote:
    """The share of a cache folder; no secrets."""

    target: str
    """A folder is absolute."""
    s3: S3Options
    cache_size: int
    """Bytes."""
    cache_expiration: float | None
    pid: int
    """Of the server that wrote it."""

    def config(self, folder: Path) -> ServeConfig:
        """What whoever sends from the cache folder `folder` has to know."""
        return ServeConfig(
            self.target,
            cache_dir=folder.parent,
            cache_id=folder.name,
            cache_size=self.cache_size,
            cache_expiration=self.cache_expiration,
            s3=self.s3,
        )


def note_share(folder: CacheFolder, config: ServeConfig) -> None:
    """Write the note, whole or not at all; OSError."""
    note = ShareNote(
        absolute(config.target),
        _with_endpoint(config.s3),
        config.cache_size,
        config.cache_expiration,
        os.getpid(),
    )
    growing = folder.path / f"{_NAME}.{uuid.uuid4().hex}"
    try:
        with os.fdopen(os.open(growing, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            json.dump(asdict(note), file)
            file.flush()
            os.fsync(file.fileno())
        growing.replace(folder.path / _NAME)
        fsync_directory(folder.path)
    finally:
        growing.unlink(missing_ok=True)


def read_note(folder: Path) -> ShareNote | None:
    """The note of a cache folder, None where there is none or it cannot be read."""
    try:
        values = json.loads((folder / _NAME).read_text(encoding="utf-8"))
        expiration = values["cache_expiration"]
        return ShareNote(
            str(values["target"]),
            S3Options(**values["s3"]),
            int(values["cache_size"]),
            None if expiration is None else float(expiration),
            int(values["pid"]),
        )
    except (OSError, ValueError, TypeError, KeyError):
        return None


def absolute(target: str) -> str:
    """The target as it is named from every working directory."""
    folder = target.removeprefix("local:")
    return target if _SCHEME.match(folder) else str(Path(folder).expanduser().absolute())


def _with_endpoint(s3: S3Options) -> S3Options:
    named = (os.environ[name] for name in _ENDPOINTS if os.environ.get(name))
    return S3Options(s3.endpoint_url or next(named, None), s3.path_style, s3.checksums)

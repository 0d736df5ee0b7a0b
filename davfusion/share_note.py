"""What a server notes in its cache folder, so that other commands know what it serves."""

import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from davfusion.cache.folder import CacheFolder
from davfusion.config import ROOT, ShareConfig, is_secret, scheme_of
from davfusion.platform import fsync_directory
from davfusion.stores.store import Store

_NAME: Final = "share.json"
_ENDPOINTS: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
"""Where the AWS SDK looks for the service: another program's environment may not have them."""


@dataclass(frozen=True)
class ShareNote:
    """The share of a cache folder; no secrets."""

    name: str
    """In the tree of the server."""
    target: str
    """A folder is absolute."""
    options: Mapping[str, Any]
    """Those of the store that are no secrets."""
    cache_size: int
    """Bytes."""
    cache_expiration: float | None
    pid: int
    """Of the server that wrote it."""
    store: str | None = None
    """The store's name, which says whose login it was."""

    def is_anothers(self, store: Store) -> bool:
        """Whether what waits was for another login's store. An S3 server may have several names."""
        is_login = scheme_of(self.target) == "dropbox"
        return is_login and self.store not in (None, store.get_name())

    def config(self, folder: Path) -> ShareConfig:
        """What whoever sends from the cache folder `folder` has to know."""
        return ShareConfig(
            self.target,
            self.options,
            cache_dir=folder.parent,
            cache_id=folder.name,
            cache_size=self.cache_size,
            cache_expiration=self.cache_expiration,
        )


def note_share(
    folder: CacheFolder, config: ShareConfig, name: str = ROOT, store: str | None = None
) -> None:
    """Write the note, whole or not at all; OSError."""
    note = ShareNote(
        name,
        absolute(config.target),
        _notable(config),
        config.cache_size,
        config.cache_expiration,
        os.getpid(),
        store,
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
            str(values["name"]),
            str(values["target"]),
            dict(values["options"]),
            int(values["cache_size"]),
            None if expiration is None else float(expiration),
            int(values["pid"]),
            values.get("store"),
        )
    except (OSError, ValueError, TypeError, KeyError):
        return None


def absolute(target: str) -> str:
    """The target as it is named from every working directory."""
    folder = target.removeprefix("local:")
    return target if scheme_of(folder) else str(Path(folder).expanduser().absolute())


def _notable(config: ShareConfig) -> dict[str, Any]:
    """The options that another process needs; what the environment says of S3's is one of them."""
    options = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in config.options.items()
        if isinstance(value, str | int | float | Path) and not is_secret(name)
    }
    named = [os.environ[name] for name in _ENDPOINTS if os.environ.get(name)]
    if named and scheme_of(config.target) == "s3":
        options.setdefault("endpoint_url", named[0])
    return options

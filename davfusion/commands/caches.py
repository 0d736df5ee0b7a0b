"""Which caches a command is about, and what is known of each."""

from dataclasses import dataclass, replace
from pathlib import Path

from davfusion import share
from davfusion.cache.folder import CacheFolder
from davfusion.config import S3Options, ServeConfig
from davfusion.share_note import ShareNote, absolute, read_note


@dataclass(frozen=True)
class Selection:
    """What the user said; None: nothing."""

    target: str | None
    cache_dir: Path | None
    cache_id: str | None
    s3_endpoint_url: str | None
    s3_path_style: bool | None


@dataclass(frozen=True)
class Cache:
    """A cache folder and, where it is known, the share whose it is."""

    folder: CacheFolder
    note: ShareNote | None
    config: ServeConfig | None

    @property
    def name(self) -> str:
        """For people."""
        return self.config.target if self.config else f"cache {self.folder.path.name}"


def chosen_caches(selection: Selection) -> list[Cache]:
    """Those that are meant, by name; ShareError where there is none of that name."""
    cache_dir = selection.cache_dir.absolute() if selection.cache_dir else None
    home = CacheFolder(cache_dir, "any").path.parent
    found = [path for path in _folders(home) if _is_meant(path, selection)]
    if not found and selection.target and not selection.cache_id:
        # Of a server that left no note: the name tells.
        config = ServeConfig(selection.target, cache_dir=home, s3=_s3(selection, S3Options()))
        found = [path for path in [share.cache_folder(config).path] if path.is_dir()]
    if not found and (selection.target or selection.cache_id):
        what = selection.cache_id or selection.target
        raise share.ShareError(
            f"{home} has no cache of {what}: check the name and --cache-dir, or leave it out to "
            "see all"
        )
    return [_cache(path, selection) for path in found]


def _folders(home: Path) -> list[Path]:
    """Each has been claimed by a server once."""
    try:
        return sorted(path for path in home.iterdir() if (path / "lock").exists())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_meant(path: Path, selection: Selection) -> bool:
    if selection.cache_id is not None:
        return path.name == selection.cache_id
    if selection.target is None:
        return True
    note = read_note(path)
    if note is None or note.target != absolute(selection.target):
        return False
    return selection.s3_endpoint_url in (None, note.s3.endpoint_url)


def _cache(path: Path, selection: Selection) -> Cache:
    note = read_note(path)
    config = note.config(path) if note else None
    if selection.target is not None:
        known = config or ServeConfig(selection.target, cache_dir=path.parent, cache_id=path.name)
        config = replace(known, target=absolute(selection.target))
    if config is not None:
        config = replace(config, s3=_s3(selection, config.s3))
    return Cache(CacheFolder(path.parent, path.name), note, config)


def _s3(selection: Selection, known: S3Options) -> S3Options:
    return S3Options(
        selection.s3_endpoint_url or known.endpoint_url,
        known.path_style if selection.s3_path_style is None else selection.s3_path_style,
        known.checksums,
    )

"""Which caches a command is about, and what is known of each."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from davfusion import share
from davfusion.cache.folder import CacheFolder
from davfusion.config import ROOT, ShareConfig, scheme_of
from davfusion.share_note import ShareNote, absolute, read_note


@dataclass(frozen=True)
class Selection:
    """What the user said; None: nothing."""

    target: str | None
    """With `config_file`: the name of a share there."""
    config_file: Path | None
    cache_dir: Path | None
    cache_id: str | None
    s3_endpoint_url: str | None
    s3_path_style: bool | None


@dataclass(frozen=True)
class Cache:
    """A cache folder and, where it is known, the share whose it is."""

    folder: CacheFolder
    note: ShareNote | None
    config: ShareConfig | None

    @property
    def share(self) -> str | None:
        """Its name, if it is one of several."""
        return self.note.name if self.note and self.note.name != ROOT else None

    @property
    def name(self) -> str:
        """For people."""
        target = self.config.target if self.config else f"cache {self.folder.path.name}"
        return f"{self.share}: {target}" if self.share else target


def chosen_caches(selection: Selection) -> list[Cache]:
    """Those that are meant, by name.

    ShareError where there is none of that name, or where this user may not look.
    """
    try:
        return _chosen(selection)
    except PermissionError as error:
        raise share.ShareError(
            f"{error.filename} cannot be read ({error.strerror}): run this as the server's user"
        ) from error


def _chosen(selection: Selection) -> list[Cache]:
    if selection.config_file:
        return list(_configured(selection.config_file, selection.target))
    cache_dir = selection.cache_dir.absolute() if selection.cache_dir else None
    home = CacheFolder(cache_dir, "any").path.parent
    found = [path for path in _folders(home) if _is_meant(path, selection)]
    if not found and selection.target and not selection.cache_id:
        # Of a server that left no note: the name tells.
        config = ShareConfig(selection.target, _options(selection), cache_dir=home)
        folder = share.cache_folder(config, share.open_target(config))
        found = [path for path in [folder.path] if path.is_dir()]
    if not found and (selection.target or selection.cache_id):
        what = selection.cache_id or selection.target
        raise share.ShareError(
            f"{home} has no cache of {what}: check the name and --cache-dir, or leave it out to "
            "see all"
        )
    return [_cache(path, selection) for path in found]


def _configured(file: Path, name: str | None) -> Iterator[Cache]:
    """Those of a configuration file's shares, or of one, that have been served."""
    from davfusion.config_file import load  # noqa: PLC0415 - what it needs takes time to import

    shares = load(file).shares
    if name is not None and name not in shares:
        raise share.ShareError(f"{file} has no share {name}: there are {', '.join(shares)}")
    for each, config in shares.items():
        if name not in (None, each):
            continue
        folder = share.cache_folder(config, share.open_target(config), each)
        if _was_claimed(folder.path):
            cache_dir, cache_id = folder.path.parent, folder.path.name
            known = replace(config, cache_dir=cache_dir, cache_id=cache_id)
            yield Cache(folder, read_note(folder.path), known)


def _folders(home: Path) -> list[Path]:
    """Each has been claimed by a server once."""
    try:
        return sorted(path for path in home.iterdir() if _was_claimed(path))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _was_claimed(path: Path) -> bool:
    return (path / "lock").exists()


def _is_meant(path: Path, selection: Selection) -> bool:
    if selection.cache_id is not None:
        return path.name == selection.cache_id
    if selection.target is None:
        return True
    note = read_note(path)
    if note is None or note.target != absolute(selection.target):
        return False
    return selection.s3_endpoint_url in (None, note.options.get("endpoint_url"))


def _cache(path: Path, selection: Selection) -> Cache:
    note = read_note(path)
    config = note.config(path) if note else None
    if selection.target is not None:
        known = config or ShareConfig(selection.target, cache_dir=path.parent, cache_id=path.name)
        config = replace(known, target=absolute(selection.target))
    if config is not None and scheme_of(config.target) == "s3":
        config = replace(config, options={**config.options, **_options(selection)})
    return Cache(CacheFolder(path.parent, path.name), note, config)


def _options(selection: Selection) -> dict[str, Any]:
    """Those of S3 that the user said."""
    said = {"endpoint_url": selection.s3_endpoint_url, "path_style": selection.s3_path_style}
    return {name: value for name, value in said.items() if value is not None}

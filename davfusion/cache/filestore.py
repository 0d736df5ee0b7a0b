"""FileStore: a folder in which processes hand files to each other with no lock but rename."""

import os
import shutil
import uuid
from pathlib import Path, PureWindowsPath
from typing import BinaryIO, Final, Literal, TextIO, overload

from davfusion.platform import fsync_directory, is_running

SPACES: Final = ("tmp", "new", "cur")

TextMode = Literal["w", "x"]
BinaryMode = Literal["wb", "xb"]


class FileNameError(ValueError):
    """Not the name of a file in a FileStore, or not one of its spaces."""


class FileStore:
    """Three spaces: files are written in `tmp`, complete in `new`, and claimed in `cur`.

    A name has no separator of any system and is not `.` or `..`; every method raises
    FileNameError for another one. Give files names of their own, a UUID say: a move between
    spaces refuses a name that is taken there, but two different files of one name that arrive at
    the same instant are not told apart.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> spool = FileStore(folder.name)
    >>> spool.prepare()
    >>> with spool.create('letter', 'wb') as letter:
    ...     letter.write(b'Dear reader')
    11
    >>> spool.move('letter', 'tmp', 'new')
    >>> spool.list('tmp'), spool.list('new')
    ([], ['...new...letter'])
    >>> spool.move('letter', 'new', 'cur')
    >>> spool.copy('letter', 'cur', 'tmp')
    >>> spool.remove('letter', 'cur')
    >>> spool.list('tmp'), spool.list('cur')
    (['...tmp...letter'], [])
    >>> folder.cleanup()
    """

    def __init__(self, store_dir: str | os.PathLike[str]) -> None:
        self._folder = Path(store_dir)

    @property
    def folder(self) -> Path:
        """Where the spaces are."""
        return self._folder

    def prepare(self) -> None:
        """Make the folder and its spaces, for this user alone, where they are missing.

        Raises FileExistsError or NotADirectoryError where a file is in the way.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for space in SPACES:
            (self._folder / space).mkdir(mode=0o700, exist_ok=True)

    @overload
    def create(self, name: str, mode: TextMode = "w") -> TextIO: ...
    @overload
    def create(self, name: str, mode: BinaryMode) -> BinaryIO: ...
    def create(self, name: str, mode: TextMode | BinaryMode = "w") -> TextIO | BinaryIO:
        """A plain file in `tmp`, open for writing: UTF-8 text, or bytes with a `b` in `mode`.

        With `w` a file of that name in `tmp` starts anew; with `x` it is a FileExistsError.
        """
        path = self.path(name, "tmp")
        if "b" in mode:
            return path.open("wb" if mode == "wb" else "xb")
        return path.open("w" if mode == "w" else "x", encoding="utf-8")

    def list(self, space: str) -> list[str]:
        """Full paths of the files in `space`, by name."""
        return sorted(str(path) for path in self._space(space).iterdir())

    def path(self, name: str, space: str) -> Path:
        """Where the file `name` of `space` is kept, whether there is one or not."""
        if (
            not isinstance(name, str)
            or name == ".."
            or "\0" in name
            # Windows' rules are the strictest: both separators, and a drive before a colon.
            or PureWindowsPath(name).name != name
            or not name
        ):
            raise FileNameError(f"not a file name: {name!r}")
        return self._space(space) / name

    def move(self, name: str, from_space: str, to_space: str) -> None:
        """Move a file between spaces by one rename, which hands it over whole.

        Of several processes that move the same file exactly one returns; the others get
        FileNotFoundError. Raises FileExistsError if the target space has a file of that name.
        """
        source, target = self.path(name, from_space), self.path(name, to_space)
        _require_free(source, target)
        source.rename(target)

    def copy(self, name: str, from_space: str, to_space: str) -> None:
        """Copy a file between spaces; the copy appears whole, on the disk, or not at all.

        Raises FileNotFoundError and FileExistsError as move does.
        """
        source, target = self.path(name, from_space), self.path(name, to_space)
        _require_free(source, target)
        growing = self._folder / f"copy-{uuid.uuid4().hex}"
        try:
            with source.open("rb") as original, growing.open("xb") as copy:
                shutil.copyfileobj(original, copy)
                copy.flush()
                os.fsync(copy.fileno())
            _require_free(growing, target)
            growing.rename(target)
        finally:
            growing.unlink(missing_ok=True)
        fsync_directory(target.parent)

    def remove(self, name: str, space: str) -> None:
        """Remove a file from that space only; FileNotFoundError if it is not there."""
        self.path(name, space).unlink()

    def clear(self) -> None:
        """Remove every file of every space, and what copies that broke off have left.

        Only for the owner of the folder, while nobody works in it.
        """
        for folder in (self._folder, *(self._folder / space for space in SPACES)):
            for path in folder.iterdir():
                if path.is_file():
                    path.unlink()

    def _space(self, space: str) -> Path:
        if space not in SPACES:
            raise FileNameError(f"not one of the spaces {', '.join(SPACES)}: {space!r}")
        return self._folder / space


def own_name() -> str:
    """A name that no other file has. It tells the process that made it."""
    return f"{uuid.uuid4().hex}.{os.getpid()}"


def has_maker_ended(name: str) -> bool:
    """Whether the process that made a name by own_name() is there no more; False for others."""
    _, dot, process = name.rpartition(".")
    return bool(dot) and process.isdecimal() and not is_running(int(process))


def _require_free(source: Path, target: Path) -> None:
    """Raise FileExistsError where a rename to `target` would overwrite another file.

    When the target is there because another process has just moved the source, the source is
    gone: the caller lost the race, and FileNotFoundError says so.
    """
    if os.path.lexists(target):
        if not os.path.lexists(source):
            raise FileNotFoundError(str(source))
        raise FileExistsError(str(target))

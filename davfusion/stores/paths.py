"""Pure functions over store paths: absolute, `/`-separated, Unicode, `/` is the root."""

from collections.abc import Iterable, Iterator

from davfusion.stores.errors import InvalidPathValueError

ROOT = "/"


def check_path(path: str) -> str:
    """Return `path` if it is a path of the Store contract.

    A path begins with `/` and has no empty, `.` or `..` segment, no NUL and no lone surrogate;
    only the root ends with `/`. Unicode normalisation is not forced: what was stored is found.

    Raises InvalidPathValueError.
    """
    if path == ROOT:
        return path
    if not isinstance(path, str) or not path.startswith("/"):
        raise InvalidPathValueError(f"not an absolute path: {path!r}")
    if "\0" in path:
        raise InvalidPathValueError(f"NUL in path: {path!r}")
    if any(segment in ("", ".", "..") for segment in path[1:].split("/")):
        raise InvalidPathValueError(f"empty, '.' or '..' segment in path: {path!r}")
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise InvalidPathValueError(f"not Unicode text: {path!r}") from error
    return path


def is_valid_name(name: str) -> bool:
    """Whether `name` can be one segment of a path."""
    return name not in ("", ".", "..") and "/" not in name and "\0" not in name


def parent(path: str) -> str:
    """The directory that holds `path`; the root is its own parent."""
    return path.rpartition("/")[0] or ROOT


def name(path: str) -> str:
    """The last segment; empty for the root."""
    return path.rpartition("/")[2]


def join(directory: str, child: str) -> str:
    """The path of `child`, a relative path, below `directory`."""
    return f"{directory}{child}" if directory == ROOT else f"{directory}/{child}"


def under(root: str, path: str) -> str:
    """What `path` is called where `root` stands for the root; `root` may end with a slash."""
    return root.rstrip("/") + ("" if path == ROOT else path)


def is_below(path: str, directory: str) -> bool:
    """Whether `path` lies somewhere below `directory`; nothing lies below itself."""
    return path != directory and path.startswith(prefix(directory))


def overlaps(path: str, others: Iterable[str]) -> bool:
    """Whether one of the paths is `path`, or lies above or below it."""
    return any(path == other or is_below(path, other) or is_below(other, path) for other in others)


def prefix(directory: str) -> str:
    """What the paths of everything below `directory` begin with."""
    return ROOT if directory == ROOT else directory + "/"


def rebase(path: str, src: str, dst: str) -> str:
    """Where `path`, which is `src` or lies below it, ends up when `src` becomes `dst`."""
    return dst if path == src else join(dst, path[len(prefix(src)) :])


def ancestors(path: str) -> Iterator[str]:
    """The directories above `path`, nearest first, the root last."""
    while path != ROOT:
        path = parent(path)
        yield path

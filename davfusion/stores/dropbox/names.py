"""From paths of the Store contract to those of Dropbox; pure."""

from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from davfusion.stores import paths
from davfusion.stores.errors import InvalidPathValueError

LONGEST: Final = 255
"""Characters of one name."""
ASIDE: Final = ".davfusion-tmp"
"""The folder of what is out of the way for a moment; shown to nobody."""

_REFUSED_NAMES: Final = frozenset(
    {"desktop.ini", "thumbs.db", ".ds_store", "icon\r", ".dropbox", ".dropbox.attr"}
    | {".dropbox.cache", ASIDE}
)
"""help.dropbox.com/organize/file-names: what syncing computers keep for themselves; and ASIDE."""
_REFUSED_CHARACTERS: Final = "\\\x7f"


def require_storable(path: str) -> None:
    """InvalidPathValueError where Dropbox takes no such name; without asking it."""
    for name in path.split("/"):
        if reason := _why_refused(name):
            raise InvalidPathValueError(f"Dropbox takes no name {reason}: {name!r}")


def _why_refused(name: str) -> str | None:
    if len(name) > LONGEST:
        return f"of more than {LONGEST} characters"
    if name[-1:].isspace():
        return "that ends with a space"
    if any(character in name for character in _REFUSED_CHARACTERS):
        return "with a backslash or DEL in it"
    return "that its own programs use" if name.lower() in _REFUSED_NAMES else None


@dataclass(frozen=True)
class Places:
    """Paths below the folder `root` of Dropbox; "" is all of it."""

    root: str

    def local(self, entry: Any) -> str | None:
        """The path of an entry below `root`; None for what is shown to nobody."""
        below = entry.path_display.split("/")[self.root.count("/") + 1 :]
        return None if ASIDE in below else "/" + "/".join(below)

    def remote(self, path: str) -> str:
        """Dropbox's name of `path`; the root of all is the empty string there."""
        return self.root if path == paths.ROOT else f"{self.root}{path}"

    @property
    def asides(self) -> str:
        """Dropbox's name of the folder for what is out of the way."""
        return f"{self.root}/{ASIDE}"

    def aside(self, path: str) -> str:
        """A new folder out of the way, for `path` to be below it."""
        return f"{self.asides}/{path.count('/')}-{uuid4().hex}"

    def begun(self, token: str) -> tuple[str, str] | None:
        """What aside() has named, and the path that follows it in `token`."""
        aside, slash, path = token.removeprefix(f"{self.asides}/").partition("/")
        is_one = token.startswith(f"{self.asides}/") and slash
        return (f"{self.asides}/{aside}", slash + path) if is_one else None

    def origin(self, remote: str) -> str | None:
        """Where something out of the way belongs; None for the folders above and what is in it."""
        # Dropbox may spell the root in another case.
        aside, *path = remote.split("/")[self.root.count("/") + 2 :] or [""]
        depth = aside.partition("-")[0]
        return "/".join([self.root, *path]) if depth == str(len(path)) else None

"""One spelling of each path, for services that take several for the same; pure."""

import unicodedata
from collections.abc import Callable, Iterable

from davfusion.stores import paths


def fold(text: str) -> str:
    """The same for all spellings: of any case, and composed or not.

    As Dropbox folds: one letter becomes one, a sigma the same at the end of a word, and letters
    that Unicode 3.2 did not know keep their case.
    """
    if text.isascii():
        return text.lower()
    return "".join(map(_lower, unicodedata.normalize("NFC", text)))


def _lower(letter: str) -> str:
    is_known = unicodedata.ucd_3_2_0.category(letter) != "Cn"
    return letter.lower()[0] if is_known else letter


def canonical(
    path: str,
    is_there: Callable[[str], bool],
    names_like: Callable[[str, str], Iterable[str]],
) -> str:
    """`path` as what is there is spelled, and the rest composed (NFC).

    `names_like` gives at least the names in a directory that fold as one does; it is asked only
    where nothing `is_there` under the very spelling.
    """
    if path == paths.ROOT:
        return path
    directory = canonical(paths.parent(path), is_there, names_like)
    name = unicodedata.normalize("NFC", paths.name(path))
    as_given = paths.join(directory, name)
    if is_there(as_given):
        return as_given
    wanted = fold(name)
    found = (known for known in names_like(directory, name) if fold(known) == wanted)
    return paths.join(directory, next(found, name))

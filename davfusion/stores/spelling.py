"""One spelling of each path, for services that take several for the same."""

import unicodedata
from collections.abc import Callable, Collection, Mapping

from davfusion.stores import paths
from davfusion.stores.errors import NoSuchFilesytemObjectError
from davfusion.stores.store import Metadata


def fold(text: str) -> str:
    """The same for all spellings: of any case, and composed or not."""
    return unicodedata.normalize("NFC", text).lower()


def canonical(
    path: str, is_there: Callable[[str], bool], names_in: Callable[[str], Collection[str]]
) -> str:
    """`path` as what is there is spelled, and the rest composed (NFC).

    `names_in` gives the names in a directory, none for what is no directory; it is asked only where
    nothing `is_there` under the very spelling.
    """
    if path == paths.ROOT:
        return path
    directory = canonical(paths.parent(path), is_there, names_in)
    name = unicodedata.normalize("NFC", paths.name(path))
    as_given = paths.join(directory, name)
    if is_there(as_given):
        return as_given
    wanted = fold(name)
    found = (known for known in names_in(directory) if fold(known) == wanted)
    return paths.join(directory, next(found, name))


def names_in(listing: Callable[[str], Mapping[str, Metadata]], directory: str) -> Collection[str]:
    """The names in a directory, by what lists it; none where it is not there."""
    try:
        return listing(directory).keys()
    except NoSuchFilesytemObjectError:
        return ()

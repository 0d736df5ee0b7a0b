"""Walking a tree by its directories' listings."""

from collections.abc import Callable, Iterator, Mapping

from davfusion.stores import paths
from davfusion.stores.errors import NoSuchFilesytemObjectError
from davfusion.stores.store import Metadata

Members = Iterator[tuple[str, Metadata]]


def depth_first(
    directory: str, listing: Callable[[str], Mapping[str, Metadata]]
) -> Iterator[tuple[str, Metadata]]:
    """(path, metadata) of everything below `directory`, however deep.

    A directory that has gone when its turn comes is taken for an empty one; `directory` itself
    raises NoSuchFilesytemObjectError.
    """
    under_way = [_members(directory, listing(directory))]
    while under_way:
        found = next(under_way[-1], None)
        if found is None:
            under_way.pop()
            continue
        yield found
        path, metadata = found
        if metadata["is_dir"]:
            under_way.append(_members(path, _listing_if_there(path, listing)))


def _members(directory: str, listing: Mapping[str, Metadata]) -> Members:
    return ((paths.join(directory, name), metadata) for name, metadata in listing.items())


def _listing_if_there(
    directory: str, listing: Callable[[str], Mapping[str, Metadata]]
) -> Mapping[str, Metadata]:
    try:
        return listing(directory)
    except NoSuchFilesytemObjectError:
        return {}

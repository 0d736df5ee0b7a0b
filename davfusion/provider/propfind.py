"""PROPFIND (RFC 4918 section 9.1), written as text and sent piece by piece."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain

from wsgidav.dav_error import DAVError

from davfusion.provider import xml
from davfusion.provider.errors import translated
from davfusion.provider.live_properties import ALLPROP, LIVE, Resource, Scene, has_property
from davfusion.provider.locks import Lock
from davfusion.provider.request import XML_TYPE, DavRequest, Depth, Response
from davfusion.provider.syncing import SyncTokens
from davfusion.provider.tree import DavTree
from davfusion.provider.xml import DAV
from davfusion.stores import paths
from davfusion.stores.store import UNDATED_DIRECTORY, Metadata, NoSuchFilesytemObjectError

PIECE = 512 * 1024
"""Characters gathered before they are sent."""
LARGE = 8 * 1024 * 1024
"""Bytes of an answer from which on it is sent while it is made: thousands of names may be asked for
of thousands of files."""
Found = tuple[Resource, Mapping[str, str]]
"""A resource with its dead properties."""
Column = tuple[str, Callable[[Resource], str | None] | None]
"""The name of a property, and the writer of a live one."""
HEAD = f'{xml.DECLARATION}<D:multistatus xmlns:D="DAV:">'
TAIL = "</D:multistatus>"
_OK = "<D:status>HTTP/1.1 200 OK</D:status></D:propstat>"
_MISSING = "<D:status>HTTP/1.1 404 Not Found</D:status></D:propstat>"


@dataclass(frozen=True)
class Query:
    """What is asked for: `names` (None: all properties), or with `names_only` what there is."""

    names: tuple[str, ...] | None = None
    include: tuple[str, ...] = ()
    names_only: bool = False

    @property
    def wants_locks(self) -> bool:
        return self.names is None or DAV + "lockdiscovery" in self.names

    @property
    def wants_dead(self) -> bool:
        return self.names is None or any(name not in LIVE for name in self.names)


def parse_query(body: bytes) -> Query:
    """The query of a PROPFIND body; none at all means allprop (section 9.1)."""
    if not body.strip():
        return Query()
    root = xml.parse(body)
    if root.tag != DAV + "propfind":
        raise DAVError(400, "The body is not a propfind element.")
    kinds = {child.tag: child for child in root}
    asked = {DAV + "prop", DAV + "allprop", DAV + "propname"} & kinds.keys()
    if len(asked) != 1:
        raise DAVError(400, "A propfind holds one of prop, allprop and propname.")
    if DAV + "prop" in asked:
        return Query(names=tuple(dict.fromkeys(prop.tag for prop in kinds[DAV + "prop"])))
    if DAV + "propname" in asked:
        return Query(names_only=True)
    include = kinds.get(DAV + "include")
    return Query(include=tuple(prop.tag for prop in include) if include is not None else ())


_parse_short = lru_cache(maxsize=64)(parse_query)
"""A client sends the same few again and again."""
SHORT = 4096
"""Bytes of a query, and (_LONG_NAME) of a name in it, up to which they are remembered."""
_LONG_NAME = 256


def propfind(tree: DavTree, request: DavRequest) -> Response:
    """Answer a PROPFIND: one stat, and one listing or walk, whatever the number of members."""
    depth, query = _asked(request)
    # Before the stat, which some services need not be asked for any more then.
    listing = _listing(tree, request.path) if depth == "1" and request.names_folder else None
    metadata = tree.metadata(request.path)
    resources: Iterator[Found] = iter(())
    scene = scene_of(tree, request)
    if metadata["is_dir"] and depth == "1":
        resources = _members(tree, scene, query, request.path, listing)
    elif metadata["is_dir"] and depth == "infinity":
        resources = _descendants(tree, scene, query, request.path)
    own = resource_of(tree, scene, query, request.path, metadata)
    return _answer(depth, query, chain([own], resources))


def propfind_shares(shares: Iterable[tuple[DavTree, DavRequest]], request: DavRequest) -> Response:
    """Answer a PROPFIND of the root above `shares`, each with a request for its own root.

    A share shows there without a call to its store: one that is away does not hide the others.
    """
    depth, query = _asked(request)

    def found() -> Iterator[Found]:
        name, etag = paths.name(request.prefix), request.folder_etag
        root = Scene(request.href, name, _no_quota, None, _no_checksums, etag, False, 0.0)
        yield Resource(paths.ROOT, UNDATED_DIRECTORY, (), root), {}
        for tree, within in shares if depth != "0" else ():
            scene = scene_of(tree, within)._replace(quota=partial(_known_quota, tree))
            yield resource_of(tree, scene, query, paths.ROOT, UNDATED_DIRECTORY)
            if depth == "infinity":
                yield from _descendants(tree, scene, query, paths.ROOT)

    return _answer(depth, query, found())


def _no_quota() -> tuple[None, None]:
    return None, None


def _known_quota(tree: DavTree) -> tuple[int | None, int | None]:
    try:
        return tree.quota()
    except DAVError:
        return _no_quota()


def _no_checksums(_path: str) -> Mapping[str, str]:
    return {}


def _asked(request: DavRequest) -> tuple[Depth, Query]:
    depth = request.depth("infinity", "0", "1", "infinity")
    body = request.body()
    return depth, (_parse_short if len(body) <= SHORT else parse_query)(body)


def _answer(depth: Depth, query: Query, found: Iterable[Found]) -> Response:
    pieces = _multistatus(query, found)
    headers = [("Content-Type", XML_TYPE)]
    if depth == "infinity":
        # What fails before the first piece is still answered with a status.
        return Response(207, headers, chain([next(pieces)], pieces))
    beginning, size = list[bytes](), 0
    for piece in pieces:
        beginning.append(piece)
        size += len(piece)
        if size > LARGE:
            return Response(207, headers, chain(beginning, pieces))
    answer = b"".join(beginning)
    # The time that a lock has left runs down.
    is_lasting = not (query.wants_locks and b"<D:activelock>" in answer)
    return Response(207, headers, answer, is_lasting)


def resource_of(tree: DavTree, scene: Scene, query: Query, path: str, metadata: Metadata) -> Found:
    """A single resource as the query needs it."""
    locks = tuple(tree.state.locks.covering(path)) if query.wants_locks else ()
    dead = tree.state.properties.of(path) if query.wants_dead else {}
    return Resource(path, metadata, locks, scene), dead


def scene_of(tree: DavTree, request: DavRequest) -> Scene:
    """What an answer to the request is about."""
    tokens = SyncTokens(tree.store, tree.state, request.path)
    sums = _Checksums(tree, single=request.header("Depth") == "0")
    name, now = paths.name(request.prefix), tree.clock()
    etag, may_write = request.folder_etag, request.may_write
    return Scene(request.href, name, tree.quota, tokens, sums, etag, may_write, now)


class _Checksums:
    """ETag -> checksum of a file; looked up for each folder once, or for a `single` file."""

    def __init__(self, tree: DavTree, *, single: bool) -> None:
        self._of = tree.state.checksums.of
        self._of_members = tree.state.checksums.of_members
        self._single = single
        self._folders: dict[str, Mapping[str, Mapping[str, str]]] = {}

    def __call__(self, path: str) -> Mapping[str, str]:
        if self._single:
            return self._of(path)
        folder = paths.parent(path)
        if folder not in self._folders:
            self._folders = {folder: self._of_members(folder)}
        return self._folders[folder].get(paths.name(path), {})


def _listing(tree: DavTree, directory: str) -> dict[str, Metadata] | None:
    """Name -> metadata of all members; None where there is no such directory."""
    with translated():
        try:
            return tree.store.get_directory_metadata(directory)
        except NoSuchFilesytemObjectError:
            return None


def _members(
    tree: DavTree,
    scene: Scene,
    query: Query,
    directory: str,
    listing: Mapping[str, Metadata] | None,
) -> Iterator[Found]:
    if listing is None:
        with translated():
            listing = tree.store.get_directory_metadata(directory)
    dead = tree.state.properties.of_members(directory) if query.wants_dead else {}
    locks_of = _lock_finder(tree, directory, query)
    above, none = paths.join(directory, ""), dict[str, str]()
    for name, metadata in listing.items():
        path = above + name
        yield Resource(path, metadata, locks_of(path), scene), dead.get(name, none)


def _descendants(tree: DavTree, scene: Scene, query: Query, directory: str) -> Iterator[Found]:
    locks_of = _lock_finder(tree, directory, query)
    with translated():
        for path, metadata in tree.store.walk_metadata(directory):
            dead = tree.state.properties.of(path) if query.wants_dead else {}
            yield Resource(path, metadata, locks_of(path), scene), dead


def _lock_finder(tree: DavTree, directory: str, query: Query) -> Callable[[str], tuple[Lock, ...]]:
    """The locks of what lies below `directory`, looked up once."""
    if not query.wants_locks:
        return lambda _path: ()
    from_above = tuple(lock for lock in tree.state.locks.covering(directory) if lock.is_deep)
    within = tree.state.locks.below(directory)
    if not within:
        return lambda _path: from_above
    return lambda path: (
        from_above
        + tuple(
            lock
            for lock in within
            if lock.root == path or (lock.is_deep and paths.is_below(path, lock.root))
        )
    )


def _multistatus(query: Query, found: Iterable[Found]) -> Iterator[bytes]:
    columns = columns_of(query)
    responses = (property_response(query, columns, *one) for one in found)
    return gathered(chain([HEAD], responses, [TAIL]))


def gathered(texts: Iterable[str]) -> Iterator[bytes]:
    """The texts as UTF-8, in pieces that are worth to be sent."""
    piece, size = list[str](), 0
    for text in texts:
        piece.append(text)
        size += len(text)
        if size >= PIECE:
            yield "".join(piece).encode()
            piece, size = [], 0
    yield "".join(piece).encode()


def columns_of(query: Query) -> list[Column]:
    """The properties that the query names, for property_response."""
    return [(name, LIVE.get(name)) for name in query.names or ()]


def property_response(
    query: Query, columns: Sequence[Column], resource: Resource, dead: Mapping[str, str]
) -> str:
    """The response element of one resource."""
    href = resource.scene.href(resource.path, is_dir=resource.metadata["is_dir"])
    if query.names_only:
        found = [xml.empty_element(name) for name in LIVE if has_property(resource, name)]
        found += [xml.empty_element(name) for name in dead]
        missing: list[str] = []
    elif query.names is None:
        found = [element for name in ALLPROP if (element := LIVE[name](resource)) is not None]
        found += dead.values()
        missing = []
        if query.include:
            more = [
                (name, LIVE.get(name))
                for name in query.include
                if name not in ALLPROP and name not in dead
            ]
            extra, missing = _named(more, resource, dead)
            found += extra
    else:
        found, missing = _named(columns, resource, dead)
    # RFC 4918 section 14.24: a response without a propstat is not valid, so an empty one stands.
    stats = f"<D:propstat><D:prop>{''.join(found)}</D:prop>{_OK}" if found or not missing else ""
    if missing:
        stats += f"<D:propstat><D:prop>{''.join(missing)}</D:prop>{_MISSING}"
    return f"<D:response><D:href>{href}</D:href>{stats}</D:response>"


_remembered = lru_cache(maxsize=1024)(xml.empty_element)


def _empty_element(name: str) -> str:
    return (_remembered if len(name) <= _LONG_NAME else xml.empty_element)(name)


def _named(
    columns: Sequence[Column], resource: Resource, dead: Mapping[str, str]
) -> tuple[list[str], list[str]]:
    elements = [writer(resource) if writer else dead.get(name) for name, writer in columns]
    if None not in elements:
        return elements, []  # type: ignore[return-value]
    found = [element for element in elements if element is not None]
    named = zip(columns, elements, strict=True)
    return found, [_empty_element(name) for (name, _), element in named if element is None]

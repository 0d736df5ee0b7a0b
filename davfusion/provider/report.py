"""REPORT with DAV:sync-collection (RFC 6578), on every folder."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, groupby
from xml.etree.ElementTree import Element

from wsgidav.dav_error import DAVError

from davfusion.provider import xml
from davfusion.provider.errors import ConditionError, translated
from davfusion.provider.propfind import (
    HEAD,
    TAIL,
    Query,
    columns_of,
    gathered,
    property_response,
    resource_of,
    scene_of,
)
from davfusion.provider.request import XML_TYPE, DavRequest, Response
from davfusion.provider.sync_log import Change, InvalidTokenError, Scope
from davfusion.provider.syncing import available, look
from davfusion.provider.tree import DavTree
from davfusion.provider.xml import DAV
from davfusion.stores import paths
from davfusion.stores.errors import NoSuchFilesytemObjectError
from davfusion.stores.store import Metadata

_LEVELS = {"1": False, "infinite": True, "infinity": True}
_FEW = 16
"""Changes of one folder up to which its members are looked up singly."""


@dataclass(frozen=True)
class SyncQuery:
    """A sync-collection element; no token: everything is wanted."""

    token: str
    deep: bool
    limit: int | None
    names: tuple[str, ...]


def parse_sync(body: bytes, depth: str) -> SyncQuery:
    """The query of a REPORT's body; `depth` stands in for a missing level (appendix A)."""
    root = xml.parse(body)
    if root.tag != DAV + "sync-collection":
        raise ConditionError(403, "supported-report")
    level = (root.findtext(DAV + "sync-level") or depth).strip().lower()
    prop = root.find(DAV + "prop")
    if level not in _LEVELS or prop is None:
        raise DAVError(400, "A sync-collection holds a sync-level, 1 or infinite, and a prop.")
    return SyncQuery(
        (root.findtext(DAV + "sync-token") or "").strip(),
        _LEVELS[level],
        _limit(root),
        tuple(dict.fromkeys(wanted.tag for wanted in prop)),
    )


def _limit(root: Element) -> int | None:
    text = root.findtext(f"{DAV}limit/{DAV}nresults")
    if text is None:
        return None
    if not (text.strip().isascii() and text.strip().isdigit() and 0 < int(text) < 1 << 31):
        raise DAVError(400, "nresults is not a number of results.")
    return int(text)


def report(tree: DavTree, request: DavRequest) -> Response:
    """What is new, changed and gone since the client's token, and the token of now."""
    query = parse_sync(request.body(), request.depth("0", "0", "1", "infinity"))
    metadata = tree.metadata(request.path)
    tree.check_conditions(request, metadata)
    if not metadata["is_dir"]:
        raise ConditionError(403, "supported-report")
    scope = Scope(request.path, query.deep)
    with available():
        try:
            since = tree.state.sync.number(query.token, request.path) if query.token else 0
        except InvalidTokenError as error:
            raise ConditionError(403, "valid-sync-token") from error
        look(tree.store, tree.state, scope)
        cut = tree.state.sync.until(scope, since, query.limit) if query.limit else None
        token = cut or tree.state.sync.token(request.path)
        until = tree.state.sync.number(token, request.path)
    changes = tree.state.sync.changes(scope, since, until)
    pieces = chain([HEAD], _responses(tree, request, Query(query.names), changes))
    last = _cut(request) if cut else ""
    end = f"{last}<D:sync-token>{xml.text(token)}</D:sync-token>{TAIL}"
    body = gathered(chain(pieces, [end]))
    return Response(207, [("Content-Type", XML_TYPE)], chain([next(body)], body))


def _responses(
    tree: DavTree, request: DavRequest, query: Query, changes: Iterable[Change]
) -> Iterator[str]:
    columns, scene = columns_of(query), scene_of(tree, request)
    for directory, changed in groupby(changes, key=lambda change: change.directory):
        members = list(changed)
        found = _found(tree, directory, members)
        for member in members:
            path = paths.join(directory, member.name)
            metadata = found.get(member.name)
            if metadata is None:
                yield _gone(request, path, was_folder=member.was_folder)
            else:
                found_there = resource_of(tree, scene, query, path, metadata)
                yield property_response(query, columns, *found_there)


def _found(tree: DavTree, directory: str, members: list[Change]) -> dict[str, Metadata]:
    names = [member.name for member in members if not member.is_gone]
    if len(names) <= _FEW:
        looked_up = ((name, tree.find(paths.join(directory, name))) for name in names)
        return {name: metadata for name, metadata in looked_up if metadata is not None}
    with translated():
        try:
            return tree.store.get_directory_metadata(directory)
        except NoSuchFilesytemObjectError:
            return {}


def _gone(request: DavRequest, path: str, *, was_folder: bool) -> str:
    """By the name that it had: a folder's ends with a slash."""
    status = "<D:status>HTTP/1.1 404 Not Found</D:status>"
    href = request.href(path, is_dir=was_folder)
    return f"<D:response><D:href>{href}</D:href>{status}</D:response>"


def _cut(request: DavRequest) -> str:
    """Section 3.6: there is more than the client wants at a time."""
    return (
        f"<D:response><D:href>{request.href(request.path, is_dir=True)}</D:href>"
        "<D:status>HTTP/1.1 507 Insufficient Storage</D:status>"
        "<D:error><D:number-of-matches-within-limits/></D:error></D:response>"
    )

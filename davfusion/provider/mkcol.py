"""MKCOL (RFC 4918 section 9.3), with properties in its body too (RFC 5689)."""

from wsgidav.dav_error import DAVError

from davfusion.provider import xml
from davfusion.provider.errors import ConditionError, translated
from davfusion.provider.live_properties import LIVE
from davfusion.provider.proppatch import new_values, refused_stats
from davfusion.provider.request import XML_TYPE, DavRequest, Response
from davfusion.provider.tree import DavTree
from davfusion.provider.xml import DAV

_TYPE = DAV + "resourcetype"


def parse_mkcol(body: bytes) -> dict[str, str]:
    """Property name -> element, of an mkcol element; without the resource type, a plain folder's.

    DAVError 403 for another type, 415 for another body.
    """
    root = xml.parse(body)
    if root.tag != DAV + "mkcol":
        raise DAVError(415, "The body of a MKCOL is an mkcol element.")
    for wanted in root.iter(_TYPE):
        if {kind.tag for kind in wanted} != {DAV + "collection"}:
            raise ConditionError(403, "valid-resourcetype")
    values = new_values(root)
    values.pop(_TYPE, None)
    return {name: value for name, value in values.items() if value is not None}


def mkcol(tree: DavTree, request: DavRequest) -> Response:
    """Make a folder in one that exists; with all the properties that are asked for, or none."""
    values = _properties(request) if request.body() else {}
    existing = tree.find_place(request)
    tree.check_conditions(request, existing)
    if existing is not None:
        raise DAVError(405, "The name is taken.")
    tree.check_parent(request.path)
    tree.check_locks(request, request.path, membership=True)
    if refused := [name for name in values if name in LIVE]:
        stats = refused_stats(values, refused)
        body = f'{xml.DECLARATION}<D:mkcol-response xmlns:D="DAV:">{stats}</D:mkcol-response>'
        return Response(424, [("Content-Type", XML_TYPE)], body.encode())
    with translated():
        tree.store.create_directory(request.path)
    if values:
        tree.state.properties.change(request.path, values)
    return Response(201)


def _properties(request: DavRequest) -> dict[str, str]:
    kind = (request.header("Content-Type") or "application/xml").partition(";")[0].strip()
    if kind.lower() not in ("application/xml", "text/xml"):
        raise DAVError(415, "The body of a MKCOL is XML.")
    return parse_mkcol(request.body())

"""Answers to reading requests are given again while nothing has changed."""

from collections.abc import Callable, Hashable

from davfusion.memo import REPEATABLE, Memo, Moment, Repeatable
from davfusion.provider.propfind import SHORT
from davfusion.provider.request import DavRequest, Response
from davfusion.provider.tree import DavTree

_CONDITIONS = (
    "HTTP_RANGE", "HTTP_IF_RANGE", "HTTP_IF", "HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH",
    "HTTP_IF_MODIFIED_SINCE", "HTTP_IF_UNMODIFIED_SINCE",
)  # fmt: skip

Method = Callable[[DavTree, DavRequest], Response]


def memo_for(tree: DavTree) -> Memo | None:
    """The memo of one process; None where answers must not be given again."""
    validity = tree.store.validity
    if validity is None or validity.folder != tree.state.folder:
        return None  # locks and properties would change unnoticed
    return Memo(validity)


def answered(memo: Memo | None, method: Method, tree: DavTree, request: DavRequest) -> Response:
    """What `method` answers now, or has answered to the same question.

    Who stands in front finds in the environ whether the answer may be given again.
    """
    question = memo and _question(request)
    if memo is None or question is None:
        return method(tree, request)
    found: tuple[Moment, Response] | None = memo.recall(question)
    moment, response = found or _made(memo, question, method, tree, request)
    if response.repeatable_size is not None:
        request.environ[REPEATABLE] = Repeatable(memo, moment)
    return response


def _made(
    memo: Memo, question: Hashable, method: Method, tree: DavTree, request: DavRequest
) -> tuple[Moment, Response]:
    moment = memo.begin()
    request.folder_etag = tree.folder_etag()  # of no earlier moment: a body may have come slowly
    response = method(tree, request)
    if (size := response.repeatable_size) is not None:
        memo.keep(question, moment, response, size)
    return moment, response


def _question(request: DavRequest) -> Hashable | None:
    """All that the answer depends on; None for a question that is not worth to be kept."""
    environ = request.environ
    if any(name in environ for name in _CONDITIONS):
        return None
    if request.method in ("GET", "HEAD"):
        return (request.method, request.prefix, request.path) if not request.has_body() else None
    if request.method == "PROPFIND" and (depth := environ.get("HTTP_DEPTH")) in ("0", "1"):
        body = request.body()
        asked = (depth, request.prefix, request.path, body, request.may_write)
        return asked if len(body) <= SHORT else None
    return None

"""Conditional requests: If-Match and its kin (RFC 9110 section 13), If (RFC 4918 section 10.4).

Pure: what holds now is given as values. The entity tags here are a store's, without quotes.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import mktime_tz, parsedate_tz

from wsgidav.dav_error import DAVError

from davfusion.provider.live_properties import version_headers
from davfusion.provider.request import DavRequest
from davfusion.stores.store import ABSENT, Metadata

_TAG = re.compile(r'\s*(W/)?"([^"]*)"\s*(?:,|$)|\s*([^",\s][^,]*?)\s*(?:,|$)')
_IF_TOKEN = re.compile(
    r"\s*(?:(?P<open>\()|(?P<close>\))|(?P<not>[Nn][Oo][Tt])(?=[\s<\[])|<(?P<uri>[^<>]*)>"
    r'|\[\s*(?P<weak>W/)?"(?P<etag>[^"]*)"\s*\])'
)


@dataclass(frozen=True)
class StateCondition:
    """One condition of a list: a lock token or an entity tag that must, or must not, be there."""

    value: str
    is_etag: bool
    negated: bool


@dataclass(frozen=True)
class ConditionList:
    """Conditions that must all hold of the resource `tag` (None: of the request's own)."""

    tag: str | None
    conditions: tuple[StateCondition, ...]


def parse_if(header: str) -> tuple[ConditionList, ...]:
    """The lists of an If header; DAVError 400 when it cannot be read."""
    lists: list[ConditionList] = []
    tag: str | None = None
    position, header = 0, header.strip()
    while position < len(header):
        token = _IF_TOKEN.match(header, position)
        if token is None:
            raise DAVError(400, "The If header cannot be read.")
        position = token.end()
        if token["uri"] is not None:
            tag = token["uri"]
        elif token["open"]:
            conditions, position = _parse_list(header, position)
            lists.append(ConditionList(tag, conditions))
        else:
            raise DAVError(400, "The If header cannot be read.")
    if not lists:
        raise DAVError(400, "The If header holds no list.")
    return tuple(lists)


def _parse_list(header: str, position: int) -> tuple[tuple[StateCondition, ...], int]:
    conditions: list[StateCondition] = []
    negated = False
    while (token := _IF_TOKEN.match(header, position)) is not None and not token["open"]:
        position = token.end()
        if token["close"]:
            if negated or not conditions:
                break
            return tuple(conditions), position
        if token["not"]:
            if negated:
                break
            negated = True
            continue
        is_etag = token["etag"] is not None
        value = (token["weak"] or "") + token["etag"] if is_etag else token["uri"]
        conditions.append(StateCondition(value, is_etag, negated))
        negated = False
    raise DAVError(400, "The If header cannot be read.")


def submitted_tokens(lists: tuple[ConditionList, ...]) -> frozenset[str]:
    """The lock tokens that a client shows it knows, wherever in the header they stand."""
    return frozenset(c.value for one in lists for c in one.conditions if not c.is_etag)


def if_holds(
    lists: tuple[ConditionList, ...],
    etag_of: Callable[[str | None], str | None],
    tokens_of: Callable[[str | None], frozenset[str]],
) -> bool:
    """Whether at least one list is true; the functions tell the state of a list's resource."""
    for one in lists:
        etag, tokens = etag_of(one.tag), tokens_of(one.tag)
        if all(
            ((c.value == etag) if c.is_etag else (c.value in tokens)) != c.negated
            for c in one.conditions
        ):
            return True
    return False


def parse_entity_tags(header: str) -> list[tuple[str, bool]]:
    """(tag, is weak) for each entity tag of a list; an unquoted one is taken as it stands."""
    tags: list[tuple[str, bool]] = []
    position, header = 0, header.strip()
    while position < len(header):
        found = _TAG.match(header, position)
        if found is None or found.end() == position:
            raise DAVError(400, "A list of entity tags cannot be read.")
        position = found.end()
        tags.append((found[3] or found[2] or "", bool(found[1])))
    return tags


def parse_http_date(header: str | None) -> int | None:
    """Seconds since the epoch; None for no date or an unreadable one, which is to be ignored."""
    parsed = parsedate_tz(header) if header else None
    try:
        return int(mktime_tz(parsed)) if parsed else None
    except (ValueError, OverflowError):
        return None


def check_http_conditions(request: DavRequest, metadata: Metadata | None) -> None:
    """Raise DAVError 412, or 304 for a read, in the order of RFC 9110 section 13.2.2.

    `metadata` is of what is there, with the tag of a folder.
    """
    etag = metadata.get("etag") if metadata else None
    if (wanted := request.header("If-Match")) is not None:
        if not _matches(wanted, metadata, etag, weak_too=False):
            raise DAVError(412, "If-Match does not hold.")
    elif metadata and _is_newer(metadata, request.header("If-Unmodified-Since")):
        raise DAVError(412, "If-Unmodified-Since does not hold.")
    is_read = request.method in ("GET", "HEAD")
    if (unwanted := request.header("If-None-Match")) is not None:
        if _matches(unwanted, metadata, etag, weak_too=True):
            if is_read and metadata:
                raise _not_modified(metadata)
            raise DAVError(412, "If-None-Match does not hold.")
    elif is_read and metadata and _is_unmodified(metadata, request.header("If-Modified-Since")):
        raise _not_modified(metadata)


def _not_modified(metadata: Metadata) -> DAVError:
    """304 with what a 200 would have said of the version (RFC 9110 section 15.4.5)."""
    return DAVError(304, add_headers=version_headers(metadata))


def names_version(request: DavRequest) -> bool:
    """Whether the request has a condition on the version of what it changes."""
    version_headers = ("If-Match", "If-None-Match", "If-Unmodified-Since")
    return any(request.header(name) is not None for name in version_headers) or "[" in (
        request.header("If") or ""
    )


def write_guard(request: DavRequest, metadata: Metadata | None) -> str | None:
    """The `if_etag` that makes the store hold to what a conditional write was judged by.

    None for a write without conditions on the version, and where any version will do.
    """
    any_version = request.header("If-Match") == "*" and request.header("If") is None
    if any_version or not names_version(request):
        return None
    return metadata.get("etag") if metadata else ABSENT


def _matches(header: str, metadata: Metadata | None, etag: str | None, *, weak_too: bool) -> bool:
    if header.strip() == "*":
        return metadata is not None
    return any(tag == etag and (weak_too or not weak) for tag, weak in parse_entity_tags(header))


def _is_newer(metadata: Metadata, header: str | None) -> bool:
    since = parse_http_date(header)
    return since is not None and int(metadata["modified"]) > since


def _is_unmodified(metadata: Metadata, header: str | None) -> bool:
    """Never so for a folder: its date says little of what is in it."""
    since = None if metadata["is_dir"] else parse_http_date(header)
    return since is not None and int(metadata["modified"]) <= since

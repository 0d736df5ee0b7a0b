"""Reading ListObjectsV2's answers: the SDK's own parser takes ten times as long.

The SDK still signs, sends, judges errors and retries. What it hands over before it parses
(https://botocore.amazonaws.com/v1/documentation/api/latest/topics/events.html) is read here if it
is what it should be, and left to the SDK's parser if it is anything else.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_plus
from xml.etree import ElementTree

from davfusion.stores.s3.listing import Entry, Page

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_READ: Final = "DavfusionPage"
_EMPTY: Final = b"<ListBucketResult/>"

Fields = dict[str, str | None]
"""The text of an element's members, by their names; of those that recur, the last."""


def read_pages(client: "S3Client") -> None:
    """Have the listings of `client` read here; page_of() then gives them."""
    # First: before the SDK looks through the whole body for an error that came with a 200.
    client.meta.events.register_first("before-parse.s3.ListObjectsV2", _read)


def page_of(answer: Mapping[str, Any]) -> Page:
    """The page that list_objects_v2 of such a client has answered with."""
    page: Page | None = answer.get(_READ)
    return _parsed_by_sdk(answer) if page is None else page


def _read(
    response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: object
) -> None:
    if response_dict["status_code"] != 200:
        return
    page = read_page(response_dict["body"])
    if page is not None:
        customized_response_dict[_READ] = page
        response_dict["body"] = _EMPTY


def read_page(body: bytes) -> Page | None:
    """The page that `body` is, None if anything about it is out of the ordinary."""
    try:
        # As the SDK does itself; Expat bounds what entities may grow to.
        root = ElementTree.XML(body, ElementTree.XMLParser(encoding="utf-8"))  # noqa: S314
        return _page(root) if _name(root) == "ListBucketResult" else None
    except (ElementTree.ParseError, ValueError, TypeError, KeyError):
        return None


def _page(root: ElementTree.Element) -> Page:
    objects: list[Fields] = []
    prefixes: list[str] = []
    top: Fields = {}
    for element in root:
        name = _name(element)
        if name == "Contents":
            objects.append(_fields(element))
        elif name == "CommonPrefixes":
            prefixes.append(_fields(element)["Prefix"] or "")
        else:
            top[name] = element.text
    keys = [entry["Key"] or "" for entry in objects]
    if top.get("EncodingType") == "url":
        keys, prefixes = _unquoted_all(keys), _unquoted_all(prefixes)
    following = top.get("NextContinuationToken") if top.get("IsTruncated") == "true" else None
    entries = [
        Entry(
            key,
            int(entry["Size"] or ""),
            _seconds(entry["LastModified"] or ""),
            unquoted(entry.get("ETag")),
        )
        for key, entry in zip(keys, objects, strict=True)
    ]
    return Page(entries, prefixes, following or None)


def _unquoted_all(texts: list[str]) -> list[str]:
    """Five times as fast as one by one; XML holds no NUL, unless it was quoted too."""
    joined = "\0".join(texts)
    if "%00" in joined or not texts:
        return [*map(unquote_plus, texts)]
    return unquote_plus(joined).split("\0")


def _seconds(date: str) -> float:
    """Of ISO 8601 in UTC; ValueError for other spellings."""
    if not date.endswith("Z"):
        raise ValueError(date)
    return datetime.fromisoformat(date).timestamp()


def _fields(element: ElementTree.Element) -> Fields:
    return {_name(member): member.text for member in element}


def _name(element: ElementTree.Element) -> str:
    """Without the namespace, which some servers leave out and others spell otherwise."""
    return element.tag.rpartition("}")[2]


def _parsed_by_sdk(answer: Mapping[str, Any]) -> Page:
    return Page(
        [
            Entry(
                entry["Key"],
                entry["Size"],
                entry["LastModified"].timestamp(),
                unquoted(entry.get("ETag")),
            )
            for entry in answer.get("Contents", [])
        ],
        [prefix["Prefix"] for prefix in answer.get("CommonPrefixes", [])],
        (answer.get("NextContinuationToken") or None) if answer.get("IsTruncated") else None,
    )


def unquoted(etag: str | None) -> str:
    """An ETag as the Store contract has it."""
    return (etag or "").removeprefix("W/").strip('"')

"""Headers and bodies of DAV requests, singly and by whole requests."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsgidav.dav_error import DAVError

from davfusion.provider.conditions import parse_entity_tags, parse_http_date, parse_if
from davfusion.provider.download import parse_ranges
from davfusion.provider.locking import LONGEST_SECONDS, parse_lockinfo, parse_timeout
from davfusion.provider.mkcol import parse_mkcol
from davfusion.provider.patch import parse_update_range
from davfusion.provider.propfind import parse_query
from davfusion.provider.proppatch import parse_update
from davfusion.provider.provider import METHODS
from davfusion.provider.report import parse_sync
from davfusion.provider.request import DavRequest
from davfusion.provider.upload import client_mtime, expected_digests
from davfusion.stores.paths import check_path
from tests.fuzz.fuzzing import as_header, fuzzed, refusal, texts, wsgi_texts
from tests.provider.client import DavClient

SIZE = 100
TAGS = ('"a"', 'W/"b"', "*", ",", '"', "W/")
DATES = ("Sun, 22 Nov 2026 14:00:00 GMT", "Sunday", "Nov", "1994", ":", "-", "+9999", "GMT")
VALUES: dict[str, tuple[str, ...]] = {
    "Range": ("bytes=", "-", ",", "0-9", "5-2", "bytes"),
    "If": ("(", ")", "<urn:a>", "[", "]", '["a"]', "Not ", "<http://localhost/f>", *TAGS),
    "If-Match": TAGS,
    "If-None-Match": TAGS,
    "If-Modified-Since": DATES,
    "If-Unmodified-Since": DATES,
    "If-Range": (*TAGS, *DATES),
    "Destination": (
        "http://localhost",
        "/",
        "f",
        "d",
        "..",
        "%2e",
        "%zz",
        "?",
        "#",
        "@",
        "[",
        "]:",
    ),
    "Depth": ("0", "1", "infinity", ","),
    "Overwrite": ("T", "F"),
    "Timeout": ("Second-", "Infinite", ",", "4100000000"),
    "Lock-Token": ("<", ">", "urn:uuid:", "opaquelocktoken:"),
    "X-Update-Range": ("bytes", "=", "-", "append", "3"),
    "X-OC-Mtime": ("1700000000", ".", "e", "nan", "inf", "-", "_"),
    "Content-Range": ("bytes ", "0-4/5", "*"),
    "Content-MD5": ("1B2M2Y8AsgTpgAmY7PhCfg==", "=", "+"),
    "Digest": ("sha-256=", "md5=", ",", "=", ":"),
    "OC-Checksum": ("SHA1:", "MD5:", "ADLER32:", "da39", "0"),
    "Content-Type": ("application/x-sabredav-partialupdate", "application/xml", ";", "/", "text"),
    "Authorization": ("Basic ", "Digest ", "OmE=", "YTpi", "Og=="),
    "Content-Length": ("5",),
    "X-Expected-Entity-Length": ("5", "0"),
}
"""Of each header that is read, what it may be made of."""

DOCUMENTS = ("propfind", "propertyupdate", "lockinfo", "mkcol", "sync-collection")
ELEMENTS = ("prop", "set", "remove", "x:a", "owner", "sync-level", "sync-token")
NS = 'xmlns="DAV:" xmlns:x="urn:x"'
XML = texts(
    *(f"<{name} {NS}>" for name in DOCUMENTS),
    *(f"<{name}>" for name in ELEMENTS),
    *(f"</{name}>" for name in DOCUMENTS + ELEMENTS),
    f"<propfind {NS}><prop><getetag/><x:a/></prop></propfind>",
    f'<propertyupdate {NS}><set><prop><x:a xml:lang="é">1</x:a></prop></set></propertyupdate>',
    f"<lockinfo {NS}><lockscope><shared/></lockscope><locktype><write/></locktype></lockinfo>",
    f"<mkcol {NS}><set><prop><resourcetype><collection/></resourcetype></prop></set></mkcol>",
    f"<sync-collection {NS}><sync-token/><sync-level>1</sync-level><prop/></sync-collection>",
    "<allprop/>", "<propname/>", "<![CDATA[", "]]>", "<!--", "-->", "&amp;", "&#0;", "&a;",
    '<?xml version="1.0" encoding="utf-16"?>', '<!DOCTYPE a [<!ENTITY a "b">]>', "<!DOCTYPE a>",
).map(lambda text: text.encode("utf-8", "surrogatepass"))  # fmt: skip

XML_PARSERS: dict[str, Callable[[bytes], Any]] = {
    "PROPFIND": parse_query,
    "PROPPATCH": parse_update,
    "LOCK": parse_lockinfo,
    "MKCOL": parse_mkcol,
    "REPORT": lambda body: parse_sync(body, "1"),
}


def header(name: str) -> st.SearchStrategy[str]:
    return wsgi_texts(*VALUES[name])


def request_with(name: str, value: str) -> DavRequest:
    key = "HTTP_" + name.upper().replace("-", "_")
    return DavRequest(
        {"REQUEST_METHOD": "PUT", "PATH_INFO": "/f", "HTTP_HOST": "localhost", key: value}
    )


@fuzzed
@given(header("Range"))
def test_ranges_lie_within_the_file(value: str) -> None:
    for part in parse_ranges(value, SIZE) or []:
        assert 0 <= part.start < part.start + part.length <= SIZE


@fuzzed
@given(header("X-Update-Range"))
def test_parts_to_update_begin_within_the_file(value: str) -> None:
    try:
        update = parse_update_range(value, SIZE)
    except DAVError as error:
        assert error.value in (400, 416)
    else:
        assert 0 <= update.start <= SIZE
        assert update.length is None or update.length > 0


@fuzzed
@given(header("If"), header("If-Match"))
def test_conditions(lists: str, tags: str) -> None:
    for refused in (
        refusal(lambda: parse_if(lists), DAVError),
        refusal(lambda: parse_entity_tags(tags), DAVError),
    ):
        assert refused is None or getattr(refused, "value", 0) == 400


@fuzzed
@given(header("If-Modified-Since"))
def test_dates_are_seconds_or_nothing(value: str) -> None:
    assert isinstance(parse_http_date(value), int | None)


@fuzzed
@given(header("Destination"))
def test_destinations_are_paths(value: str) -> None:
    try:
        path = request_with("Destination", value).destination
    except DAVError as error:
        assert error.value in (400, 502)
    else:
        check_path(path)


@fuzzed
@given(header("Timeout"))
def test_timeouts_are_bounded(value: str) -> None:
    assert 1 <= parse_timeout(value) <= LONGEST_SECONDS


@fuzzed
@pytest.mark.parametrize("name", ["X-OC-Mtime", "Content-MD5", "Digest", "OC-Checksum"])
@given(st.data())
def test_what_is_said_of_a_content(name: str, data: st.DataObject) -> None:
    request = request_with(name, data.draw(header(name)))
    for read in (client_mtime, expected_digests):
        refused = refusal(lambda read=read: read(request), DAVError)  # type: ignore[misc]
        assert refused is None or getattr(refused, "value", 0) == 400


@fuzzed
@pytest.mark.parametrize("method", XML_PARSERS)
@given(XML)
def test_xml_bodies(method: str, body: bytes) -> None:
    refused = refusal(lambda: XML_PARSERS[method](body), DAVError)
    assert refused is None or 400 <= getattr(refused, "value", 0) < 500


@fuzzed
@given(
    st.sampled_from(sorted(METHODS)),
    wsgi_texts("/", "f", "d", "..", "new"),
    st.lists(st.sampled_from(sorted(VALUES)), max_size=4).flatmap(
        lambda names: st.fixed_dictionaries({name: header(name) for name in names})
    ),
    XML,
)
def test_no_request_makes_the_server_fail(
    method: str, path: str, headers: dict[str, str], body: bytes
) -> None:
    client = DavClient()
    client.put("/f", b"content")
    client.mkcol("/d")
    headers.pop("Content-Length", None)
    reply = client(method, "/" + as_header(path), body, headers)
    assert reply.status < 500 or reply.status in (501, 502), reply.body

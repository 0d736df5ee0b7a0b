"""Our reader of listings against the SDK's own parser."""

from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote_plus
from xml.sax.saxutils import escape

import pytest
from botocore import handlers, parsers
from botocore.model import ServiceModel
from hypothesis import given
from hypothesis import strategies as st

from davfusion.stores.s3.client import ClientSettings, make_session
from davfusion.stores.s3.listing import Page
from davfusion.stores.s3.pages import page_of, read_page

AWS = "http://s3.amazonaws.com/doc/2006-03-01/"
KEYS = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=12)
QUOTED = st.lists(KEYS | st.sampled_from(["+", "%2B", "%C3", "%BC", "%00", "%"])).map("".join)
DATES = st.integers(0, 1 << 34).map(
    lambda second: f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}"
)


def by_sdk(body: bytes) -> Page:
    """What the SDK makes of it."""
    answer = {"status_code": 200, "headers": {}, "body": body}
    parsed = parsers.create_parser("rest-xml").parse(answer, SHAPE)
    handlers.decode_list_object_v2(parsed, {"encoding_type_auto_set": True})
    return page_of(parsed)


def _shape() -> Any:
    loader = make_session(ClientSettings())._session.get_component("data_loader")
    model = ServiceModel(loader.load_service_model("s3", "service-2"))
    return model.operation_model("ListObjectsV2").output_shape


SHAPE = _shape()


def element(name: str, *members: str) -> str:
    return f"<{name}>{''.join(members)}</{name}>"


def write(text: str, is_url: bool) -> str:
    return escape(quote_plus(text) if is_url else text, {'"': "&quot;"})


@st.composite
def objects(draw: st.DrawFn, is_url: bool) -> str:
    """An object as some server writes it: more or less of it, in any order."""
    members = [
        element("Key", escape(draw(QUOTED)) if is_url else write(draw(KEYS), is_url)),
        element("Size", str(draw(st.integers(0, 1 << 42)))),
        element("LastModified", draw(DATES) + draw(st.sampled_from(["Z", ".000Z", ".123456Z"]))),
    ]
    optional = [
        element(
            "ETag", draw(st.sampled_from(['"a-1"', "&#34;b&#34;", "W/&quot;c&quot;", "d", ""]))
        ),
        element("Owner", element("ID", "1"), element("DisplayName", "Key")),
        "<StorageClass/>",
        element("ChecksumAlgorithm", "CRC32") * 2,
    ]
    members += draw(st.lists(st.sampled_from(optional), unique=True))
    return element("Contents", *draw(st.permutations(members)))


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A page as some server writes it."""
    is_url = draw(st.booleans())
    members = draw(st.lists(objects(is_url), max_size=4))
    members += [
        element("CommonPrefixes", element("Prefix", write(draw(KEYS) + "/", is_url)))
        for _ in range(draw(st.integers(0, 2)))
    ]
    optional = [
        element("IsTruncated", draw(st.sampled_from(["true", "false"]))),
        element("NextContinuationToken", write(draw(KEYS), is_url=False)),
        element("Name", "bucket"),
        "<Prefix/><StartAfter/><Delimiter>%2F</Delimiter>",
        "\n  ",
    ]
    members += draw(st.lists(st.sampled_from(optional), unique=True))
    members += [element("EncodingType", "url")] if is_url else []
    root = draw(st.sampled_from(["", f' xmlns="{AWS}"', ' xmlns="http://other/"']))
    text = f"<ListBucketResult{root}>{''.join(draw(st.permutations(members)))}</ListBucketResult>"
    return (draw(st.sampled_from(["", '<?xml version="1.0"?>\n'])) + text).encode()


@given(bodies())
def test_a_page_is_read_as_the_sdk_reads_it(body: bytes) -> None:
    page = read_page(body)
    assert page is not None
    assert page == by_sdk(body)


@given(bodies(), st.data())
def test_what_is_damaged_is_left_to_the_sdk_or_read_as_it_does(body: bytes, data: Any) -> None:
    start = data.draw(st.integers(0, len(body)))
    end = data.draw(st.integers(start, min(len(body), start + 40)))
    damaged = body[:start] + data.draw(st.binary(max_size=3)) + body[end:]
    page = read_page(damaged)
    assert page is None or page == by_sdk(damaged)


OBJECT = element("Key", "k") + element("Size", "1")
DATED = element("LastModified", "2026-11-22T10:17:45Z")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<ListBucketResult>",
        "<Error><Code>InternalError</Code></Error>",
        "<html/>",
        element("ListBucketResult", element("Contents", OBJECT)),
        element("ListBucketResult", element("Contents", DATED, element("Size", "1"))),
        element("ListBucketResult", element("Contents", DATED, element("Key", "k"))),
        element("ListBucketResult", element("Contents", DATED, element("Key", "k"), "<Size/>")),
        element("ListBucketResult", element("Contents", OBJECT, "<LastModified/>")),
        element("ListBucketResult", element("Contents", OBJECT, element("LastModified", "noon"))),
        element("ListBucketResult", element("Contents", OBJECT, DATED.replace("Z<", "+01:00<"))),
        element("ListBucketResult", "<CommonPrefixes/>"),
        "<!DOCTYPE l [<!ENTITY a 'k'>]><ListBucketResult>&undefined;</ListBucketResult>",
    ],
)
def test_what_is_out_of_the_ordinary_is_left_to_the_sdk(text: str) -> None:
    assert read_page(text.encode()) is None


def test_entities_do_not_grow_without_bound() -> None:
    nested = "".join(f"<!ENTITY e{n + 1} '{f'&e{n};' * 10}'>" for n in range(9))
    bomb = f"<!DOCTYPE l [<!ENTITY e0 'lol'>{nested}]>"
    text = bomb + element("ListBucketResult", element("Name", "&e9;"))
    assert read_page(text.encode()) is None

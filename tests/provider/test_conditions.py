"""Conditional requests: RFC 9110 section 13 and the If header of RFC 4918 (row D5)."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsgidav.dav_error import DAVError

from davfusion.provider.conditions import (
    if_holds,
    parse_entity_tags,
    parse_http_date,
    parse_if,
    submitted_tokens,
)
from tests.provider.client import DavClient

OLD = "Sat, 01 Jan 2000 00:00:00 GMT"
FUTURE = "Fri, 01 Jan 2100 00:00:00 GMT"


def holds(header: str, etag: str | None = "e", tokens: frozenset[str] = frozenset({"t"})) -> bool:
    return if_holds(parse_if(header), lambda _tag: etag, lambda _tag: tokens)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("(<t>)", True),
        ("(<u>)", False),
        ("(Not <u>)", True),
        ("(NOT <t>)", False),
        ('(["e"])', True),
        ('(["f"])', False),
        ('([W/"e"])', False),
        ('(<t> ["e"])', True),
        ('(<t> ["f"])', False),
        ('(<t> ["f"]) (["e"])', True),
        ("(<u>) (Not <DAV:no-lock>)", True),
        ("(<DAV:no-lock>)", False),
        ("<http://localhost/a> (<t>)", True),
        ('<http://localhost/a>(<u>)(<u>)<http://localhost/b>(["e"])', True),
    ],
)
def test_if_is_true_when_one_list_is(header: str, expected: bool) -> None:
    assert holds(header) is expected


@pytest.mark.parametrize(
    "header",
    ["x", "(", ")", "()", "(<t>", "(Not)", "(Not Not <t>)", "<a>", "<a", "(<t>) x", "([e])"],
)
def test_if_that_cannot_be_read_is_refused(header: str) -> None:
    with pytest.raises(DAVError):
        parse_if(header)


@given(st.text(alphabet='()<>[]"Nnot W/ ta', max_size=60))
def test_any_if_header_is_read_or_refused(header: str) -> None:
    try:
        lists = parse_if(header)
    except DAVError as error:
        assert error.value == 400
    else:
        assert lists
        submitted_tokens(lists)


@given(st.text(max_size=60))
def test_any_list_of_entity_tags_is_read_or_refused(header: str) -> None:
    try:
        parse_entity_tags(header)
    except DAVError as error:
        assert error.value == 400


@given(st.text(max_size=40))
def test_any_date_is_read_or_ignored(header: str) -> None:
    assert parse_http_date(header) is None or isinstance(parse_http_date(header), int)


def test_tokens_are_submitted_wherever_they_stand() -> None:
    lists = parse_if('<http://h/a> (<t> ["e"]) (Not <u>)')
    assert submitted_tokens(lists) == {"t", "u"}


def test_entity_tags_are_split() -> None:
    assert parse_entity_tags('"a", W/"b,c" ,"d"') == [("a", False), ("b,c", True), ("d", False)]
    assert parse_entity_tags("Unquoted-123") == [("Unquoted-123", False)]


@pytest.fixture
def client() -> DavClient:
    client = DavClient()
    client.put("/f", b"old")
    return client


BAD = [
    {"If-Match": '"other"'},
    {"If-None-Match": "*"},
    {"If-Unmodified-Since": OLD},
    {"If": '(["other"])'},
    {"If": "(<opaquelocktoken:none>)"},
    {"If": "<http://localhost/f> (<opaquelocktoken:none>)"},
]


@pytest.mark.parametrize("condition", BAD)
@pytest.mark.parametrize("method", ["PUT", "DELETE", "MOVE", "COPY", "PROPPATCH", "LOCK"])
def test_a_failed_condition_changes_nothing(
    client: DavClient, method: str, condition: dict[str, str]
) -> None:
    before = client.get("/f")
    headers = condition | ({"Destination": "/g"} if method in ("MOVE", "COPY") else {})
    body = {"PUT": b"new", "PROPPATCH": b"<x/>", "LOCK": b"<x/>"}.get(method, b"")
    if method == "PROPPATCH":
        assert client.proppatch("/f", "<X:p>1</X:p>", **condition).status == 412
    elif method == "LOCK":
        assert client.lock("/f", **condition).status == 412
    else:
        assert client(method, "/f", body, headers).status == 412
    assert client.get("/f") == before
    assert client.get("/g").status == 404
    assert client.state.locks.covering("/f") == []


def test_conditions_hold_on_a_missing_target_too(client: DavClient) -> None:
    assert client.put("/new", b"x", If_Match="*").status == 412
    assert client.put("/new", b"x", If_Match='"e"').status == 412
    assert client("MKCOL", "/new", headers={"If-Match": "*"}).status == 412
    assert client.get("/new").status == 404
    assert client.put("/new", b"x", If_None_Match="*").status == 201
    assert client.put("/new", b"y", If_None_Match="*").status == 412
    assert client.get("/new").body == b"x"


def test_conditions_that_hold_let_the_request_through(client: DavClient) -> None:
    assert client.put("/f", b"1", If_Match=client.etag("/f")).status == 204
    assert client.put("/f", b"2", If_Match=f'"x", {client.etag("/f")}').status == 204
    assert client.put("/f", b"3", If=f"([{client.etag('/f')}])").status == 204
    assert client.put("/f", b"4", If_None_Match='"other"').status == 204
    assert client.put("/f", b"5", If_None_Match="JoplinIgnore-123").status == 204
    assert client.put("/f", b"6", If_Unmodified_Since=FUTURE).status == 204
    assert client.get("/f").body == b"6"


def test_not_modified(client: DavClient) -> None:
    etag = client.etag("/f")
    reply = client.get("/f", If_None_Match=f'"x", W/{etag}')
    assert (reply.status, reply.body, reply.headers["etag"]) == (304, b"", etag)
    assert client.get("/f", If_Modified_Since=FUTURE).status == 304
    assert client.get("/f", If_Modified_Since=OLD).status == 200
    assert client.get("/f", If_None_Match='"x"', If_Modified_Since=FUTURE).status == 200
    assert client("HEAD", "/f", headers={"If-None-Match": "*"}).status == 304


def test_same_second_rewrites_have_different_etags(client: DavClient) -> None:
    etags = set()
    for _ in range(5):
        client.put("/f", b"same size", X_OC_Mtime="1000000000")
        etags.add(client.etag("/f"))
    assert len(etags) == 5


def test_the_store_holds_a_conditional_write_to_what_it_was_judged_by(client: DavClient) -> None:
    """A foreign write between the check and the write is not overwritten."""
    etag = client.etag("/f")
    store = client.store
    real = store.get_metadata
    seen = real("/f")
    store.store_fileobject(io.BytesIO(b"foreign"), "/f")
    store.get_metadata = lambda path: seen if path == "/f" else real(path)  # type: ignore[method-assign]
    assert client.put("/f", b"mine", If_Match=etag).status == 412
    assert store.get_file("/f") == b"foreign"

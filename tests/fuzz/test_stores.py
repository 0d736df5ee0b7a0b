"""Answers of the services behind a share."""

from hypothesis import given
from hypothesis import strategies as st

from davfusion.stores.errors import StoreAccessError
from davfusion.stores.fsspec.errors import backend_errors, status_error
from davfusion.stores.fsspec.ftp import _entry, _metadata
from davfusion.stores.fsspec.multistatus import entries, quota
from davfusion.stores.paths import check_path
from davfusion.stores.s3.listing import Keys, Oddities, Walk, children
from davfusion.stores.s3.pages import read_page
from tests.fuzz.fuzzing import fuzzed, refusal, texts

PAGE = (
    "<Contents><Key>{}</Key><Size>{}</Size><LastModified>2026-11-22T14:00:00.000Z</LastModified>"
    "<ETag>&quot;a&quot;</ETag></Contents>"
)
KEYS = texts("a", "/", "//", "..", ".", "_$folder$", "+", "%2F", "&amp;", "<", ">")
PAGES = st.lists(
    st.builds(PAGE.format, KEYS, st.integers(-5, 5) | texts())
    | texts("<CommonPrefixes><Prefix>", "a/", "</Prefix></CommonPrefixes>", "<Key>", "<Contents>"),
    max_size=4,
).map(lambda parts: "<ListBucketResult>" + "".join(parts) + "</ListBucketResult>")
HREF = "<D:href>/a/%C3%A9</D:href>"
ANSWERS = texts(
    '<D:multistatus xmlns:D="DAV:">', "</D:multistatus>", "<D:response>", "</D:response>", HREF,
    "<D:propstat><D:prop>", "</D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat>",
    "<D:getcontentlength>", "</D:getcontentlength>", "<D:getlastmodified>", "</D:getlastmodified>",
    "<D:getetag>", "</D:getetag>", "<D:resourcetype><D:collection/></D:resourcetype>",
)  # fmt: skip
FACTS = texts(
    "type=file;", "type=dir;", "size=", "modify=", "20261122140000", ".5", ";", "=", " ", "f"
)


@fuzzed
@given(PAGES)
def test_pages_of_a_bucket_name_paths_only(text: str) -> None:
    page = read_page(text.encode("utf-8", "surrogatepass"))
    if page is None:
        return
    for name in children([page], "", Oddities()) or {}:
        check_path("/" + name)
    walk = Walk(Keys(""), "/", Oddities())
    for path, _ in [*walk.page(page), *walk.rest()]:
        check_path(path)


@fuzzed
@given(ANSWERS)
def test_answers_of_a_dav_server(text: str) -> None:
    body = text.encode("utf-8", "surrogatepass")

    def read() -> None:
        with backend_errors("/"):
            list(entries(body))
            quota(body)

    refusal(read, StoreAccessError)


@fuzzed
@given(FACTS)
def test_lines_of_an_ftp_server(line: str) -> None:
    def read() -> None:
        with backend_errors("/"):
            _metadata(_entry(line)[1], "/f")

    refusal(read, StoreAccessError)


@fuzzed
@given(st.integers(100, 999), texts())
def test_an_error_of_a_server_is_one_of_the_contract(status: int, retry_after: str) -> None:
    assert 400 <= (status_error(status, "refused", retry_after).status or 400) < 600

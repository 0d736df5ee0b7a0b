"""Both HTTP servers under the same tests, and the one place for what granian does otherwise.

A test that asks for `http_name` runs on each server in turn. What DIFFERENCES lists must fail on
granian: once it does not, the row goes.
"""

import pytest

CHUNKED = "bodies in chunks are refused with 411"
LAX = "granian takes it, and the application cannot see that it was there"
ANOTHER_STATUS = "it is refused too, with another status"
DIFFERENCES = (
    ("test_bodies_arrive_whole_and_the_connection_is_kept", "", CHUNKED),
    ("test_large_bodies_arrive_whole", "", CHUNKED),
    ("test_malformed_chunks_are_errors", "", CHUNKED),
    ("test_bodies_cut_off_are_errors", "chunked", CHUNKED),
    ("test_requests_may_be_sent_ahead", "", CHUNKED),
    ("test_a_small_body_left_unread_does_not_cost_the_connection", "", CHUNKED),
    ("test_lengths_that_agree_are_one", "lengths1", "it is refused"),
    ("test_headers_that_are_refused", "Transfer-Encoding: chunked", ANOTHER_STATUS),
    ("test_headers_that_are_refused", "identity", ANOTHER_STATUS),
    ("test_headers_that_are_refused", "bare", LAX),
    ("test_headers_that_are_refused", "Authorization", "both go on, joined by a comma"),
    ("test_headers_that_are_refused", "fields10", "the limit of headers is higher"),
    ("test_request_lines_that_are_refused", "/%zz", LAX),
    ("test_request_lines_that_are_refused", "/a% ", LAX),
    ("test_request_lines_that_are_refused", "/%ff", "the application refuses it"),
    ("test_request_lines_that_are_refused", "/a%00b", "the application refuses it"),
    ("test_request_lines_that_are_refused", "#b", "the path ends before the #"),
    ("test_request_lines_that_are_refused", "ftp:", LAX),
    ("test_request_lines_that_are_refused", "GET x ", "the path is empty"),
    ("test_request_lines_that_are_refused", "HTTP/2.0", ANOTHER_STATUS),
    ("test_every_request_has_one_host", "target:80", "Host is taken, not the target's"),
    ("test_every_request_has_one_host", "hosts3", "an empty Host is refused"),
    ("test_every_request_has_one_host", "http://target/", "the target's is taken"),
    ("test_names_with_underscores_do_not_pass_for_others", "", LAX),
    ("test_a_refusal_reaches_the_client_in_the_middle_of_a_large_body", "", "no Connection: close"),
    ("test_a_failing_application_is_answered", "", "Server is granian"),
    ("test_the_log_shows_refused_requests_without_their_bytes", "", "granian logs none"),
    ("test_a_malformed_line_end_is_answered_at_once", "", LAX),
)
"""Name of a test, a part of its parameters, and how granian differs."""

REPLAY_DIFFERENCES = {
    "finder: an empty chunked PUT makes an empty file": CHUNKED,
    "rclone: rcat: chunked PUT of unknown length": CHUNKED,
}
"""Steps of the replay of real clients that fail."""

SENT_OF_A_SHORT_ANSWER = {"cheroot": [b"four"], "granian": [b"four", b""]}
"""What a client may get of `four` where more was announced: granian may drop it all."""

LITMUS_DIFFERENCES = {"including fragment; unsafe": "the path ends before the #"}
"""Parts of litmus's warnings."""


@pytest.fixture(scope="module", params=["cheroot", "granian"])
def http_name(request: pytest.FixtureRequest) -> str:
    """Each of the servers in turn, by the name that --server takes."""
    name: str = request.param
    return name


@pytest.fixture(autouse=True)
def difference(request: pytest.FixtureRequest) -> None:
    """Expect the test to fail where the table says so."""
    node = request.node
    if getattr(node, "callspec", None) is None:
        return
    if node.callspec.params.get("http_name") == "granian":
        for name, part, reason in DIFFERENCES:
            if node.originalname == name and part in node.callspec.id:
                node.add_marker(pytest.mark.xfail(reason=reason, strict=True))

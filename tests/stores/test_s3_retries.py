"""RetryingStore over S3Store when the service fails in the middle: nothing is lost."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from davfusion.stores.retry import GivenUpError, RetryPolicy
from davfusion.stores.retrying import RetryingStore
from davfusion.stores.s3 import S3Store
from davfusion.stores.store import (
    ABSENT,
    ConflictError,
    PartialFailureError,
    Store,
    StoreAccessError,
    StoreAutorizationError,
    TransientStoreError,
)
from tests.conformance import contents, names, put, put_all
from tests.servers import S3Server
from tests.stores.clocks import Time

pytestmark = pytest.mark.live

FILES = [f"{n:02}" for n in range(25)]
SLOW_DOWN = "<Error><Code>SlowDown</Code></Error>"
FAULTS: list[dict[str, Any]] = [
    {"action": "status", "status": 503},
    {"action": "status", "status": 400, "body": SLOW_DOWN},
    {"action": "drop_after"},
    {"action": "drop"},
]
HOUR = 3600


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def store(s3_proxy: Any, bucket: str, time: Time) -> Iterator[RetryingStore]:
    """Ten keys a request."""
    policy = RetryPolicy(sleep=time.sleep, clock=time.clock)
    endpoint = f"http://127.0.0.1:{s3_proxy.port}"
    store = S3Store(bucket, "p", endpoint_url=endpoint, batch=10, retry=policy)
    yield RetryingStore(store, policy)
    store.reconnect()


def put_src(store: RetryingStore) -> dict[str, bytes | None]:
    put_all(store, [f"/src/{name}" for name in FILES])
    store.create_directory("/src/empty")
    return contents(store, "/src")


def fails(s3_proxy: Any, match: str, fault: dict[str, Any], times: int = 3, skip: int = 1) -> None:
    s3_proxy.rules = [{"match": match, "times": times, "skip": skip, **fault}]


def require_used(s3_proxy: Any) -> None:
    assert s3_proxy.rules[0]["used"]
    s3_proxy.rules = []


@pytest.mark.parametrize("fault", FAULTS, ids=str)
@pytest.mark.parametrize(
    ("match", "times"),
    [("PUT .*/dst/", 5), ("POST .*delete", 2), ("GET .*list", 2), ("DELETE", 2)],
)
def test_a_moved_tree(
    store: RetryingStore, s3_proxy: Any, match: str, times: int, fault: dict[str, Any]
) -> None:
    tree = put_src(store)
    put_all(store, [f"/dst/old{n}" for n in range(15)])
    fails(s3_proxy, match, fault, times, skip=0 if match == "DELETE" else 1)
    store.move("/src", "/dst")
    s3_proxy.rules = []
    assert contents(store, "/") == {"dst": None, **{f"dst/{k}": v for k, v in tree.items()}}


@pytest.mark.parametrize("fault", FAULTS, ids=str)
@pytest.mark.parametrize("match", ["PUT .*/dst/", "POST .*delete", "GET .*list"])
def test_a_copied_tree(
    store: RetryingStore, s3_proxy: Any, match: str, fault: dict[str, Any]
) -> None:
    tree = put_src(store)
    put_all(store, [f"/dst/old{n}" for n in range(15)])
    fails(s3_proxy, match, fault)
    store.duplicate("/src", "/dst")
    require_used(s3_proxy)
    assert contents(store, "/src") == contents(store, "/dst") == tree


@pytest.mark.parametrize("fault", FAULTS, ids=str)
@pytest.mark.parametrize("match", ["POST .*delete", "GET .*list"])
def test_a_deleted_tree(
    store: RetryingStore, s3_proxy: Any, match: str, fault: dict[str, Any]
) -> None:
    put_src(store)
    fails(s3_proxy, match, fault)
    store.delete("/src", is_dir=True)
    require_used(s3_proxy)
    assert contents(store, "/") == {}


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (lambda store: store.delete("/src", is_dir=True), {"dst/", "dst/old/", "dst/old/deep/"}),
        (lambda store: store.move("/src", "/new"), {"dst/", "dst/old/", "dst/old/deep/", "new/"}),
        (lambda store: store.duplicate("/src", "/dst"), {"dst/", "src/"}),
    ],
    ids=["delete", "move", "duplicate"],
)
def test_no_empty_folder_stays_where_nobody_looks_for_them(
    store: RetryingStore,
    s3_client: Any,
    s3_proxy: Any,
    bucket: str,
    change: Callable[[Store], None],
    left: set[str],
) -> None:
    """As when the process is killed: SeaweedFS keeps folders without markers."""
    for key in ("src/new", "dst/old/deep/file"):
        s3_client.put_object(Bucket=bucket, Key=f"p/{key}")
    s3_proxy.rules = [{"match": "max-keys=10&delimiter", "action": "status"}]
    with pytest.raises(StoreAccessError):
        change(store)
    require_used(s3_proxy)
    assert shown_folders(s3_client, bucket, "p/") == left


def shown_folders(client: Any, bucket: str, prefix: str) -> set[str]:
    """Below the prefix, as who goes through them sees them."""
    listing = client.list_objects_v2(Bucket=bucket, Prefix=prefix, Delimiter="/")
    found = {folder["Prefix"] for folder in listing.get("CommonPrefixes", [])}
    below = (shown_folders(client, bucket, folder) for folder in found)
    return {folder.removeprefix("p/") for folder in found.union(*below)}


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_many_deleted_files_leave_their_folder(
    store: RetryingStore, s3_proxy: Any, fault: dict[str, Any]
) -> None:
    put_all(store, [f"/src/{name}" for name in FILES])
    fails(s3_proxy, "POST .*delete", fault)
    store.delete_many([f"/src/{name}" for name in FILES])
    require_used(s3_proxy)
    assert contents(store, "/") == {"src": None}


@pytest.mark.parametrize("fault", FAULTS, ids=str)
@pytest.mark.parametrize("match", ["DELETE .*/dir/file", "GET .*list", "PUT .*/(dir/|file)$"])
@pytest.mark.parametrize("is_move", [False, True])
def test_the_last_file_of_a_folder_leaves_the_folder(
    store: RetryingStore, s3_proxy: Any, match: str, is_move: bool, fault: dict[str, Any]
) -> None:
    put(store, "/dir/file")
    fails(s3_proxy, match, fault, skip=0)
    if is_move:
        store.move("/dir/file", "/file")
    else:
        store.delete("/dir/file")
    require_used(s3_proxy)
    assert contents(store, "/") == {"dir": None, **({"file": b"content"} if is_move else {})}


def test_keys_that_are_refused_for_a_time_are_asked_again(
    store: RetryingStore, s3_proxy: Any
) -> None:
    put_src(store)
    body = "<Error><Key>p/src/03</Key><Code>SlowDown</Code></Error>"
    answer = {"status": 200, "body": f"<DeleteResult>{body}</DeleteResult>", "action": "status"}
    fails(s3_proxy, "POST .*delete", answer, times=1, skip=0)
    store.delete_many([f"/src/{name}" for name in FILES[:5]])
    assert "03" not in names(store, "/src")


def test_what_was_at_the_destination_stays_if_copies_fail(
    store: RetryingStore, s3_proxy: Any
) -> None:
    put_src(store)
    before = names(store, "/src")
    put(store, "/dst/old", b"old")
    fails(s3_proxy, "PUT .*/dst/07$", FAULTS[0], times=99, skip=0)
    with pytest.raises(PartialFailureError) as caught:
        store.move("/src", "/dst")
    s3_proxy.rules = []
    assert list(caught.value.failures) == ["/src/07"]
    assert names(store, "/src") == before
    assert store.get_file("/dst/old") == b"old"


def test_a_file_at_the_destination_stays_if_copies_fail(
    store: RetryingStore, s3_proxy: Any, s3_client: Any, bucket: str
) -> None:
    put_src(store)
    before = names(store, "/src")
    put(store, "/dst", b"old")
    denied = {"action": "status", "status": 403, "body": "<Error><Code>AccessDenied</Code></Error>"}
    fails(s3_proxy, "PUT .*/dst/07$", denied, times=99, skip=0)
    with pytest.raises(PartialFailureError) as caught:
        store.move("/src", "/dst")
    s3_proxy.rules = []
    assert set(caught.value.failures) == {"/src/07", "/src/empty"}
    assert names(store, "/src") == before
    assert s3_client.get_object(Bucket=bucket, Key="p/dst")["Body"].read() == b"old"


def test_a_source_that_cannot_be_listed_to_its_end_loses_nothing(
    store: RetryingStore, s3_proxy: Any
) -> None:
    tree = put_src(store)
    put(store, "/dst/old", b"old")
    fails(s3_proxy, "GET .*continuation-token.*src", FAULTS[0], times=99)
    with pytest.raises(PartialFailureError):
        store.move("/src", "/dst")
    s3_proxy.rules = []
    assert {**contents(store, "/src"), **contents(store, "/dst")} == {**tree, "old": b"old"}


def test_a_service_that_is_gone_is_given_up(
    store: RetryingStore, s3_proxy: Any, time: Time
) -> None:
    put_src(store)
    s3_proxy.log.clear()
    fails(s3_proxy, "(PUT|POST)", {**FAULTS[0], "headers": {"Retry-After": "25"}}, times=999)
    with pytest.raises(PartialFailureError) as caught:
        store.move("/src", "/dst")
    s3_proxy.rules = []
    assert len(names(store, "/src")) == 26
    assert set(time.pauses) == {25}
    assert time.now - 1000 < 60 + 16 * 25, "what was under way ends, and nothing more is begun"
    assert all(isinstance(error, TransientStoreError) for error in caught.value.failures.values())


def test_single_requests_are_not_tried_in_two_layers(store: RetryingStore, s3_proxy: Any) -> None:
    put(store, "/file")
    fails(s3_proxy, "HEAD", FAULTS[0], times=99, skip=0)
    with pytest.raises(GivenUpError):
        store.move("/file", "/other")
    assert s3_proxy.rules[0]["used"] <= 12, "HEAD of source and of destination"
    fails(s3_proxy, "GET .*folder", FAULTS[0], times=99, skip=0)
    with pytest.raises(TransientStoreError):
        store.get_directory_metadata("/folder")
    assert s3_proxy.rules[0]["used"] == 6


@pytest.mark.parametrize("fault", [FAULTS[0], FAULTS[2]], ids=str)
def test_a_conditional_write_whose_answer_was_lost(
    store: RetryingStore, s3_proxy: Any, fault: dict[str, Any]
) -> None:
    etag = None
    for if_etag, content in ((ABSENT, b"first"), (None, b"second")):
        fails(s3_proxy, "PUT .*/file$", fault, times=1, skip=0)
        condition = etag if if_etag is None else if_etag
        stored = put(store, "/file", content, if_etag=str(condition))
        require_used(s3_proxy)
        etag = stored["etag"]
        assert store.get_metadata("/file") == stored
        assert store.get_file("/file") == content


def test_a_conditional_write_that_another_forestalled(
    store: RetryingStore, s3_proxy: Any, s3_client: Any, bucket: str
) -> None:
    put(store, "/file", b"old", if_etag=ABSENT)
    s3_client.put_object(Bucket=bucket, Key="p/file", Body=b"theirs")
    fails(s3_proxy, "PUT .*/file$", FAULTS[2], times=1, skip=0)
    with pytest.raises(ConflictError):
        put(store, "/file", b"mine", if_etag=ABSENT)
    assert store.get_file("/file") == b"theirs"


def test_a_missing_bucket_is_not_taken_for_missing_files(s3_server: S3Server) -> None:
    store = S3Store("no-such-bucket", endpoint_url=s3_server.endpoint)
    for call in (
        lambda: store.get_metadata("/file"),
        lambda: store.get_file("/file"),
        lambda: list(store.walk_metadata("/dir")),
        lambda: store.delete("/dir", is_dir=True),
        store.check_access,
    ):
        with pytest.raises(StoreAccessError, match="no such bucket") as caught:
            call()
        assert caught.value.status in (502, 207)


def later(s3_server: S3Server, bucket: str, seconds: float) -> S3Store:
    """A store whose clock is ahead."""
    now = datetime.now(UTC).timestamp() + seconds
    return S3Store(bucket, "p", endpoint_url=s3_server.endpoint, clock=lambda: now)


def test_probes_are_hidden_and_do_not_stay(
    s3_server: S3Server, s3_client: Any, bucket: str
) -> None:
    keys = ["p/.davfusion-probe-left", "p/dir/.davfusion-probe-left"]
    for key in keys:
        s3_client.put_object(Bucket=bucket, Key=key)

    def left() -> list[str]:
        return [found["Key"] for found in s3_client.list_objects_v2(Bucket=bucket)["Contents"]]

    store = later(s3_server, bucket, HOUR / 2)
    assert contents(store, "/") == {"dir": None}
    assert names(store, "/") == {"dir"}
    assert names(store, "/dir") == set()
    store.check_access()
    assert left() == keys
    later(s3_server, bucket, HOUR * 2).check_access()
    assert left() == keys[1:]


@pytest.mark.parametrize(
    "fault",
    [
        {"match": r"^PUT .*probe", "action": "drop_after"},
        {"match": r"^DELETE .*probe", "action": "drop"},
        {"match": r"^DELETE .*probe", "action": "drop_after"},
    ],
    ids=["stored", "not deleted", "deleted"],
)
def test_what_a_failed_probe_has_left_goes_with_the_next(
    s3_proxy: Any, s3_client: Any, bucket: str, fault: dict[str, Any]
) -> None:
    store = S3Store(bucket, endpoint_url=f"http://127.0.0.1:{s3_proxy.port}")
    s3_proxy.rules = [{**fault, "times": 2}]
    for _ in range(2):
        with pytest.raises(TransientStoreError):
            put(store, "/file", if_etag=ABSENT)
    etag = put(store, "/file", if_etag=ABSENT)["etag"]
    put(store, "/file", if_etag=etag)
    listed = s3_client.list_objects_v2(Bucket=bucket)["Contents"]
    assert [entry["Key"] for entry in listed] == ["file"]
    assert store.features.conditional_write
    store.reconnect()


def test_unfinished_uploads_are_aborted_after_a_week(
    s3_server: S3Server, s3_client: Any, bucket: str
) -> None:
    for key in ("p/file", "p/dir/file", "other", "pp"):
        s3_client.create_multipart_upload(Bucket=bucket, Key=key)

    def unfinished() -> set[str]:
        uploads = s3_client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
        return {upload["Key"] for upload in uploads}

    later(s3_server, bucket, 6 * 24 * HOUR).check_access()
    assert unfinished() == {"p/file", "p/dir/file", "other", "pp"}
    later(s3_server, bucket, 8 * 24 * HOUR).check_access()
    assert unfinished() == {"other", "pp"}


def test_a_share_that_may_not_clean_up_is_served(
    s3_proxy: Any, bucket: str, caplog: pytest.LogCaptureFixture
) -> None:
    s3_proxy.rules = [{"match": "uploads", "action": "status", "status": 403}]
    S3Store(bucket, endpoint_url=f"http://127.0.0.1:{s3_proxy.port}").check_access()
    assert "stay behind" in caplog.text
    s3_proxy.rules = [{"match": "GET", "action": "status", "status": 403}]
    with pytest.raises(StoreAutorizationError):
        S3Store(bucket, endpoint_url=f"http://127.0.0.1:{s3_proxy.port}").check_access()


def test_the_name_tells_the_server(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    host = s3_server.endpoint.removeprefix("http://")
    assert S3Store("b", "p", endpoint_url=s3_server.endpoint).get_name() == f"s3://b/p at {host}"
    secret = S3Store("b", endpoint_url="http://user:secret@host:9000/path")
    assert secret.get_name() == "s3://b at host:9000"
    assert S3Store("b", endpoint_url="https://s3.eu-west-1.amazonaws.com").get_name() == "s3://b"
    assert S3Store("b").get_name() == S3Store("b", profile="missing").get_name() == "s3://b"


def test_the_name_comes_from_the_settings_of_every_aws_tool(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(variable, raising=False)
    config = tmp_path / "config"
    config.write_text(
        "[default]\nendpoint_url = http://one:1\ndefaults_mode = auto\n"
        "[profile two]\nservices = s\n[services s]\ns3 =\n  endpoint_url = http://two:2\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))

    def no_network(*_: object) -> None:
        raise AssertionError("asked the network")

    monkeypatch.setattr("socket.socket.connect", no_network)
    assert S3Store("b").get_name() == "s3://b at one:1"
    assert S3Store("b", profile="two").get_name() == "s3://b at two:2"

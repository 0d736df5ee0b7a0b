"""Faults between the server and S3: all reaches the bucket in the end, and each file is right."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.drive import (
    ask,
    contents,
    eventually,
    get,
    journal,
    move,
    put,
    unfinished_uploads,
    wait_for_drain,
)
from tests.live.serving import Serving, serving

pytestmark = [pytest.mark.live, pytest.mark.slow]
MEBIBYTE = 1 << 20
SLOW_DOWN = "<Error><Code>SlowDown</Code><Message>Please reduce your rate</Message></Error>"
FAULTS: dict[str, dict[str, Any]] = {
    "500": {"action": "status", "status": 500},
    "SlowDown": {
        "action": "status",
        "status": 503,
        "body": SLOW_DOWN,
        "headers": {"Retry-After": "1"},
    },
    "reset before": {"action": "drop"},
    "reset after": {"action": "drop_after"},
    "reset in the request": {"action": "cut_request", "bytes": 700},
    "truncated answer": {"action": "cut_response", "bytes": 20},
}
REQUESTS = {
    "HEAD": "^HEAD ",
    "listing": r"^GET .*list-type",
    "part": r"^PUT .*partNumber",
    "multipart": r"^POST .*\?uploads",
    "completion": r"^POST .*uploadId",
    "deletion": r"^POST .*\?delete|^DELETE ",
    "copy": r"^PUT /[^?]*/copied[^?]*$",
    "write": r"^PUT /[^?]*$",
}


@pytest.fixture
def share(s3_proxy: Any, bucket: str, tmp_path: Path) -> Iterator[Serving]:
    env = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3_proxy.port}"}
    with serving(f"s3://{bucket}", tmp_path, "--write-back-delay", "0.1", env=env) as server:
        yield server


def insist(action: Any) -> None:
    """What a client does with a 503."""
    answers: list[Any] = []

    def succeeds() -> bool:
        answers.append(action())
        return bool(answers[-1].status != 503)

    assert eventually(succeeds), answers
    assert answers[-1].status < 300, answers


def work(share: Serving, folder: str) -> dict[str, bytes]:
    """Write, replace, copy and delete; what the bucket must then have in the folder."""
    rng = random.Random(folder)
    model = {f"{folder}/small {number}": rng.randbytes(3000 + number) for number in range(12)}
    model[f"{folder}/large"] = rng.randbytes(20 * MEBIBYTE + 1)
    insist(lambda: ask(share, "MKCOL", f"/{folder}"))
    for name, content in model.items():
        put(share, f"/{name}", content)
    wait_for_drain(share)
    for number in range(6):
        insist(lambda number=number: ask(share, "DELETE", f"/{folder}/small {number}"))
        del model[f"{folder}/small {number}"]
    for number in range(6, 9):
        name = f"{folder}/small {number}"
        model[name] = rng.randbytes(5000)
        put(share, f"/{name}", model[name])
    source, target = f"{folder}/small 9", f"{folder}/copied"
    insist(lambda: move(share, f"/{source}", f"/{target}"))
    model[target] = model.pop(source)
    return model


@pytest.mark.parametrize("fault", FAULTS)
def test_each_kind_of_request_fails_several_times(
    share: Serving, s3_proxy: Any, s3_client: Any, bucket: str, fault: str
) -> None:
    put(share, "/before", b"the share is there")
    wait_for_drain(share)
    s3_proxy.rules = [{"match": kind, "times": 3, **FAULTS[fault]} for kind in REQUESTS.values()]
    model = work(share, "folder") | {"before": b"the share is there"}
    wait_for_drain(share)
    met = {rule["match"] for rule in s3_proxy.rules if rule["used"]}
    assert {REQUESTS["write"], REQUESTS["part"], REQUESTS["deletion"], REQUESTS["copy"]} <= met
    s3_proxy.rules = []
    assert contents(s3_client, bucket) == model
    assert eventually(lambda: not unfinished_uploads(s3_client, bucket))
    for name in model:
        assert get(share, f"/{name}") == model[name]
    assert journal(share, "SELECT * FROM conflict") == []


def test_everything_fails_now_and_then(
    share: Serving, s3_proxy: Any, s3_client: Any, bucket: str
) -> None:
    s3_proxy.rules = [{"rate": 0.04, **fault} for fault in FAULTS.values()]
    model = work(share, "one") | work(share, "another")
    wait_for_drain(share)
    s3_proxy.rules = []
    assert contents(s3_client, bucket) == model
    assert eventually(lambda: not unfinished_uploads(s3_client, bucket))
    assert journal(share, "SELECT * FROM conflict") == []


def test_a_black_hole(share: Serving, s3_proxy: Any, s3_client: Any, bucket: str) -> None:
    model = work(share, "before")
    s3_proxy.rules = [{"action": "hang"}]
    late = {f"during {number}": b"%d" % number * 1000 for number in range(20)}
    for name, content in late.items():
        put(share, f"/{name}", content)
    assert not eventually(lambda: not journal(share), 30)
    for name, content in late.items():
        assert get(share, f"/{name}") == content
    s3_proxy.rules = []
    wait_for_drain(share)
    assert contents(s3_client, bucket) == model | late
    assert eventually(lambda: not unfinished_uploads(s3_client, bucket))
    assert journal(share, "SELECT * FROM conflict") == []


@pytest.mark.parametrize("fault", ["500", "reset after", "hang", "403"])
def test_a_path_that_always_fails_holds_up_no_other(
    share: Serving, s3_proxy: Any, s3_client: Any, bucket: str, fault: str
) -> None:
    denied = {"action": "status", "status": 403}
    rule = {**FAULTS, "hang": {"action": "hang"}, "403": denied}[fault]
    s3_proxy.rules = [{"match": r"^PUT .*/stuck", **rule}]
    put(share, "/stuck", b"is kept")
    assert eventually(lambda: s3_proxy.rules[0]["used"])
    model = {f"file {number}": b"%d" % number * 500 for number in range(60)}
    for name, content in model.items():
        put(share, f"/{name}", content)
    assert eventually(lambda: [row[0] for row in journal(share)] == ["/stuck"], 15), journal(share)
    assert get(share, "/stuck") == b"is kept"
    s3_proxy.rules = []
    if fault == "403":
        assert journal(share, "SELECT path, state FROM pending") == [("/stuck", "failed")]
        put(share, "/stuck", b"is kept")
    wait_for_drain(share)
    assert contents(s3_client, bucket) == model | {"stuck": b"is kept"}
    assert journal(share, "SELECT * FROM conflict") == []

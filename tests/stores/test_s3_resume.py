"""S3Store: an upload that broke off goes on with what the service has of it."""

import io
import json
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from davfusion.stores.retry import RetryPolicy
from davfusion.stores.retrying import RetryingStore
from davfusion.stores.s3 import S3Store
from davfusion.stores.s3.upload import MIB
from davfusion.stores.store import (
    ABSENT,
    AlreadyExistsError,
    ConflictError,
    InterruptedException,
    StoreAutorizationError,
    TransientStoreError,
)
from tests.conformance import MTIME, SourceError, put
from tests.conformance_uploads import KeptUpload, resume

pytestmark = pytest.mark.live

PART = 5 * MIB
CONTENT = b"".join(bytes([n]) * PART for n in range(10))[: -PART // 2]
"""Ten parts."""
OTHER = CONTENT[::-1]
LAST = {"match": "partNumber=10", "action": "drop"}
MakeStore = Callable[..., S3Store]


@pytest.fixture
def make_store(s3_proxy: Any, bucket: str) -> Iterator[MakeStore]:
    """Stores behind the fault proxy that send in parts; each as of a new process."""
    stores: list[S3Store] = []

    def make(part_size: int = PART, **settings: Any) -> S3Store:
        endpoint = f"http://127.0.0.1:{s3_proxy.port}"
        store = S3Store(
            bucket,
            endpoint_url=endpoint,
            multipart_threshold=10 * MIB,
            part_size=part_size,
            **settings,
        )
        stores.append(store)
        return store

    yield make
    for store in stores:
        store.reconnect()


@pytest.fixture
def unfinished(s3_client: Any, bucket: str) -> Callable[[], list[str]]:
    """Asks for the keys of all uploads under way."""

    def ask() -> list[str]:
        answer = s3_client.list_multipart_uploads(Bucket=bucket)
        return [upload["Key"] for upload in answer.get("Uploads", [])]

    return ask


def parts_sent(s3_proxy: Any) -> Counter[int]:
    """How often each part was sent and taken since the last call."""
    paths = [entry["path"] for entry in s3_proxy.log if entry["status"] == 200]
    s3_proxy.log.clear()
    numbers = (re.search(r"partNumber=(\d+)", path) for path in paths)
    return Counter(int(number[1]) for number in numbers if number)


def break_off(
    store: S3Store, s3_proxy: Any, upload: KeptUpload, rule: dict[str, Any] = LAST
) -> Counter[int]:
    """Begin to upload CONTENT as /file until `rule` ends it; the parts that the service took."""
    s3_proxy.rules = [rule]
    with pytest.raises(TransientStoreError):
        resume(store, "/file", CONTENT, upload)
    s3_proxy.rules = []
    assert upload.progress == 0
    return parts_sent(s3_proxy)


@pytest.mark.parametrize("checksums", ["md5", "sdk"])
@pytest.mark.parametrize(
    "rule",
    [
        LAST,
        {"match": "partNumber=6", "action": "drop"},
        {"match": "partNumber=(9|10)", "action": "status", "status": 500},
        {"match": "partNumber=10", "action": "cut_request", "bytes": MIB},
        {"match": "POST .*uploadId", "action": "status", "status": 503},
    ],
    ids=str,
)
def test_what_was_sent_is_not_sent_again(
    make_store: MakeStore,
    s3_proxy: Any,
    unfinished: Callable[[], list[str]],
    rule: dict[str, Any],
    checksums: str,
) -> None:
    upload = KeptUpload()
    before = break_off(make_store(checksums=checksums), s3_proxy, upload, rule)
    assert len(before) >= 5
    assert upload.token is not None
    stored = resume(make_store(checksums=checksums), "/file", CONTENT, upload)
    assert before + parts_sent(s3_proxy) == Counter(range(1, 11)), "each part once"
    assert upload.progress == stored["bytes"] == len(CONTENT)
    assert len(upload.begins) == 1
    store = make_store()
    assert store.get_file("/file") == CONTENT
    assert store.get_metadata("/file")["etag"] == stored["etag"]
    assert store.get_modified("/file") == stored["modified"] == MTIME
    assert unfinished() == []


def test_the_token_is_kept_before_the_first_part(make_store: MakeStore, s3_proxy: Any) -> None:
    class Journal(KeptUpload):
        def begun(self, token: str | None) -> None:
            assert not parts_sent(s3_proxy)
            super().begun(token)

    upload = Journal()
    resume(make_store(), "/file", CONTENT, upload)
    assert len(upload.begins) == 1


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_kill_leaves_what_was_sent(
    make_store: MakeStore, s3_proxy: Any, tmp_path: Path, unfinished: Callable[[], list[str]]
) -> None:
    kept = tmp_path / "token"

    class Journal(KeptUpload):
        def begun(self, token: str | None) -> None:
            kept.write_text(token or "")

        def sent(self, size: int) -> None:
            super().sent(size)
            if self.progress > 0.7 * len(CONTENT):
                os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if not child:
        try:
            resume(make_store(), "/file", CONTENT, Journal())
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    before = parts_sent(s3_proxy)
    assert len(before) >= 7
    resume(make_store(), "/file", CONTENT, KeptUpload(kept.read_text()))
    again = before & parts_sent(s3_proxy)
    assert not again
    assert make_store().get_file("/file") == CONTENT
    assert unfinished() == []


def test_retries_go_on_too(make_store: MakeStore, s3_proxy: Any) -> None:
    policy = RetryPolicy(sleep=lambda _: None)
    store = RetryingStore(make_store(), policy)
    s3_proxy.rules = [{"match": "partNumber=", "skip": 6, "times": 2, "action": "drop"}]
    upload = KeptUpload()
    store.store_resumable(io.BytesIO(CONTENT), "/file", upload)
    assert parts_sent(s3_proxy) == Counter(range(1, 11))
    assert upload.progress == len(CONTENT)
    assert store.get_file("/file") == CONTENT


@pytest.mark.parametrize("if_etag", [None, ABSENT])
def test_a_completion_whose_answer_was_lost(
    make_store: MakeStore, s3_proxy: Any, if_etag: str | None
) -> None:
    """Our own bytes are there: the caller finds that out without sending them again."""
    store, upload = make_store(), KeptUpload()
    put(store, "/other", if_etag=ABSENT)
    s3_proxy.rules = [{"match": "POST .*uploadId", "action": "drop_after"}]
    with pytest.raises(TransientStoreError):
        store.store_resumable(io.BytesIO(CONTENT), "/file", upload, if_etag=if_etag)
    s3_proxy.rules = []
    parts_sent(s3_proxy)
    if if_etag is None:
        store.store_resumable(io.BytesIO(CONTENT), "/file", upload)
        assert upload.progress == len(CONTENT)
    else:
        with pytest.raises(ConflictError):
            store.store_resumable(io.BytesIO(CONTENT), "/file", upload, if_etag=if_etag)
        assert not parts_sent(s3_proxy)
        assert upload.token is None
    assert store.get_file("/file") == CONTENT


def test_parts_of_other_content_are_not_mixed_in(make_store: MakeStore, s3_proxy: Any) -> None:
    upload = KeptUpload()
    before = break_off(make_store(), s3_proxy, upload)
    changed = OTHER[: PART + 1] + CONTENT[PART + 1 :]
    resume(make_store(), "/file", changed, upload)
    assert before + parts_sent(s3_proxy) == Counter([1, 2, *range(1, 11)])
    assert make_store().get_file("/file") == changed


@pytest.mark.parametrize("content", [OTHER, OTHER[: 3 * PART], b"small", CONTENT * 2], ids=len)
@pytest.mark.parametrize("path", ["/file", "/another"])
def test_the_token_of_another_file(
    make_store: MakeStore,
    s3_proxy: Any,
    unfinished: Callable[[], list[str]],
    content: bytes,
    path: str,
) -> None:
    upload = KeptUpload()
    break_off(make_store(), s3_proxy, upload)
    token = upload.token
    resume(make_store(), path, content, upload)
    store = make_store()
    assert store.get_file(path) == content
    assert upload.progress == len(content)
    store.abandon("/file", token, 0)
    assert unfinished() == []


@pytest.mark.parametrize("change", ["aborted", "part size", "time", "type", "no token"])
def test_an_upload_that_does_not_fit_is_begun_anew(
    make_store: MakeStore,
    s3_proxy: Any,
    s3_client: Any,
    bucket: str,
    unfinished: Callable[[], list[str]],
    change: str,
) -> None:
    upload = KeptUpload()
    break_off(make_store(), s3_proxy, upload)
    assert upload.token is not None
    upload_id = json.loads(upload.token)["upload_id"]
    if change == "aborted":
        s3_client.abort_multipart_upload(Bucket=bucket, Key="file", UploadId=upload_id)
    if change == "no token":
        upload.token = "{}"
    modified = 1.5 if change == "time" else MTIME
    kind = "text/x" if change == "type" else None
    store = make_store(part_size=6 * MIB if change == "part size" else PART)
    stored = store.store_resumable(
        io.BytesIO(CONTENT), "/file", upload, modified=modified, content_type=kind
    )
    assert store.get_metadata("/file") == stored
    assert (stored["modified"], upload.progress) == (modified, len(CONTENT))
    assert store.get_file("/file") == CONTENT
    assert upload.token != json.dumps({})
    assert unfinished() == (["file"] if change == "no token" else [])


def test_the_time_of_the_first_try_stays(make_store: MakeStore, s3_proxy: Any) -> None:
    upload = KeptUpload()
    s3_proxy.rules = [LAST]
    with pytest.raises(TransientStoreError):
        make_store(clock=lambda: 5.0).store_resumable(io.BytesIO(CONTENT), "/file", upload)
    s3_proxy.rules = []
    before = parts_sent(s3_proxy)
    store = make_store(clock=lambda: 6.0)
    stored = store.store_resumable(io.BytesIO(CONTENT), "/file", upload)
    assert before + parts_sent(s3_proxy) == Counter(range(1, 11))
    assert store.get_modified("/file") == stored["modified"] == 5.0


@pytest.mark.parametrize("cause", ["interrupted", "source", "conflict", "denied", "a directory"])
def test_what_cannot_go_on_leaves_nothing(
    make_store: MakeStore, s3_proxy: Any, unfinished: Callable[[], list[str]], cause: str
) -> None:
    store, upload = make_store(), KeptUpload()
    break_off(store, s3_proxy, upload)
    assert unfinished() == ["file"]
    error: type[Exception]
    source, if_etag = io.BytesIO(CONTENT), None
    if cause == "interrupted":
        error, source = InterruptedException, Changing(at_end=upload)
    elif cause == "source":
        error, source = SourceError, Changing()
    elif cause == "conflict":
        error, if_etag = ConflictError, "no-such-etag"
    elif cause == "denied":
        error = StoreAutorizationError
        s3_proxy.rules = [{"match": "partNumber=10", "action": "status", "status": 403}]
    else:
        error = AlreadyExistsError
        put(store, "/file/below")
    with pytest.raises(error):
        store.store_resumable(source, "/file", upload, if_etag=if_etag, modified=MTIME)
    assert (upload.progress, upload.token) == (0, None)
    assert unfinished() == []


class Changing(io.BytesIO):
    """CONTENT, whose tenth part breaks off or interrupts `at_end`, in the middle of it."""

    def __init__(self, at_end: KeptUpload | None = None) -> None:
        super().__init__(CONTENT)
        self._upload = at_end

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() > 9 * PART + MIB:
            if self._upload is None:
                raise SourceError
            self._upload.interrupted = True
        return super().read(size)


def test_what_could_not_be_removed_keeps_its_token(
    make_store: MakeStore, s3_proxy: Any, unfinished: Callable[[], list[str]]
) -> None:
    store, upload = make_store(), KeptUpload()
    s3_proxy.rules = [
        {"match": "partNumber=10", "action": "status", "status": 403},
        {"match": "DELETE", "action": "drop"},
    ]
    with pytest.raises(StoreAutorizationError):
        resume(store, "/file", CONTENT, upload)
    s3_proxy.rules = []
    assert unfinished() == ["file"]
    store.abandon("/file", upload.token, 0)
    store.abandon("/file", upload.token, 0)
    assert unfinished() == []


@pytest.mark.parametrize("code", ["NoSuchUpload", "ConditionalRequestConflict"])
def test_an_upload_that_the_service_gave_up_is_not_gone_on_with(
    make_store: MakeStore, s3_proxy: Any, code: str, unfinished: Callable[[], list[str]]
) -> None:
    upload = KeptUpload()
    body = f"<Error><Code>{code}</Code></Error>"
    rule = {"match": "POST .*uploadId", "action": "status", "status": 409, "body": body}
    break_off(make_store(), s3_proxy, upload, rule)
    assert upload.token is None
    assert unfinished() == []


def test_abandoning_an_upload_of_which_nothing_is_known(
    make_store: MakeStore, s3_client: Any, bucket: str, unfinished: Callable[[], list[str]]
) -> None:
    class Killed(KeptUpload):
        def begun(self, _: str | None) -> None:
            raise KeyboardInterrupt

    store, since = make_store(), time.time()
    with pytest.raises(KeyboardInterrupt):
        resume(store, "/file", CONTENT, Killed())
    s3_client.create_multipart_upload(Bucket=bucket, Key="file2")
    s3_client.create_multipart_upload(Bucket=bucket, Key="file/below")
    store.abandon("/file", None, since + 3600)
    assert sorted(unfinished()) == ["file", "file/below", "file2"]
    store.abandon("/file", None, since)
    assert sorted(unfinished()) == ["file/below", "file2"]

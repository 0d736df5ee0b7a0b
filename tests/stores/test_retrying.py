"""RetryingStore over a store that fails as told; time is given, nothing waits."""

import io
import threading
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import pytest

from davfusion.stores.memory import MemoryStore
from davfusion.stores.retry import Effort, GivenUpError, RetryPolicy
from davfusion.stores.retrying import RetryingStore
from davfusion.stores.source import SMALL
from davfusion.stores.store import (
    ABSENT,
    AlreadyExistsError,
    ConflictError,
    InterruptedException,
    InvalidPathValueError,
    Metadata,
    NoSuchFilesytemObjectError,
    ReadableStream,
    StoreAccessError,
    StoreAutorizationError,
    TransientStoreError,
    Upload,
)
from davfusion.stores.wrapper import P, R, StoreWrapper
from tests.conformance import BINARY, TREE, Source, contents, put, put_tree, read
from tests.conformance_uploads import KeptUpload
from tests.samples import SizedSource
from tests.stores.clocks import Time

LOST = "answer lost"


class FailingStore(StoreWrapper):
    """A MemoryStore whose next calls meet `trouble`: an error, or LOST after the work is done."""

    def __init__(self) -> None:
        super().__init__(MemoryStore())
        self.trouble: list[Exception | str] = []
        self.tries: list[str] = []
        self.breaks_at: list[int] = []

    def _call(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        self.tries.append(method.__name__)
        trouble = self.trouble.pop(0) if self.trouble else None
        if isinstance(trouble, Exception):
            raise trouble
        result = method(*args, **kwargs)
        if trouble == LOST:
            raise TransientStoreError(LOST)
        return result

    def open_read(
        self, path: str, offset: int = 0, length: int | None = None, etag: str | None = None
    ) -> ReadableStream:
        stream = super().open_read(path, offset, length, etag)
        return Breaking(stream, self.breaks_at.pop(0)) if self.breaks_at else stream

    def walk_metadata(self, directory: str) -> Iterator[tuple[str, Metadata]]:
        for entry in super().walk_metadata(directory):
            yield entry
            if self.breaks_at:
                self.breaks_at.pop()
                raise TransientStoreError("walk broke")


class Breaking(io.BytesIO):
    """A stream whose connection breaks after `good` bytes."""

    def __init__(self, stream: ReadableStream, good: int) -> None:
        super().__init__(stream.read()[:good])

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if not data:
            raise TransientStoreError("connection broke")
        return data


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def inner() -> FailingStore:
    return FailingStore()


@pytest.fixture
def store(inner: FailingStore, time: Time) -> RetryingStore:
    policy = RetryPolicy(attempts=5, total=60, sleep=time.sleep, clock=time.clock)
    return RetryingStore(inner, policy)


def transient(count: int, retry_after: float | None = None) -> list[Exception | str]:
    return [TransientStoreError("busy", retry_after=retry_after) for _ in range(count)]


def no_trouble(count: int) -> list[Exception | str]:
    return [""] * count


def test_two_transient_errors_and_then_success(
    store: RetryingStore, inner: FailingStore, time: Time
) -> None:
    inner.trouble = transient(2)
    assert store.get_metadata("/")["is_dir"]
    assert inner.tries == ["get_metadata"] * 3
    assert len(time.pauses) == 2


@pytest.mark.parametrize("error", [StoreAutorizationError("no"), InvalidPathValueError("bad")])
def test_a_permanent_error_is_tried_once(
    store: RetryingStore, inner: FailingStore, time: Time, error: Exception
) -> None:
    inner.trouble = [error]
    with pytest.raises(type(error)):
        store.get_metadata("/")
    assert (inner.tries, time.pauses) == (["get_metadata"], [])


def test_the_number_of_tries_is_bounded(store: RetryingStore, inner: FailingStore) -> None:
    inner.trouble = transient(99)
    with pytest.raises(TransientStoreError):
        store.get_metadata("/")
    assert len(inner.tries) == 5


def test_the_total_time_is_bounded(inner: FailingStore, time: Time) -> None:
    inner.trouble = transient(10_000)
    policy = RetryPolicy(attempts=10_000, total=100, sleep=time.sleep, clock=time.clock)
    store = RetryingStore(inner, policy)
    with pytest.raises(TransientStoreError):
        store.get_metadata("/")
    assert 1050 < time.now <= 1100
    assert max(time.pauses) <= 20


def test_pauses_grow_and_differ(inner: FailingStore, time: Time) -> None:
    inner.trouble = transient(40)
    policy = RetryPolicy(attempts=40, total=1e6, sleep=time.sleep, clock=time.clock)
    store = RetryingStore(inner, policy)
    with pytest.raises(TransientStoreError):
        store.get_metadata("/")
    assert time.pauses[0] <= 0.5
    assert len(set(time.pauses)) == len(time.pauses)
    assert max(time.pauses[10:]) > 5


def test_retry_after_is_obeyed(store: RetryingStore, inner: FailingStore, time: Time) -> None:
    inner.trouble = transient(2, retry_after=25)
    store.get_metadata("/")
    assert time.pauses == [25, 25]


def test_a_longer_wish_than_time_is_left_is_not_waited_for(
    store: RetryingStore, inner: FailingStore, time: Time
) -> None:
    inner.trouble = transient(1, retry_after=61)
    with pytest.raises(TransientStoreError) as caught:
        store.get_metadata("/")
    assert caught.value.retry_after == 61
    assert time.pauses == []


def test_a_source_is_rewound_to_where_it_stood(store: RetryingStore, inner: FailingStore) -> None:
    source = io.BytesIO(b"skipped" + BINARY)
    source.seek(7)
    inner.trouble = [LOST, *transient(1)]
    stored = store.store_fileobject(source, "/file")
    assert stored["bytes"] == len(BINARY)
    assert store.get_file("/file") == BINARY


def test_a_resumable_upload_is_rewound_and_keeps_its_upload(time: Time) -> None:
    class Service(MemoryStore):
        def store_resumable(
            self,
            fileobject: BinaryIO,
            path: str,
            upload: Upload,
            **conditions: Any,
        ) -> Metadata:
            if upload.token is None:
                upload.begun("first try")
                fileobject.read(3)
                raise TransientStoreError
            return super().store_resumable(fileobject, path, upload, **conditions)

    upload = KeptUpload()
    source = io.BytesIO(b"skipped" + BINARY)
    source.seek(7)
    store = RetryingStore(Service(), RetryPolicy(sleep=time.sleep, clock=time.clock))
    store.store_resumable(source, "/file", upload)
    assert store.get_file("/file") == BINARY
    assert upload.begins == ["first try"]


def test_conflicts_of_resumable_uploads_are_left_to_the_caller(
    store: RetryingStore, inner: FailingStore
) -> None:
    inner.trouble = [LOST]
    with pytest.raises(ConflictError):
        store.store_resumable(io.BytesIO(BINARY), "/file", KeptUpload(), if_etag=ABSENT)
    assert inner.tries == ["store_resumable"] * 2
    assert store.get_file("/file") == BINARY


def test_no_try_follows_an_interruption(store: RetryingStore, inner: FailingStore) -> None:
    class Stopped(KeptUpload):
        def is_set(self) -> bool:
            return bool(inner.tries)

    inner.trouble = transient(2)
    with pytest.raises(InterruptedException):
        store.store_resumable(io.BytesIO(BINARY), "/file", Stopped())
    assert inner.tries == ["store_resumable"]


def test_a_source_that_cannot_seek_is_tried_once(store: RetryingStore, inner: FailingStore) -> None:
    inner.trouble = transient(1)
    with pytest.raises(TransientStoreError):
        store.store_fileobject(Source(BINARY), "/file")
    assert inner.tries == ["store_fileobject"]


def test_a_small_one_that_tells_its_size_is_tried_again(
    store: RetryingStore, inner: FailingStore
) -> None:
    inner.trouble = transient(2)
    store.store_fileobject(SizedSource(BINARY), "/file")
    assert inner.tries == ["store_fileobject"] * 3
    assert store.get_file("/file") == BINARY


@pytest.mark.parametrize("missing", [-1, 1])
def test_a_small_one_of_another_size_is_refused(
    store: RetryingStore, inner: FailingStore, missing: int
) -> None:
    with pytest.raises(StoreAccessError) as refused:
        store.store_fileobject(SizedSource(BINARY, len(BINARY) + missing), "/file")
    assert refused.value.status == 400
    assert inner.tries == []


def test_a_large_one_is_tried_once(store: RetryingStore, inner: FailingStore) -> None:
    inner.trouble = transient(1)
    with pytest.raises(TransientStoreError):
        store.store_fileobject(SizedSource(b"", SMALL + 1), "/file")
    assert inner.tries == ["store_fileobject"]


def test_an_interrupt_ends_the_pause(inner: FailingStore, time: Time) -> None:
    event = threading.Event()

    def sleep(seconds: float) -> None:
        time.sleep(seconds)
        if len(time.pauses) == 3:
            event.set()

    policy = RetryPolicy(total=600, sleep=sleep, clock=time.clock)
    store = RetryingStore(inner, policy)
    inner.trouble = transient(1, retry_after=300)
    with pytest.raises(InterruptedException):
        store.store_fileobject(io.BytesIO(b""), "/file", event)
    assert inner.tries == ["store_fileobject"]
    assert sum(time.pauses) < 1


def test_a_conditional_write_whose_answer_was_lost(
    store: RetryingStore, inner: FailingStore
) -> None:
    inner.trouble = [LOST]
    first = store.store_fileobject(io.BytesIO(b"mine"), "/file", if_etag=ABSENT)
    assert first == store.get_metadata("/file")
    inner.trouble = [LOST]
    second = store.store_fileobject(io.BytesIO(b"again"), "/file", if_etag=first["etag"])
    assert second["etag"] != first["etag"]


def test_a_conditional_write_that_another_forestalled(
    store: RetryingStore, inner: FailingStore
) -> None:
    inner.trouble = transient(1)
    put(inner._store, "/file", b"theirs")
    with pytest.raises(ConflictError):
        store.store_fileobject(io.BytesIO(b"mine"), "/file", if_etag=ABSENT)
    assert store.get_file("/file") == b"theirs"


def test_create_directory_whose_answer_was_lost(store: RetryingStore, inner: FailingStore) -> None:
    inner.trouble = [LOST]
    store.create_directory("/dir")
    with pytest.raises(AlreadyExistsError):
        store.create_directory("/dir")
    put(inner._store, "/file")
    inner.trouble = transient(1)
    with pytest.raises(AlreadyExistsError):
        store.create_directory("/file")


def test_a_tree_is_moved_once_if_anything_may_have_changed(
    store: RetryingStore, inner: FailingStore, time: Time
) -> None:
    put_tree(store, "/src")
    inner.trouble = transient(1)
    store.move("/src", "/dst")
    assert contents(store, "/dst") == TREE, "there was nothing at the destination"
    put(store, "/src/late")
    inner.tries.clear()
    for method in (store.move, store.duplicate):
        inner.trouble = transient(1)
        with pytest.raises(GivenUpError):
            method("/src", "/dst")
    assert inner.tries == [
        *("move", "get_metadata", "get_metadata"),
        *("duplicate", "get_metadata", "get_metadata"),
    ]
    assert contents(store, "/dst") == TREE


def test_a_file_is_moved_until_it_is(store: RetryingStore, inner: FailingStore) -> None:
    put(store, "/file", b"new")
    put(store, "/other", b"old")
    inner.trouble = transient(1)
    store.move("/file", "/other")
    assert contents(store, "/") == {"other": b"new"}
    put(store, "/file", b"newer")
    inner.trouble = [*transient(1), *transient(1), *no_trouble(2), LOST]
    store.move("/file", "/other")
    assert contents(store, "/") == {"other": b"newer"}


@pytest.mark.parametrize("method", ["duplicate", "move"])
def test_what_may_not_replace_knows_its_own_copy_again(
    store: RetryingStore, inner: FailingStore, method: str
) -> None:
    put(store, "/file", b"new")
    inner.trouble = [*transient(1), *no_trouble(4), LOST]
    getattr(store, method)("/file", "/copy", replace=False)
    assert not inner.trouble
    assert inner.tries.count(method) == {"duplicate": 3, "move": 2}[method]
    assert store.get_file("/copy") == b"new"
    put(store, "/file", b"newer")
    inner.trouble = transient(1)
    with pytest.raises(AlreadyExistsError):
        getattr(store, method)("/file", "/copy", replace=False)
    assert contents(store, "/") == {"file": b"newer", "copy": b"new"}


def test_a_source_that_is_missing_is_not_taken_for_moved(
    store: RetryingStore, inner: FailingStore
) -> None:
    put(store, "/there", b"old")
    for destination, error in (("/new", NoSuchFilesytemObjectError), ("/there", GivenUpError)):
        inner.trouble = transient(1)
        with pytest.raises(error):
            store.move("/none", destination)
    assert contents(store, "/") == {"there": b"old"}


def test_an_effort_ends_when_the_service_is_gone(time: Time) -> None:
    tries = 0

    def fail() -> None:
        nonlocal tries
        tries += 1
        time.now += 30
        raise TransientStoreError("busy", retry_after=1)

    effort = Effort(RetryPolicy(sleep=time.sleep, clock=time.clock))
    assert effort(int, "7") == 7
    for _ in range(5):
        with pytest.raises(GivenUpError) as caught:
            effort(fail)
        assert (caught.value.status, caught.value.retry_after) == (503, 1)
    assert tries == 2


def test_delete_whose_answer_was_lost(store: RetryingStore, inner: FailingStore) -> None:
    put(store, "/file")
    inner.trouble = [LOST]
    store.delete("/file")
    assert not store.exists("/file")


@pytest.mark.parametrize("size", [-1, 1000])
def test_a_stream_goes_on_where_it_broke(
    store: RetryingStore, inner: FailingStore, size: int
) -> None:
    put(store, "/file", BINARY)
    inner.breaks_at = [500, 300, 0]
    with store.open_read("/file", 100, 2000) as stream:
        seen = b"".join(iter(lambda: stream.read(size), b""))
    assert seen == BINARY[100:2100]


def test_a_stream_never_goes_on_in_another_version(
    store: RetryingStore, inner: FailingStore
) -> None:
    put(store, "/file", BINARY)
    inner.breaks_at = [500]
    with store.open_read("/file") as stream:
        assert stream.read(500) == BINARY[:500]
        put(store, "/file", BINARY[::-1])
        with pytest.raises(ConflictError):
            stream.read(500)


def test_a_walk_that_broke_names_everything_once(store: RetryingStore, inner: FailingStore) -> None:
    put_tree(store, "/tree")
    inner.breaks_at = [1, 1]
    walked = [path for path, _ in store.walk_metadata("/tree")]
    assert sorted(walked) == sorted(f"/tree/{name}" for name in TREE)


def test_a_walk_may_be_left_early(store: RetryingStore) -> None:
    put_tree(store, "/tree")
    walk = store.walk_metadata("/tree")
    assert isinstance(walk, Iterator)
    next(walk)
    del walk


def test_reading_costs_a_stat_only_without_an_etag(
    store: RetryingStore, inner: FailingStore
) -> None:
    etag = put(store, "/file", BINARY)["etag"]
    inner.tries.clear()
    read(store, "/file")
    assert inner.tries == ["get_metadata", "open_read"]
    inner.tries.clear()
    store.open_read("/file", etag=etag).close()
    assert inner.tries == ["open_read"]

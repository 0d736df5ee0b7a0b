"""Row C19: a service that does not answer is an error soon, and after that at once."""

import io
import multiprocessing
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from queue import Queue
from typing import Any

import pytest

from davfusion.stores.background import BackgroundPool
from davfusion.stores.errors import StoreAwayError, TransientStoreError, UnreachableError
from davfusion.stores.memory import MemoryStore, MemoryTree
from davfusion.stores.prompt import PROBED, RETRY_AFTER, PromptStore
from davfusion.stores.retry import RetryPolicy
from davfusion.stores.retrying import RetryingStore
from davfusion.stores.s3.store import S3Store
from davfusion.stores.store import NoSuchFilesytemObjectError, ReadableStream, Store
from davfusion.stores.wrapper import P, R, StoreWrapper
from tests.conformance import StoreConformance, names, put, put_all
from tests.flaky import FlakyStore
from tests.stores.clocks import Time

SOON, PAUSE = 0.02, 2.0
PLENTY = 20.0
"""A patience that a busy machine does not use up."""

QUESTIONS: list[Callable[[Store], object]] = [
    lambda store: store.get_metadata("/d/file"),
    lambda store: store.get_directory_metadata("/d"),
    lambda store: store.get_directory_listing("/d"),
    lambda store: list(store.walk_metadata("/")),
    lambda store: store.open_read("/d/file"),
    lambda store: store.get_file("/d/file"),
    lambda store: store.get_free_space(),
    lambda store: store.get_used_space(),
    lambda store: store.get_overall_space(),
]
CHANGES: list[Callable[[Store], object]] = [
    lambda store: store.store_fileobject(io.BytesIO(b"new"), "/d/new"),
    lambda store: store.delete("/d/file"),
    lambda store: store.delete_many(["/d/file"]),
    lambda store: store.create_directory("/e"),
    lambda store: store.duplicate("/d", "/e"),
    lambda store: store.move("/d", "/e"),
]


class Service(StoreWrapper):
    """A store whose calls hang while `answers` is not set, or fail with `failure`."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.answers = threading.Event()
        self.answers.set()
        self.failure: Exception | None = None
        self.calls: Counter[str] = Counter()

    def _call(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        self.calls[method.__name__] += 1
        self.answers.wait()
        if self.failure is not None:
            raise self.failure
        return method(*args, **kwargs)


@pytest.fixture
def service() -> Iterator[Service]:
    inner = MemoryStore(MemoryTree(capacity=1_000))
    put(inner, "/d/file", b"content")
    service = Service(inner)
    yield service
    service.failure = None
    service.answers.set()


@pytest.fixture
def time() -> Time:
    return Time()


def prompt(service: Store, time: Time, patience: float = PLENTY) -> PromptStore:
    return PromptStore(service, patience, PAUSE, time.clock)


class TestPromptStore(StoreConformance):
    @pytest.fixture
    def store(self) -> Store:
        return PromptStore(MemoryStore(MemoryTree(largest_object=4_000_000)))


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_that_hangs_is_unavailable(
    service: Service, time: Time, question: Callable[[Store], object]
) -> None:
    store = prompt(service, time, SOON)
    service.answers.clear()
    with pytest.raises(UnreachableError) as raised:
        question(store)
    assert (raised.value.status, raised.value.retry_after) == (503, RETRY_AFTER)


@pytest.mark.parametrize("call", [*QUESTIONS, *CHANGES])
def test_while_the_store_is_away_nothing_is_asked_of_it(
    service: Service, time: Time, call: Callable[[Store], object]
) -> None:
    store = prompt(service, time)
    service.failure = UnreachableError("connection refused")
    with pytest.raises(UnreachableError, match="refused"):
        store.get_metadata("/d/file")
    service.calls.clear()
    time.now += PAUSE - 0.1
    with pytest.raises(StoreAwayError, match="refused") as raised:
        call(store)
    assert (raised.value.status, raised.value.retry_after) == (503, RETRY_AFTER)
    assert not service.calls


@pytest.mark.parametrize("call", [*QUESTIONS, *CHANGES])
def test_after_a_pause_a_store_that_answers_is_back(
    service: Service, time: Time, call: Callable[[Store], object]
) -> None:
    told: Queue[str | None] = Queue()
    store = PromptStore(service, PLENTY, PAUSE, time.clock, told.put)
    service.failure = UnreachableError("connection refused")
    for _ in range(2):
        with pytest.raises(UnreachableError):
            call(store)
    assert [told.get(), told.empty()] == ["connection refused", True]
    service.failure = None
    time.now += PAUSE
    service.calls.clear()
    call(store)
    assert service.calls["get_directory_metadata"] - (call is QUESTIONS[1]) == 1
    assert told.get(timeout=PLENTY) is None


def test_one_call_a_pause_finds_out_whether_anyone_is_there(service: Service, time: Time) -> None:
    store = prompt(service, time)
    service.failure = UnreachableError("connection refused")
    for expected in (1, 2, 3):
        for _ in range(10):
            with pytest.raises(UnreachableError):
                store.delete("/d/file")
        assert service.calls.total() == expected
        time.now += PAUSE
    assert service.calls == {"delete": 1, "get_directory_metadata": 2}


@pytest.mark.parametrize(
    "failure", [TransientStoreError("SlowDown"), NoSuchFilesytemObjectError("none")]
)
def test_a_service_that_answers_with_an_error_is_there(
    service: Service, time: Time, failure: Exception
) -> None:
    store = prompt(service, time)
    service.failure = failure
    with pytest.raises(type(failure), match=str(failure)):
        store.get_metadata("/d/file")
    service.failure = None
    assert store.exists("/d/file")


class Slow(StoreWrapper):
    """Hangs at all but the probe, until `probes` of them have come."""

    def __init__(self, store: Store, probes: int) -> None:
        super().__init__(store)
        self.probes = probes
        self.answers = threading.Event()

    def _call(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        if args == (PROBED,):
            self.probes -= 1
            if not self.probes:
                self.answers.set()
        else:
            self.answers.wait()
        return method(*args, **kwargs)


def test_a_long_listing_is_waited_for_while_the_service_answers(time: Time) -> None:
    inner = MemoryStore()
    put_all(inner, [f"/{number}" for number in range(5)])
    assert len(names(prompt(Slow(inner, 3), time, patience=1.0), "/")) == 5


def test_a_single_path_that_hangs_does_not_make_the_store_away(time: Time) -> None:
    slow = Slow(MemoryStore(), 1_000)
    store = prompt(slow, time, patience=1.0)
    with pytest.raises(TransientStoreError) as raised:
        store.get_metadata("/a")
    assert not isinstance(raised.value, UnreachableError)
    slow.answers.set()
    assert not store.exists("/a")


def test_changes_have_no_deadline(service: Service, time: Time) -> None:
    store = prompt(service, time, patience=0)
    CHANGES[0](store)
    assert service.calls.keys() == {"store_fileobject"}


def test_a_copy_is_waited_for_while_the_service_answers(time: Time) -> None:
    inner = MemoryStore()
    put_all(inner, ["/src"])
    prompt(Slow(inner, 3), time, patience=1.0).duplicate("/src", "/dst")
    assert inner.exists("/dst")


def test_a_copy_is_given_up_with_the_service(service: Service, time: Time) -> None:
    service.answers.clear()
    with pytest.raises(UnreachableError):
        prompt(service, time, patience=0.1).duplicate("/d", "/e")
    service.answers.set()


def test_a_stream_that_comes_too_late_is_closed(service: Service, time: Time) -> None:
    closed = threading.Event()

    class Stream(io.BytesIO):
        def close(self) -> None:
            super().close()
            closed.set()

    class Opening(StoreWrapper):
        def open_read(self, path: str, *_: Any, **__: Any) -> ReadableStream:
            service.get_metadata(path)
            return Stream(b"late")

    service.answers.clear()
    with pytest.raises(UnreachableError):
        prompt(Opening(service), time, SOON).open_read("/d/file")
    service.answers.set()
    assert closed.wait(PLENTY)


def test_a_stream_that_loses_the_service_makes_it_away(service: Service, time: Time) -> None:
    class Breaking(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell():
                raise UnreachableError("read timed out")
            return super().read(size)

    class Opening(StoreWrapper):
        def open_read(self, path: str, *_: Any, **__: Any) -> ReadableStream:
            return Breaking(path.encode())

    store = prompt(Opening(service), time)
    with store.open_read("/d/file") as stream, pytest.raises(UnreachableError, match="timed out"):
        stream.read()
    with pytest.raises(StoreAwayError, match="timed out"):
        store.get_metadata("/d/file")


def test_a_walk_that_breaks_off_after_its_beginning_goes_on(time: Time) -> None:
    inner = MemoryStore()
    put_all(inner, [f"/{number}" for number in range(5)])
    flaky = FlakyStore(inner)
    flaky.faults = ["half-way"]
    policy = RetryPolicy(sleep=time.sleep, clock=time.clock)
    store = prompt(RetryingStore(flaky, policy), time)
    assert dict(store.walk_metadata("/")) == dict(inner.walk_metadata("/"))
    assert flaky.failed == 1


def test_a_refused_connection_is_an_error_within_five_seconds(
    monkeypatch: pytest.MonkeyPatch, time: Time
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    target = S3Store("bucket", region="us-east-1", endpoint_url="http://127.0.0.1:9")
    policy = RetryPolicy(attempts=4, total=3, sleep=time.sleep, clock=time.clock)
    started = time.now
    with pytest.raises(UnreachableError):
        prompt(RetryingStore(target, policy), time).get_directory_metadata("/")
    assert 1 <= len(time.pauses) <= 3
    assert time.now - started <= 3


def test_a_call_that_hangs_does_not_hold_up_the_end_of_the_process() -> None:
    program = (
        "import threading\n"
        "from davfusion.stores.background import BackgroundPool\n"
        "BackgroundPool(1, 'pool').submit(threading.Event().wait)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0


def _answer_after_fork(pool: BackgroundPool) -> None:
    assert pool.submit(int, "7").result(PLENTY) == 7


def test_the_pool_survives_a_fork() -> None:
    pool = BackgroundPool(2, "pool")
    _answer_after_fork(pool)
    child = multiprocessing.get_context("fork").Process(target=_answer_after_fork, args=[pool])
    child.start()
    child.join()
    assert child.exitcode == 0
    pool.close()


def test_the_pool_is_bounded_and_ends_its_threads() -> None:
    pool, go = BackgroundPool(3, "bounded"), threading.Event()
    futures = [pool.submit(go.wait) for _ in range(10)]
    threads = [thread for thread in threading.enumerate() if thread.name == "bounded"]
    assert len(threads) == 3
    pool.close()
    go.set()
    assert all(future.result(PLENTY) for future in futures)
    for thread in threads:
        thread.join(PLENTY)
        assert not thread.is_alive()

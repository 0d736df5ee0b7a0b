"""Row C19: a service that does not answer is an error soon, and after that at once."""

import io
import multiprocessing
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from queue import Queue
from typing import Any, Protocol

import pytest

from davfusion.stores.background import BackgroundPool
from davfusion.stores.errors import (
    InterruptedException,
    StoreAwayError,
    TransientStoreError,
    UnreachableError,
)
from davfusion.stores.memory import MemoryStore, MemoryTree
from davfusion.stores.prompt import PROBED, RETRY_AFTER, THREADS, PromptStore
from davfusion.stores.retry import RetryPolicy
from davfusion.stores.retrying import RetryingStore
from davfusion.stores.s3.store import S3Store
from davfusion.stores.store import Metadata, NoSuchFilesytemObjectError, ReadableStream, Store
from davfusion.stores.unsettled import Unsettled
from davfusion.stores.wrapper import P, R, StoreWrapper
from tests.conformance import StoreConformance, names, put, put_all
from tests.flaky import FlakyStore
from tests.live.drive import eventually
from tests.stores.clocks import Time

SOON = 0.02
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
TOUCHED = [["/d/new"], ["/d/file"], ["/d/file"], ["/e"], ["/d", "/e"], ["/d", "/e"]]
"""Of each of CHANGES."""
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
def unsettled(tmp_path: Path) -> Unsettled:
    return Unsettled(tmp_path / "unsettled")


class Prompt(Protocol):
    """A PromptStore over `service`."""

    def __call__(
        self, service: Store, patience: float = PLENTY, pause: float = PLENTY
    ) -> PromptStore: ...


@pytest.fixture
def prompt(unsettled: Unsettled) -> Prompt:
    return lambda service, patience=PLENTY, pause=PLENTY: PromptStore(
        service, unsettled, service, patience, pause
    )


class TestPromptStore(StoreConformance):
    @pytest.fixture
    def store(self, unsettled: Unsettled) -> Store:
        inner = MemoryStore(MemoryTree(largest_object=4_000_000))
        return PromptStore(inner, unsettled, inner)


@pytest.mark.parametrize("call", [*QUESTIONS, *CHANGES])
def test_a_call_that_hangs_is_unavailable(
    service: Service, prompt: Prompt, call: Callable[[Store], object]
) -> None:
    store = prompt(service, SOON)
    service.answers.clear()
    with pytest.raises(UnreachableError) as raised:
        call(store)
    assert (raised.value.status, raised.value.retry_after) == (503, RETRY_AFTER)


@pytest.mark.parametrize("call", [*QUESTIONS, *CHANGES])
def test_while_the_store_is_away_nothing_is_asked_of_it(
    service: Service, prompt: Prompt, call: Callable[[Store], object]
) -> None:
    store = prompt(service)
    service.failure = UnreachableError("connection refused")
    with pytest.raises(UnreachableError, match="refused"):
        store.get_metadata("/d/file")
    service.calls.clear()
    with pytest.raises(StoreAwayError, match="refused") as raised:
        call(store)
    assert (raised.value.status, raised.value.retry_after) == (503, RETRY_AFTER)
    assert not service.calls


@pytest.mark.parametrize("call", [*QUESTIONS, *CHANGES])
def test_a_store_that_answers_again_is_back_though_nobody_asks(
    service: Service, unsettled: Unsettled, call: Callable[[Store], object]
) -> None:
    told: Queue[str | None] = Queue()
    store = PromptStore(service, unsettled, service, PLENTY, SOON, told.put)
    service.failure = UnreachableError("connection refused")
    for _ in range(2):
        with pytest.raises(UnreachableError):
            call(store)
    assert [told.get(), told.empty()] == ["connection refused", True]
    service.failure = None
    assert told.get(timeout=PLENTY) is None
    call(store)


def test_a_store_that_is_away_again_is_found_back_again(service: Service, prompt: Prompt) -> None:
    store = prompt(service, pause=SOON)
    for _ in range(5):
        service.failure = UnreachableError("connection refused")
        assert eventually(lambda: not _is_there(store), PLENTY)
        service.failure = None
        assert eventually(lambda: _is_there(store), PLENTY)


def _is_there(store: Store) -> bool:
    try:
        return store.exists("/d/file")
    except UnreachableError:
        return False


def test_a_store_that_hung_is_back_though_nobody_asks(
    service: Service, unsettled: Unsettled
) -> None:
    told: Queue[str | None] = Queue()
    store = PromptStore(service, unsettled, service, SOON, SOON, told.put)
    service.answers.clear()
    with pytest.raises(UnreachableError):
        store.get_metadata("/d/file")
    assert told.get() is not None
    service.answers.set()
    assert told.get(timeout=PLENTY) is None
    assert store.exists("/d/file")


@pytest.mark.parametrize(
    "failure", [TransientStoreError("SlowDown"), NoSuchFilesytemObjectError("none")]
)
def test_a_service_that_answers_with_an_error_is_there(
    service: Service, prompt: Prompt, failure: Exception
) -> None:
    store = prompt(service)
    service.failure = failure
    with pytest.raises(type(failure), match=str(failure)):
        store.get_metadata("/d/file")
    service.failure = None
    assert store.exists("/d/file")


@pytest.fixture
def doubted(service: Service, unsettled: Unsettled) -> PromptStore:
    """A store that has failed once, below which each call is tried twice."""
    tried = RetryingStore(service, RetryPolicy(attempts=2, sleep=lambda _: None))
    store = PromptStore(tried, unsettled, service, PLENTY, PLENTY)
    service.failure = TransientStoreError("500")
    with pytest.raises(TransientStoreError, match="500"):
        store.get_metadata("/d/file")
    assert service.calls.pop("get_metadata") == 2
    return store


@pytest.mark.parametrize("call", QUESTIONS)
def test_a_service_that_answers_with_errors_alone_is_asked_once(
    service: Service, doubted: PromptStore, call: Callable[[Store], object]
) -> None:
    with pytest.raises(TransientStoreError, match="500"):
        call(doubted)
    assert service.calls.total() == 1
    service.failure = None
    call(doubted)


@pytest.mark.parametrize("call", CHANGES)
def test_a_service_that_answers_with_errors_alone_is_asked_before_a_change(
    service: Service, doubted: PromptStore, call: Callable[[Store], object]
) -> None:
    for _ in range(2):
        with pytest.raises(StoreAwayError, match="500") as raised:
            call(doubted)
        assert (raised.value.status, raised.value.retry_after) == (503, RETRY_AFTER)
    assert service.calls == {"get_directory_metadata": 2}
    service.failure = None
    call(doubted)


def test_where_only_listings_fail_the_rest_goes_on(service: Service, prompt: Prompt) -> None:
    class Unlisted(StoreWrapper):
        def get_directory_metadata(self, directory: str) -> dict[str, Metadata]:
            raise TransientStoreError(f"SlowDown of {directory}")

    store = prompt(Unlisted(service))
    for _ in range(2):
        with pytest.raises(TransientStoreError, match="SlowDown"):
            store.get_directory_metadata("/d")
        assert store.get_file("/d/file") == b"content"
    store.delete("/d/file")
    assert not store.exists("/d/file")


def test_before_a_change_a_service_in_doubt_is_waited_for_no_longer_than_else(
    service: Service, prompt: Prompt
) -> None:
    store = prompt(service, 0.5)
    service.failure = TransientStoreError("500")
    with pytest.raises(TransientStoreError, match="500"):
        store.get_metadata("/d/file")
    service.failure = None
    service.calls.clear()
    service.answers.clear()
    with pytest.raises(StoreAwayError):
        store.delete("/d/file")
    assert service.calls.keys() == {"get_directory_metadata"}


def test_a_listing_of_a_service_that_answers_with_errors_alone_is_given_up(
    service: Service, unsettled: Unsettled
) -> None:
    listed = Service(service)
    listed.answers.clear()
    store = PromptStore(listed, unsettled, service, 1.0, PLENTY)
    service.failure = TransientStoreError("500")
    with pytest.raises(TransientStoreError) as raised:
        store.get_directory_metadata("/d")
    assert not isinstance(raised.value, UnreachableError)
    assert raised.value.retry_after == RETRY_AFTER
    listed.answers.set()


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


def test_a_long_listing_is_waited_for_while_the_service_answers(prompt: Prompt) -> None:
    inner = MemoryStore()
    put_all(inner, [f"/{number}" for number in range(5)])
    assert len(names(prompt(Slow(inner, 3), patience=0.4), "/")) == 5


def test_many_long_changes_do_not_make_the_store_away(prompt: Prompt) -> None:
    inner = MemoryStore()
    put_all(inner, [f"/{number}" for number in range(5)])
    slow = Slow(inner, 4 * THREADS)
    store = prompt(slow, patience=1.0)
    changes = BackgroundPool(THREADS, "change")
    copies = [changes.submit(store.duplicate, "/1", f"/copy {n}") for n in range(THREADS)]
    assert len(names(store, "/")) >= 5
    for copy in copies:
        copy.result(PLENTY)


def test_a_single_path_that_hangs_does_not_make_the_store_away(prompt: Prompt) -> None:
    slow = Slow(MemoryStore(), 1_000)
    store = prompt(slow, patience=1.0)
    with pytest.raises(TransientStoreError) as raised:
        store.get_metadata("/a")
    assert not isinstance(raised.value, UnreachableError)
    slow.answers.set()
    assert not store.exists("/a")


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_waited_for_while_the_service_answers(
    prompt: Prompt, change: Callable[[Store], object]
) -> None:
    inner = MemoryStore()
    put(inner, "/d/file", b"content")
    before = dict(inner.walk_metadata("/"))
    change(prompt(Slow(inner, 3), patience=0.4))
    assert dict(inner.walk_metadata("/")) != before


def test_an_upload_is_waited_for_while_it_goes_on(service: Service, prompt: Prompt) -> None:
    """The way to the service may be so busy with it that nothing else comes through."""
    rounds = threading.Semaphore(0)

    class Uploading(StoreWrapper):
        def store_fileobject(self, fileobject: Any, *_: Any, **__: Any) -> Metadata:
            while fileobject.read(1):
                rounds.acquire(timeout=0.05)
            return {"is_dir": False, "bytes": 0, "modified": 0.0}

    service.answers.clear()
    source = io.BytesIO(bytes(20))
    prompt(Uploading(service), patience=0.4).store_fileobject(source, "/d/new")
    assert not source.read()


def test_a_source_that_is_not_reached_does_not_make_the_store_away(
    service: Service, prompt: Prompt
) -> None:
    """What is copied from another share, say."""

    class Away:
        def read(self, _size: int = -1, /) -> bytes:
            raise UnreachableError("the other service")

    store = prompt(service)
    with pytest.raises(TransientStoreError, match="the other service"):
        store.store_fileobject(Away(), "/d/new")
    assert store.get_metadata("/d/file")["bytes"] == len(b"content")
    put(store, "/d/new")


def test_the_source_of_an_upload_that_is_given_up_is_read_no_more(
    service: Service, prompt: Prompt
) -> None:
    ended: Queue[BaseException] = Queue()

    class Uploading(StoreWrapper):
        def store_fileobject(self, fileobject: Any, *_: Any, **__: Any) -> Metadata:
            service.answers.wait()
            try:
                fileobject.read(1)
            except BaseException as error:
                ended.put(error)
                raise
            raise AssertionError

    service.answers.clear()
    source = io.BytesIO(b"content")
    with pytest.raises(UnreachableError):
        prompt(Uploading(service), SOON).store_fileobject(source, "/d/new")
    service.answers.set()
    assert isinstance(ended.get(timeout=PLENTY), InterruptedException)
    assert source.tell() == 0


@pytest.mark.parametrize(("change", "touched"), list(zip(CHANGES, TOUCHED, strict=True)))
def test_no_change_overtakes_one_that_was_given_up(
    service: Service, unsettled: Unsettled, change: Callable[[Store], object], touched: list[str]
) -> None:
    """Or the older would replace the newer, which was acknowledged."""
    inner = MemoryStore()
    store = PromptStore(service, unsettled, service, SOON, SOON)
    other = PromptStore(inner, Unsettled(unsettled.folder), inner, PLENTY, PLENTY)
    service.answers.clear()
    with pytest.raises(UnreachableError):
        change(store)
    assert sorted(unsettled.paths()) == sorted(touched)
    for path in touched:
        with pytest.raises(TransientStoreError, match="not been answered") as raised:
            put(other, path, b"newer")
        assert (raised.value.status, raised.value.retry_after) == (503, RETRY_AFTER)
    put(other, "/beside", b"not concerned")
    service.answers.set()
    assert eventually(lambda: not unsettled.paths(), PLENTY)
    put(other, "/d/file", b"newer")


def test_a_change_that_cannot_be_noted_is_waited_for(service: Service, tmp_path: Path) -> None:
    (tmp_path / "unsettled").symlink_to("nowhere")
    store = PromptStore(service, Unsettled(tmp_path / "unsettled"), service, SOON, SOON)
    service.answers.clear()
    threading.Timer(0.3, service.answers.set).start()
    put(store, "/d/new", b"new")
    assert service.get_file("/d/new") == b"new"


def test_a_change_is_settled_with_its_process(unsettled: Unsettled) -> None:
    unsettled.note(Future(), ["/a"])
    (file,) = unsettled.folder.iterdir()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait(PLENTY)
    file.rename(file.with_name(file.name.replace(str(os.getpid()), str(ended.pid))))
    assert unsettled.paths() == []
    assert not list(unsettled.folder.iterdir())


def test_a_new_server_knows_of_no_change_that_was_given_up(unsettled: Unsettled) -> None:
    unsettled.note(Future(), ["/a"])
    unsettled.clear()
    assert unsettled.paths() == []


def test_a_stream_that_comes_too_late_is_closed(service: Service, prompt: Prompt) -> None:
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
        prompt(Opening(service), SOON).open_read("/d/file")
    service.answers.set()
    assert closed.wait(PLENTY)


def test_a_stream_that_loses_the_service_makes_it_away(service: Service, prompt: Prompt) -> None:
    class Breaking(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell():
                raise UnreachableError("read timed out")
            return super().read(size)

    class Opening(StoreWrapper):
        def open_read(self, path: str, *_: Any, **__: Any) -> ReadableStream:
            return Breaking(path.encode())

    store = prompt(Opening(service))
    with store.open_read("/d/file") as stream, pytest.raises(UnreachableError, match="timed out"):
        stream.read()
    with pytest.raises(StoreAwayError, match="timed out"):
        store.get_metadata("/d/file")


def test_a_walk_that_breaks_off_after_its_beginning_goes_on(prompt: Prompt) -> None:
    inner = MemoryStore()
    put_all(inner, [f"/{number}" for number in range(5)])
    flaky = FlakyStore(inner)
    flaky.faults = ["half-way"]
    time = Time()
    policy = RetryPolicy(sleep=time.sleep, clock=time.clock)
    store = prompt(RetryingStore(flaky, policy))
    assert dict(store.walk_metadata("/")) == dict(inner.walk_metadata("/"))
    assert flaky.failed == 1


def test_a_refused_connection_is_an_error_within_five_seconds(
    monkeypatch: pytest.MonkeyPatch, prompt: Prompt
) -> None:
    time = Time()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    target = S3Store("bucket", region="us-east-1", endpoint_url="http://127.0.0.1:9")
    policy = RetryPolicy(attempts=4, total=3, sleep=time.sleep, clock=time.clock)
    started = time.now
    with pytest.raises(UnreachableError):
        prompt(RetryingStore(target, policy)).get_directory_metadata("/")
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

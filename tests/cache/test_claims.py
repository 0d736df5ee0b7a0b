"""Where the store cannot refuse, those who may not replace are alone, in all processes."""

import io
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace as with_fields
from pathlib import Path

import pytest

from davfusion.cache import holds
from davfusion.cache.caching_store import CachingStore
from davfusion.cache.claims import Claims
from davfusion.cache.folder import CacheFolder
from davfusion.stores.store import (
    ABSENT,
    AlreadyExistsError,
    Features,
    Store,
    StoreSpaceLimitError,
    TransientStoreError,
)
from davfusion.stores.wrapper import P, R, StoreWrapper
from tests.remote import RemoteStore
from tests.samples import contents, put

Change = Callable[[Store], object]


def put_new(store: Store) -> None:
    store.store_fileobject(io.BytesIO(b"new"), "/new", if_etag=ABSENT)


ALONE: list[Change] = [
    lambda store: store.move("/file", "/new", replace=False),
    lambda store: store.duplicate("/file", "/new", replace=False),
    lambda store: store.move("/dir", "/new", replace=False),
    lambda store: store.create_directory("/new"),
    put_new,
]
TOGETHER: list[Change] = [
    lambda store: put(store, "/new"),
    lambda store: put(store, "/new/below"),
    lambda store: store.duplicate("/dir/x", "/new"),
    lambda store: store.move("/dir/x", "/new"),
]


class Trusting(StoreWrapper):
    """Refuses nothing by itself, and calls `meanwhile` once, in the middle of a change."""

    meanwhile: Callable[[], object] | None = None

    @property
    def features(self) -> Features:
        return with_fields(super().features, exclusive_transfer=False, conditional_write=False)

    def _call(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        changes = ("store_fileobject", "create_directory", "duplicate", "move")
        if self.meanwhile is not None and method.__name__ in changes:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        return method(*args, **kwargs)


@pytest.fixture
def service() -> Trusting:
    service = Trusting(RemoteStore())
    put(service, "/file", b"file")
    put(service, "/dir/x", b"x")
    put(service, "/kept")
    return service


Workers = list[CachingStore]


@pytest.fixture
def workers(service: Trusting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workers:
    monkeypatch.setattr(holds, "LONGEST_WAIT", 0.0)
    return [CachingStore(service, cache_id="id", cache_dir=tmp_path) for _ in range(2)]


@pytest.mark.parametrize(
    ("first", "second"),
    [(one, other) for one in ALONE for other in ALONE + TOGETHER]
    + [(one, other) for one in TOGETHER for other in ALONE],
)
def test_one_at_a_time(service: Trusting, workers: Workers, first: Change, second: Change) -> None:
    def meanwhile() -> None:
        before = contents(service, "/")
        with pytest.raises(TransientStoreError):
            second(workers[1])
        assert contents(service, "/") == before

    service.meanwhile = meanwhile
    first(workers[0])
    assert workers[1].exists("/new")
    with pytest.raises(AlreadyExistsError):
        workers[1].duplicate("/kept", "/new", replace=False)


@pytest.mark.parametrize("second", TOGETHER)
def test_those_who_may_replace_wait_for_nobody(
    service: Trusting, workers: Workers, second: Change
) -> None:
    service.meanwhile = lambda: second(workers[1])
    put(workers[0], "/new/below" if second is TOGETHER[1] else "/new")
    assert service.meanwhile is None


def test_elsewhere_nobody_waits(service: Trusting, workers: Workers) -> None:
    service.meanwhile = lambda: workers[1].duplicate("/file", "/other", replace=False)
    workers[0].move("/file", "/new", replace=False)
    assert workers[1].get_file("/new") == workers[1].get_file("/other") == b"file"


def test_where_no_claim_can_be_written_nobody_goes_on(tmp_path: Path) -> None:
    claims = Claims(tmp_path / "gone" / "claims.sqlite", wait=lambda _: pytest.fail("waited"))
    with pytest.raises(StoreSpaceLimitError) as failure, claims.claimed("/new", alone=False):
        pytest.fail("claimed")
    assert failure.value.status == 507


def test_damaged_claims_begin_anew(workers: Workers, tmp_path: Path) -> None:
    workers[0].create_directory("/a")
    workers[0].close()
    (tmp_path / "id" / "claims.sqlite").write_bytes(b"no database" * 1000)
    workers[0].move("/file", "/new", replace=False)
    assert workers[0].get_file("/new") == b"file"


def test_a_claim_that_was_lost_ends_no_other(tmp_path: Path) -> None:
    """A damaged file, or a full disk, has all claims begin anew."""
    path = tmp_path / "claims.sqlite"
    claims = Claims(path, wait=lambda _: None)
    with ExitStack() as second:
        with claims.claimed("/lost", alone=True):
            claims.close()
            path.write_bytes(b"no database" * 1000)
            second.enter_context(claims.claimed("/new", alone=True))
        with pytest.raises(TransientStoreError), claims.claimed("/new", alone=True):
            pytest.fail("claimed twice")
    claims.close()


def test_a_claim_ends_with_its_process_or_at_a_start(service: Trusting, tmp_path: Path) -> None:
    folder = CacheFolder(tmp_path, "id")
    folder.prepare()
    dying = (
        "import sys; from pathlib import Path; from davfusion.cache.claims import Claims;"
        "claim = Claims(Path(sys.argv[1])).claimed('/new', alone=True); claim.__enter__();"
        "import os; os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", dying, str(folder.path / "claims.sqlite")], check=True)
    CachingStore(service, cache_id="id", cache_dir=tmp_path).create_directory("/new")
    with folder.claims().claimed("/new/x", alone=True):
        folder.recover()
        with folder.claims().claimed("/new/x", alone=True):
            assert service.is_dir("/new")

"""Locks (row D2): what they exclude, how long they last, and whom they let through."""

import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest

from davfusion.provider.locking import DEFAULT_SECONDS, LONGEST_SECONDS, parse_timeout
from davfusion.provider.locks import Lock, LockedError
from davfusion.provider.state import State
from tests.clock import Clock
from tests.provider.client import DavClient


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def state(clock: Clock) -> State:
    return State(None, clock)


def acquire(
    state: State, root: str, *, exclusive: bool = True, deep: bool = True, seconds: float = 60
) -> Lock:
    return state.locks.acquire(
        root, is_exclusive=exclusive, is_deep=deep, owner="", principal="me", seconds=seconds
    )


@pytest.mark.parametrize(
    ("first", "second", "granted"),
    [
        (("/a", True, True), ("/a", True, True), False),
        (("/a", True, True), ("/a/b", True, False), False),
        (("/a", True, False), ("/a/b", True, False), True),
        (("/a/b", True, False), ("/a", True, True), False),
        (("/a/b", True, False), ("/a", True, False), True),
        (("/a", True, True), ("/ab", True, True), True),
        (("/", True, True), ("/x/y", False, False), False),
        (("/a", False, True), ("/a", False, True), True),
        (("/a", False, True), ("/a/b", True, False), False),
        (("/a/b", False, False), ("/a", False, True), True),
    ],
)
def test_what_excludes_what(
    state: State,
    first: tuple[str, bool, bool],
    second: tuple[str, bool, bool],
    granted: bool,
) -> None:
    acquire(state, first[0], exclusive=first[1], deep=first[2])
    try:
        acquire(state, second[0], exclusive=second[1], deep=second[2])
        in_the_way: tuple[str, ...] = ()
    except LockedError as error:
        in_the_way = error.roots
    assert in_the_way == (() if granted else (first[0],))


def test_a_lock_ends_with_its_time(state: State, clock: Clock) -> None:
    lock = acquire(state, "/a", seconds=10)
    clock.now += 9
    state.locks.refresh("/a/b", {lock.token}, "me", 10)
    clock.now += 9
    assert [one.token for one in state.locks.covering("/a")] == [lock.token]
    clock.now += 1
    assert state.locks.covering("/a") == []
    acquire(state, "/a")


def test_writes_need_a_token_of_the_same_principal(state: State) -> None:
    lock = acquire(state, "/a")
    state.locks.check_write("/a/b", {lock.token}, "me", tree=False, membership=True)
    for tokens, who in ((set[str](), "me"), ({lock.token}, "you")):
        with pytest.raises(LockedError):
            state.locks.check_write("/a/b", tokens, who, tree=False, membership=False)


def test_one_token_of_a_shared_lock_is_enough(state: State) -> None:
    first = acquire(state, "/a", exclusive=False)
    acquire(state, "/a", exclusive=False)
    state.locks.check_write("/a", {first.token}, "me", tree=True, membership=False)


def test_a_shared_lock_from_above_is_as_good_as_one_on_the_file(state: State) -> None:
    above = acquire(state, "/a", exclusive=False)
    own = acquire(state, "/a/b", exclusive=False)
    for lock in (above, own):
        state.locks.check_write("/a/b", {lock.token}, "me", tree=True, membership=False)
    state.locks.check_write("/a", {above.token}, "me", tree=True, membership=False)
    for path, membership in (("/a", False), ("/a/b", True)):
        with pytest.raises(LockedError) as raised:
            state.locks.check_write(path, {own.token}, "me", tree=True, membership=membership)
        assert raised.value.roots == ("/a",)


def test_a_shallow_lock_protects_the_membership(state: State) -> None:
    acquire(state, "/a", deep=False)
    state.locks.check_write("/a/b", (), "me", tree=False, membership=False)
    with pytest.raises(LockedError):
        state.locks.check_write("/a/b", (), "me", tree=False, membership=True)


def test_a_tree_holds_the_locks_below(state: State) -> None:
    acquire(state, "/a/b/c")
    state.locks.check_write("/a", (), "me", tree=False, membership=False)
    with pytest.raises(LockedError):
        state.locks.check_write("/a", (), "me", tree=True, membership=False)
    state.locks.remove_tree("/a/b")
    state.locks.check_write("/a", (), "me", tree=True, membership=False)


def test_locks_and_properties_survive_a_restart(tmp_path: Path) -> None:
    state = State(tmp_path / "state.sqlite")
    lock = acquire(state, "/a")
    state.properties.change("/a", {"{x}p": "<p/>"})
    state.close()
    again = State(tmp_path / "state.sqlite")
    assert again.locks.covering("/a") == [lock]
    assert again.properties.of("/a") == {"{x}p": "<p/>"}


def _try_to_lock(path: Path, go: Callable[[], object]) -> bool:
    go()
    try:
        acquire(State(path), "/a")
    except LockedError:
        return False
    return True


def _worker(path: Path, barrier: object, results: object) -> None:
    results.put(_try_to_lock(path, barrier.wait))  # type: ignore[attr-defined]


def test_of_many_processes_one_gets_the_lock(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    path, barrier, results = tmp_path / "s.sqlite", context.Barrier(4), context.Queue()
    State(path).locks.covering("/")
    workers = [context.Process(target=_worker, args=(path, barrier, results)) for _ in range(4)]
    for worker in workers:
        worker.start()
    granted = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert sorted(granted) == [False, False, False, True]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, DEFAULT_SECONDS),
        ("Second-600", 600),
        ("Infinite, Second-4100000000", LONGEST_SECONDS),
        ("Second-4100000000", LONGEST_SECONDS),
        ("infinity, second-5", 5),
        ("Second-0", 1),
        ("junk", DEFAULT_SECONDS),
    ],
)
def test_timeouts(header: str | None, seconds: int) -> None:
    assert parse_timeout(header) == seconds


def test_lock_refresh_unlock_over_dav() -> None:
    client = DavClient()
    client.put("/f", b"1")
    token = client.token("/f", Timeout="Second-100", Depth="0")
    assert client.put("/f", b"2").status == 423
    assert client("DELETE", "/f").status == 423
    assert client("MOVE", "/f", headers={"Destination": "/g"}).status == 423
    assert client.proppatch("/f", "<X:p/>").status == 423
    refresh = client("LOCK", "/f", headers={"If": f"({token})", "Timeout": "Second-500"})
    assert (refresh.status, b"Second-500" in refresh.body) == (200, True)
    assert client.put("/f", b"2", If=f"({token})").status == 204
    found = client.propfind("/f", "lockdiscovery").properties()["/f"]["{DAV:}lockdiscovery"][1]
    assert f"<{found.findtext('.//{DAV:}locktoken/{DAV:}href')}>" == token
    assert found.findtext(".//{DAV:}owner/{DAV:}href") == "me"
    assert client("UNLOCK", "/f", headers={"Lock-Token": "<urn:none>"}).status == 409
    assert client("UNLOCK", "/f").status == 400
    assert client("UNLOCK", "/f", headers={"Lock-Token": token}).status == 204
    assert client.put("/f", b"3").status == 204


def test_a_423_names_the_lock_in_the_way() -> None:
    client = DavClient()
    client.mkcol("/d")
    client.put("/d/f", b"1")
    client.token("/d")
    reply = client.put("/d/f", b"2")
    assert (reply.status, b"lock-token-submitted><D:href>/d<" in reply.body) == (423, True)
    assert b"no-conflicting-lock" in client.lock("/d/f").body


def test_a_lock_on_nothing_makes_an_empty_file() -> None:
    client = DavClient()
    reply = client.lock("/new")
    assert (reply.status, client.get("/new").body) == (201, b"")
    assert client.lock("/none/x").status == 409
    assert client.state.locks.below("/") == client.state.locks.covering("/new")


def test_a_member_appears_only_with_the_token_of_the_folder() -> None:
    client = DavClient()
    client.mkcol("/d", "/e")
    client.put("/e/x", b"1")
    token = client.token("/d", Depth="0")
    move = {"Destination": "/d/x"}
    assert client.put("/d/f").status == 423
    assert client("MKCOL", "/d/f").status == 423
    assert client.lock("/d/f").status == 423
    assert client("COPY", "/e/x", headers=move).status == 423
    assert client("MOVE", "/e/x", headers=move).status == 423
    tagged = f"<http://localhost/d> ({token})"
    assert client("MOVE", "/e/x", headers=move | {"If": tagged}).status == 201


def test_a_move_leaves_locks_behind_and_a_delete_ends_them() -> None:
    client = DavClient()
    client.put("/f", b"1")
    token = client.token("/f")
    moved = client("MOVE", "/f", headers={"Destination": "/g", "If": f"({token})"})
    assert (moved.status, client.put("/g", b"2").status, client.put("/f").status) == (201, 204, 201)
    token = client.token("/g")
    assert client("DELETE", "/g", headers={"If": f"({token})"}).status == 204
    assert client.put("/g", b"free").status == 201


@pytest.mark.parametrize("method", ["COPY", "MOVE"])
def test_the_locks_in_a_replaced_folder_end_with_it(method: str) -> None:
    client = DavClient()
    client("MKCOL", "/new")
    client("MKCOL", "/old")
    client.put("/old/x", b"1")
    own, member = client.token("/old", Depth="0"), client.token("/old/x")
    tokens = f"</old> ({own}) </old/x> ({member})"
    assert client(method, "/new", headers={"Destination": "/old", "If": tokens}).status == 204
    assert client.put("/old/x").status == 423
    assert client.put("/old/x", If=f"</old> ({own})").status == 201


def test_a_token_without_its_brackets_unlocks() -> None:
    client = DavClient()
    client.put("/f")
    token = client.lock("/f").headers["lock-token"].strip("<>")
    assert client("UNLOCK", "/f", headers={"Lock-Token": f"{token} more"}).status == 400
    assert client("UNLOCK", "/f", headers={"Lock-Token": token}).status == 204

"""Against a model: our own changes show at once, a foreign one at the latest when the age ends.

While the store fails, older answers show; none from before a change of ours, be it one that failed.
"""

import io
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from davfusion.cache.entry import ABSENT
from davfusion.cache.listings import ListingTable
from davfusion.cache.metadata_caching_store import MetadataCachingStore
from davfusion.stores import paths
from davfusion.stores.errors import StoreAwayError
from davfusion.stores.memory import MemoryStore
from davfusion.stores.store import (
    Metadata,
    NoSuchFilesytemObjectError,
    Store,
    StoreAccessError,
    TransientStoreError,
)
from davfusion.stores.wrapper import P, R, StoreWrapper

AGE = 20.0
PATHS = ["/a", "/ab", "/a%", "/a/b", "/a/b/c", "/a/d", "/ab/c", "/d", "/d/b"]
DIRECTORIES = ["/", "/a", "/a/b", "/d"]

State = tuple[bool, str | None] | None
path = st.sampled_from(PATHS)
actor = st.sampled_from([0, 1, None])
"""A worker, or the foreign writer."""


class Service(StoreWrapper):
    """A store that fails every call with `failure`: having done nothing, or all of it (`done`)."""

    failure: TransientStoreError | None = None
    done = False

    def _call(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        if self.failure is None:
            return method(*args, **kwargs)
        if self.done:
            with suppress(StoreAccessError):
                method(*args, **kwargs)
        raise self.failure

    def walk_metadata(self, directory: str) -> Iterator[tuple[str, Metadata]]:
        return Store.walk_metadata(self, directory)


def state_of(metadata: Metadata | None) -> State:
    return None if metadata is None else (metadata["is_dir"], metadata.get("etag"))


def truth(store: Store) -> dict[str, State]:
    return {one: state_of(store.get_metadata(one)) if store.exists(one) else None for one in PATHS}


class SharedTable(RuleBasedStateMachine):
    """Two workers on one table, a foreign writer, a clock; the model is the store's own past."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.store = MemoryStore()
        self.service = Service(self.store)
        self.table = ListingTable()
        self.workers = [
            MetadataCachingStore(self.service, AGE, listings=self.table, clock=lambda: self.now)
            for _ in range(2)
        ]
        self.history = [(self.now, truth(self.store))]
        self.since = dict.fromkeys(PATHS, 0)
        """Path -> the first state in `history` that may still be shown."""
        self.since_success = dict.fromkeys(PATHS, 0)
        """As `since`, for listings while the store fails: they ignore changes that failed."""
        self.copies: set[str] = set()
        """What we have copied there, and not changed since: only the store knows its ETag."""
        self.succeeded = False

    @rule(failure=st.sampled_from([None, TransientStoreError, StoreAwayError]), done=st.booleans())
    def fail(self, failure: type[TransientStoreError] | None, done: bool) -> None:
        self.service.failure = None if failure is None else failure("nobody answers")
        self.service.done = done and failure is TransientStoreError

    @rule(by=actor, one=path)
    def put(self, by: int | None, one: str) -> None:
        self.attempt(self.actor(by).store_fileobject, io.BytesIO(b"x"), one)
        self.changed(by, one, above=one if self.succeeded else paths.ROOT)

    @rule(by=actor, one=path, is_dir=st.booleans())
    def delete(self, by: int | None, one: str, is_dir: bool) -> None:
        self.learn_kind(by, one)
        self.attempt(self.actor(by).delete, one, is_dir)
        # What is still there is of the other kind, which a foreign writer has put there.
        self.changed(None if self.store.exists(one) else by, one)

    @rule(by=actor, one=path)
    def create_directory(self, by: int | None, one: str) -> None:
        self.attempt(self.actor(by).create_directory, one)
        self.changed(by, one, above=one if self.succeeded else paths.ROOT)

    @rule(by=actor, src=path, dst=path)
    def duplicate(self, by: int | None, src: str, dst: str) -> None:
        self.learn_kind(by, src)
        self.attempt(self.actor(by).duplicate, src, dst)
        self.changed(by, dst)
        if by is not None and self.succeeded:
            self.copies.add(dst)

    @rule(by=actor, src=path, dst=path)
    def move(self, by: int | None, src: str, dst: str) -> None:
        self.learn_kind(by, src)
        self.attempt(self.actor(by).move, src, dst)
        self.changed(by, src, dst)

    @rule(worker=st.integers(0, 1), one=path)
    def forget(self, worker: int, one: str) -> None:
        self.workers[worker].forget(one)
        if self.service.failure is not None:
            with pytest.raises(TransientStoreError):
                self.workers[worker].get_metadata(one)
            return
        with suppress(StoreAccessError):
            assert self.workers[worker].get_metadata(one) == self.store.get_metadata(one)
        assert self.workers[worker].exists(one) == self.store.exists(one)

    @rule(seconds=st.sampled_from([1, 5, 11, 21]))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule(worker=st.integers(0, 1), one=path)
    def stat(self, worker: int, one: str) -> None:
        failing = self.service.failure is not None
        try:
            state = state_of(self.workers[worker].get_metadata(one))
        except NoSuchFilesytemObjectError:
            state = None
        except StoreAccessError:
            assert failing
            return
        assert state in (self.once(one) if failing else self.possible(one))

    @rule(worker=st.integers(0, 1), directory=st.sampled_from(DIRECTORIES), walk=st.booleans())
    def listing(self, worker: int, directory: str, walk: bool) -> None:
        possible = self.possible if self.service.failure is None else self.listed
        with suppress(StoreAccessError):
            if walk:
                walked = dict(self.workers[worker].walk_metadata(directory))
                for one in PATHS:
                    if paths.is_below(one, directory):
                        assert state_of(walked.get(one)) in possible(one), one
            children = self.workers[worker].get_directory_metadata(directory)
            self.check_children(directory, children, possible)

    @invariant()
    def what_the_table_answers_is_possible(self) -> None:
        for one in PATHS:
            known = self.table.find(one, self.now)
            if known is not None:
                state = None if known.kind == ABSENT else state_of(known.metadata)
                assert state in self.possible(one), one
        for directory in DIRECTORIES:
            children = self.table.children(directory, self.now)
            if children is not None:
                self.check_children(directory, children, self.possible)

    @invariant()
    def what_is_last_known_was_true_once(self) -> None:
        for one in PATHS:
            try:
                known = self.workers[0].last_known(one)
            except NoSuchFilesytemObjectError:
                assert None in self.once(one), one
            else:
                assert known is None or state_of(known) in self.once(one), one

    def check_children(
        self,
        directory: str,
        children: dict[str, Metadata],
        possible: Callable[[str], set[State]],
    ) -> None:
        for one in PATHS:
            if paths.parent(one) == directory:
                assert state_of(children.get(paths.name(one))) in possible(one), one

    def actor(self, by: int | None) -> Store:
        return self.store if by is None else self.workers[by]

    def learn_kind(self, by: int | None, one: str) -> None:
        """What a foreign writer has made a file of is taken for the folder that it was known as."""
        if by is not None and len({state and state[0] for state in self.possible(one)}) > 1:
            self.workers[by].forget(one)

    def attempt(self, change: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            change(*args, **kwargs)
        except StoreAccessError:
            self.succeeded = False
        else:
            self.succeeded = True

    def changed(self, by: int | None, *trees: str, above: str = paths.ROOT) -> None:
        """Note the new truth; what one of us has touched must show it from now on.

        Touched are whole trees, and the directories over `above`: those a write has made.
        """
        self.history.append((self.now, truth(self.store)))
        if by is None or isinstance(self.service.failure, StoreAwayError):
            return
        touched = {*trees, *paths.ancestors(above)}
        self.copies -= touched
        for one in PATHS:
            if one in touched or any(paths.is_below(one, tree) for tree in trees):
                self.since[one] = len(self.history) - 1
                if self.succeeded:
                    self.since_success[one] = len(self.history) - 1

    def possible(self, one: str) -> set[State]:
        """The states that stood at some moment of the last AGE seconds, ours being the first."""
        ends = [start for start, _ in self.history[1:]] + [self.now + 1]
        return {
            state[one]
            for number, ((_, state), end) in enumerate(zip(self.history, ends, strict=True))
            if number >= self.since[one] and end > self.now - AGE
        }

    def once(self, one: str) -> set[State]:
        """The states that stood at any moment since our last change."""
        return {state[one] for _, state in self.history[self.since[one] :]}

    def listed(self, one: str) -> set[State]:
        """As once(), with those before our changes that failed; of a copy, without an ETag too."""
        states = {state[one] for _, state in self.history[self.since_success[one] :]}
        unnamed = {(state[0], None) for state in states if state is not None}
        return states | unnamed if one in self.copies else states


SharedTable.TestCase.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
TestSharedTable = SharedTable.TestCase

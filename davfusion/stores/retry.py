"""When and how often a call that may succeed later is made again; one policy for all layers."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from random import SystemRandom
from typing import Any, Final, ParamSpec, Protocol, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, wait_exponential

from davfusion.stores.store import InterruptedException, InterruptEvent, TransientStoreError

P = ParamSpec("P")
R = TypeVar("R")

LONGEST_PAUSE: Final = 20.0
"""Seconds between two tries, if the service does not wish more."""

_JITTER: Final = SystemRandom()
"""Shares no numbers with forked processes, nor with who seeds `random`."""
_HEARTBEAT: Final = 0.2
"""Seconds after which a pause looks at the interrupt_event again."""


class GivenUpError(TransientStoreError):
    """It has been tried often enough, or must not be tried again; the client may."""


def given_up(error: TransientStoreError) -> GivenUpError:
    """`error` as one that no layer above tries again."""
    return GivenUpError(str(error), error.status, error.retry_after)


@dataclass(frozen=True)
class RetryPolicy:
    """At most `attempts` tries of a call.

    No new try begins later than `total` seconds after the first; a service that wishes
    (`retry_after`) a longer pause than is left gets none. The first pause lasts up to `first`
    seconds, each further one up to twice as long, none more than LONGEST_PAUSE.
    """

    attempts: int = 6
    total: float = 60
    first: float = 0.5
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """What `function` returns, called as often as it takes.

        As retrying() does it, whose accounts cost more than what most calls have to do; so they
        are opened once a try has failed.
        """
        began = self.clock()
        try:
            return function(*args, **kwargs)
        except TransientStoreError as error:
            first = [error]

        def again() -> R:
            if first:
                raise first.pop()
            return function(*args, **kwargs)

        return self.retrying(began=began)(again)

    def retrying(
        self, interrupt_event: InterruptEvent | None = None, *, began: float | None = None
    ) -> Retrying:
        """One call's tries: call it with a function, or iterate it for `with` blocks."""
        deadline = (self.clock() if began is None else began) + self.total
        longest = wait_exponential(multiplier=self.first, max=LONGEST_PAUSE)

        def is_last(state: RetryCallState) -> bool:
            late = self.clock() + state.upcoming_sleep > deadline
            return state.attempt_number >= self.attempts or late

        def pause(seconds: float) -> None:
            self._pause(seconds, interrupt_event)

        return _Tries(
            retry=retry_if_exception(_may_pass),
            stop=is_last,
            wait=lambda state: max(_JITTER.uniform(0, longest(state)), _wish(state)),
            sleep=pause,
            reraise=True,
        )

    def _pause(self, seconds: float, interrupt_event: InterruptEvent | None) -> None:
        if interrupt_event is None:
            self.sleep(seconds)
            return
        while seconds > 0:
            if interrupt_event.is_set():
                raise InterruptedException("interrupted while waiting for another try")
            self.sleep(min(seconds, _HEARTBEAT))
            seconds -= _HEARTBEAT


class _Tries(Retrying):
    """Keeps its counts for the call, not for a thread: a walk may go on in another one."""

    @cached_property
    def statistics(self) -> dict[str, Any]:
        return {}


DEFAULT_POLICY: Final = RetryPolicy()


class Effort:
    """The tries of one operation that makes many calls, also from several threads.

    Each call has the tries of the policy. Once none has succeeded for `total` seconds and one is
    given up, the service counts as gone: the calls that are left fail without a try.
    """

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._succeeded = policy.clock()
        self._gone: GivenUpError | None = None

    def __call__(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """What `function` returns; GivenUpError in place of its last TransientStoreError."""
        if self._gone is not None:
            raise given_up(self._gone)
        try:
            result = self._policy.call(function, *args, **kwargs)
        except TransientStoreError as error:
            last = given_up(error)
            if self._policy.clock() - self._succeeded > self._policy.total:
                self._gone = last
            raise last from error
        self._succeeded = self._policy.clock()
        return result


class AnyEffort(Protocol):
    """Calls a function, and calls it again where it failed for a time only."""

    def __call__(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R: ...


def once(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """The Effort of a call that a layer above makes again."""
    return function(*args, **kwargs)


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, TransientStoreError) and not isinstance(error, GivenUpError)


def _wish(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome is not None else None
    return (error.retry_after or 0) if isinstance(error, TransientStoreError) else 0

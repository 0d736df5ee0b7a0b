"""Running many requests at once, with a bounded number waiting."""

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def run_all(
    function: Callable[[T], R], items: Iterable[T], workers: int
) -> Generator[tuple[T, Future[R]], None, None]:
    """(item, finished future) for each item, as they finish.

    `items` is read only as fast as they are worked off. Closing the generator waits for what has
    begun and begins nothing more.
    """
    under_way: dict[Future[R], T] = {}
    with ThreadPoolExecutor(workers, "many") as pool:
        try:
            for item in items:
                under_way[pool.submit(function, item)] = item
                if len(under_way) >= 2 * workers:
                    yield from _finished(under_way)
            while under_way:
                yield from _finished(under_way)
        finally:
            for future in under_way:
                future.cancel()


def _finished(under_way: dict[Future[R], T]) -> Iterator[tuple[T, Future[R]]]:
    for future in wait(under_way, return_when=FIRST_COMPLETED).done:
        yield under_way.pop(future), future

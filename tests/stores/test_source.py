"""A source that cannot be rewound, sent in parts of which few are held."""

import threading
from collections.abc import Iterator

import pytest

from davfusion.stores.retry import RetryPolicy
from davfusion.stores.source import HELD, IN_MEMORY, UNTOLD, Range, Slice, Source, opened
from davfusion.stores.store import (
    InterruptedException,
    StoreAccessError,
    StoreSpaceLimitError,
    TransientStoreError,
)
from tests import samples

TEN = b"0123456789"
RETRY = RetryPolicy(first=0, attempts=3)


def passing(content: bytes, size: int | None = None) -> Source:
    """All of it is passed, from the first byte on."""
    stream = samples.Source(content) if size is None else samples.SizedSource(content, size)
    return opened(stream, None, UNTOLD, 1, RETRY)


def thirds(count: int) -> Iterator[Range]:
    for number in range(count):
        yield number, number * 3, 3


def sent(source: Source, parts: Iterator[Range]) -> list[bytes]:
    """Each part, read twice."""

    def twice(part: Range) -> bytes:
        body = Slice(source, *part[1:])
        assert body.md5()
        return body.read()

    return [source.send(twice, part) for part in source.parts(parts)]


def test_the_size_is_known_at_the_end() -> None:
    source = passing(TEN)
    assert source.size == UNTOLD
    assert sent(source, thirds(100)) == [b"012", b"345", b"678", b"9"]
    assert source.size == len(TEN)


@pytest.mark.parametrize("size", [None, 9])
def test_an_end_where_a_part_ends(size: int | None) -> None:
    assert sent(passing(TEN[:9], size), thirds(100)) == [b"012", b"345", b"678"]


def test_more_than_all_parts_hold() -> None:
    with pytest.raises(StoreSpaceLimitError) as caught:
        sent(passing(TEN), thirds(3))
    assert caught.value.status == 413


@pytest.mark.parametrize("size", [len(TEN) - 1, len(TEN) + 1])
@pytest.mark.parametrize("threshold", [1, 100])
def test_a_source_that_is_not_as_long_as_it_said(size: int, threshold: int) -> None:
    with pytest.raises(StoreAccessError):
        opened(samples.SizedSource(TEN, size), None, UNTOLD, threshold)


def test_nothing_at_all() -> None:
    source = passing(b"")
    assert (source.size, sent(source, iter([]))) == (0, [])


def test_a_source_that_is_too_long_is_not_read() -> None:
    source = samples.SizedSource(TEN, at_end=samples.fail)
    with pytest.raises(StoreSpaceLimitError):
        opened(source, None, len(TEN) - 1, 1)


def test_a_large_part_is_held_on_the_disk() -> None:
    content = bytes(IN_MEMORY) + TEN
    source = passing(content)
    assert sent(source, iter([(1, 0, 2 * IN_MEMORY)])) == [content]


@pytest.mark.usefixtures("no_temporary_files")
def test_a_small_one_in_memory() -> None:
    content = bytes(IN_MEMORY)
    assert sent(passing(content), iter([(1, 0, IN_MEMORY)])) == [content]


def test_a_part_is_sent_again_and_the_next_only_while_there_is_hope() -> None:
    source, tries = passing(TEN), 0

    def fail(part: Range) -> None:
        nonlocal tries
        tries += 1
        raise TransientStoreError(str(part))

    parts = source.parts(thirds(100))
    with pytest.raises(TransientStoreError):
        source.send(fail, next(parts))
    assert tries == RETRY.attempts
    with pytest.raises(TransientStoreError):
        next(parts)


def test_few_parts_are_held() -> None:
    source = passing(TEN)
    parts = source.parts(thirds(100))
    held = [next(parts) for _ in range(HELD)]
    more = threading.Thread(target=lambda: held.append(next(parts)))
    more.start()
    assert len(held) == HELD
    source.send(lambda part: part, held[0])
    more.join()
    assert len(held) == HELD + 1


def test_a_wish_to_break_off_ends_the_tries() -> None:
    event = threading.Event()
    source = opened(samples.Source(TEN), event, UNTOLD, 1)

    def fail(_part: Range) -> None:
        event.set()
        raise TransientStoreError("no")

    with pytest.raises(InterruptedException):
        source.send(fail, next(source.parts(thirds(100))))

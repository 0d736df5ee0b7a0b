"""The rules of what is sent when, and what waits for what."""

from hypothesis import given
from hypothesis import strategies as st

from davfusion.cache import schedule
from davfusion.cache.pending import (
    ABSENT,
    DELETIONS,
    DIRECTORY,
    EITHER,
    FILE,
    LARGE,
    LARGE_FROM,
    NOTHING,
    SMALL,
    Row,
)
from davfusion.cache.schedule import Choice
from davfusion.stores import paths

names = st.lists(st.sampled_from("ab"), min_size=1, max_size=4)
some_paths = names.map(lambda parts: "/" + "/".join(parts))
rows = st.builds(
    Row,
    some_paths,
    st.sampled_from([FILE, DIRECTORY, ABSENT]),
    st.sampled_from([NOTHING, FILE, DIRECTORY, EITHER]),
).filter(lambda row: row.kind != ABSENT or row.clears != NOTHING)
journals = st.lists(rows, max_size=12, unique_by=lambda row: row.path)


def related(one: str, other: str) -> bool:
    return one == other or paths.is_below(one, other) or paths.is_below(other, one)


def chosen(journal: list[Row], sending: list[str], held: list[str]) -> list[Row]:
    hiding = {row.path for row in journal if row.hides_below}
    choice = Choice(sending, held, hiding.__contains__)
    return [row for row in journal if choice.allows(row)]


@given(journals, st.lists(some_paths, max_size=3), st.lists(some_paths, max_size=2))
def test_nothing_is_sent_below_what_must_first_be_cleared(
    journal: list[Row], sending: list[str], held: list[str]
) -> None:
    for row in chosen(journal, sending, held):
        assert not any(paths.is_below(row.path, r.path) for r in journal if r.hides_below)


@given(journals, st.lists(some_paths, max_size=3), st.lists(some_paths, max_size=2))
def test_no_tree_is_removed_in_which_something_is_being_sent(
    journal: list[Row], sending: list[str], held: list[str]
) -> None:
    taken = chosen(journal, sending, held)
    for row in taken:
        if row.clears in (DIRECTORY, EITHER):
            others = [*sending, *(other.path for other in taken)]
            assert not any(paths.is_below(other, row.path) for other in others)


@given(journals, st.lists(some_paths, max_size=3), st.lists(some_paths, max_size=2))
def test_what_is_being_sent_or_held_rests(
    journal: list[Row], sending: list[str], held: list[str]
) -> None:
    for row in chosen(journal, sending, held):
        assert row.path not in sending
        assert not any(related(row.path, path) for path in held)


@given(journals)
def test_something_can_always_be_sent(journal: list[Row]) -> None:
    """Sending what is allowed, again and again, ends with all sent: no rows wait in a circle."""
    left = journal
    while left:
        taken = chosen(left, [], [])
        assert taken
        left = [row for row in left if row not in taken]


@given(st.integers(0, 10_000), st.none() | st.floats(0, 1000))
def test_a_pause_is_within_its_bounds(attempts: int, wished: float | None) -> None:
    pause = schedule.backoff(attempts, wished)
    longest = min(schedule.LONGEST_PAUSE, schedule.FIRST_PAUSE * 2 ** min(attempts, 16))
    assert pause >= (wished or 0)
    assert longest / 2 <= pause <= max(longest, wished or 0)


@given(some_paths, st.lists(some_paths, max_size=4))
def test_overlapping_is_to_be_the_same_above_or_below(path: str, others: list[str]) -> None:
    assert paths.overlaps(path, others) == any(related(path, other) for other in others)


def test_each_row_has_its_lane() -> None:
    assert schedule.lane(Row("/a", ABSENT, FILE)) == DELETIONS
    assert schedule.lane(Row("/a", ABSENT, DIRECTORY)) == SMALL
    assert schedule.lane(Row("/a", ABSENT, EITHER)) == SMALL
    assert schedule.lane(Row("/a", FILE, bytes=LARGE_FROM - 1)) == SMALL
    assert schedule.lane(Row("/a", FILE, bytes=LARGE_FROM)) == LARGE

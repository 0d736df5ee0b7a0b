"""What the version is called that stays beside one of another program."""

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from davfusion.cache.conflicts import copy_name, free_name
from davfusion.stores import paths

DATE = datetime.date(2026, 2, 3)
names = (
    st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=255)
    .map(lambda name: name.encode()[:255].decode(errors="ignore"))
    .filter(paths.is_valid_name)
)
hosts = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=40)


@pytest.mark.parametrize(
    ("name", "copy"),
    [
        ("a.txt", "a (conflicted copy 2026-02-03 vm).txt"),
        ("a.tar.gz", "a.tar (conflicted copy 2026-02-03 vm).gz"),
        ("a", "a (conflicted copy 2026-02-03 vm)"),
        (".profile", ".profile (conflicted copy 2026-02-03 vm)"),
        ("a.", "a (conflicted copy 2026-02-03 vm)."),
        ("ü b.ö", "ü b (conflicted copy 2026-02-03 vm).ö"),
        ("...", ".. (conflicted copy 2026-02-03 vm)."),
    ],
)
def test_the_name_and_its_extension_stay_readable(name: str, copy: str) -> None:
    assert copy_name(name, DATE, "vm") == copy


def test_a_further_copy_has_a_number() -> None:
    assert copy_name("a.txt", DATE, "vm", 2) == "a (conflicted copy 2026-02-03 vm 2).txt"


@given(names, hosts, st.integers(1, 10_000))
def test_a_copy_has_a_name_that_every_store_takes(name: str, host: str, number: int) -> None:
    copy = copy_name(name, DATE, host, number)
    assert paths.is_valid_name(copy)
    assert len(copy.encode()) <= 255
    assert f"(conflicted copy 2026-02-03 {host}" in copy
    assert copy != name


@given(names, hosts, st.integers(1, 10_000), st.integers(1, 10_000))
def test_copies_with_different_numbers_have_different_names(
    name: str, host: str, one: int, other: int
) -> None:
    copies = copy_name(name, DATE, host, one), copy_name(name, DATE, host, other)
    assert (one == other) == (copies[0] == copies[1])


@given(names, st.integers(0, 5))
def test_a_name_that_is_taken_is_not_given_again(name: str, taken: int) -> None:
    given_away: list[str] = []
    for _ in range(taken + 1):
        given_away.append(free_name(paths.join("/folder", name), given_away.__contains__))
    assert len(set(given_away)) == taken + 1
    assert {paths.parent(path) for path in given_away} == {"/folder"}

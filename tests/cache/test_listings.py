"""ListingTable: shared by processes, disposable, and never believed over the store's truth."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from davfusion.cache import listings
from davfusion.cache.listings import REMEMBERED, REMEMBERED_ABSENT, ListingTable
from davfusion.stores.store import Metadata

NOW, AGE = 1000.0, 60.0
FOUND = Metadata(modified=1.0, bytes=3, is_dir=False, etag="e")


def known_names(table: ListingTable, directory: str = "/") -> set[str] | None:
    children = table.children(directory, NOW)
    return None if children is None else set(children)


def fill(table: ListingTable) -> None:
    table.record_listing("/", {"a": FOUND}, table.begin(NOW, AGE))


def change_elsewhere(path: Path) -> None:
    table = ListingTable(path)
    table.stored("/b", FOUND, table.begin(NOW, AGE))
    table.removed(["/a"], table.begin(NOW, AGE))
    table.close()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_another_process_sees_a_change_at_once(tmp_path: Path, method: str) -> None:
    table = ListingTable(tmp_path / "listings.sqlite")
    fill(table)
    context = multiprocessing.get_context(method)
    other = context.Process(target=change_elsewhere, args=[tmp_path / "listings.sqlite"])  # type: ignore[attr-defined]
    other.start()
    other.join()
    assert other.exitcode == 0
    assert known_names(table) == {"b"}
    table.close()


def write_many(path: Path, worker: int) -> None:
    table = ListingTable(path)
    for number in range(50):
        table.stored(f"/{worker}-{number}", FOUND, table.begin(NOW, AGE))
    table.close()


def test_processes_that_start_and_write_together_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "listings.sqlite"
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        pool.starmap(write_many, [(path, worker) for worker in range(4)])
    table = ListingTable(path)
    assert all(table.find(f"/{w}-{n}", NOW) for w in range(4) for n in range(50))
    assert not path.with_name("listings.sqlite.corrupt").exists()
    table.close()


def truncate(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 3)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def garble(path: Path) -> None:
    path.write_bytes(b"no database at all " * 1000)


@pytest.mark.parametrize("damage", [truncate, empty, zero, garble, Path.unlink])
@pytest.mark.parametrize("is_open", [True, False])
def test_a_damaged_file_is_a_miss(
    tmp_path: Path, damage: Callable[[Path], None], is_open: bool
) -> None:
    path = tmp_path / "listings.sqlite"
    before = ListingTable(path)
    fill(before)
    before.close()
    table = ListingTable(path)
    if is_open:
        assert known_names(table) == {"a"}
    damage(path)
    assert known_names(table) in (None, {"a"})
    table.stored("/b", FOUND, table.begin(NOW, AGE))
    fill(table)
    assert known_names(table) is None or "a" in (known_names(table) or ())
    assert table.find("/b", NOW) is None or known_names(table) is not None
    fill(table)
    assert known_names(table) is not None
    table.close()


@pytest.mark.parametrize("damage", [truncate, empty, zero, garble, Path.unlink])
@pytest.mark.parametrize("name", ["listings.sqlite", "listings.sqlite-wal"])
def test_damage_below_two_connections_is_a_miss_for_both(
    tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    path = tmp_path / "listings.sqlite"
    one, other = ListingTable(path), ListingTable(path)
    fill(one)
    assert known_names(other) == {"a"}
    in_another_process(damage, tmp_path / name)
    for _ in range(2):
        assert known_names(one) in (None, {"a"}, {"a", "b"})
        fill(one)
        other.stored("/b", FOUND, other.begin(NOW, AGE))
    assert known_names(other) == known_names(one) == {"a", "b"}
    one.removed(["/a"], one.begin(NOW, AGE))
    assert known_names(other) == {"b"}
    one.close()
    other.close()
    again = ListingTable(path)
    assert known_names(again) == {"b"}
    again.close()


def in_another_process(damage: Callable[[Path], None], path: Path) -> None:
    """To close a database's file in this one would end SQLite's locks on it."""
    process = multiprocessing.get_context("spawn").Process(target=damage, args=(path,))
    process.start()
    process.join()
    assert process.exitcode == 0


@pytest.mark.parametrize("damage", [truncate, empty, zero, garble, Path.unlink])
@pytest.mark.parametrize("name", ["listings.sqlite", "listings.sqlite-wal"])
def test_what_a_killed_process_left_damaged_is_a_miss(
    tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    path = tmp_path / "listings.sqlite"
    process = multiprocessing.get_context("spawn").Process(target=fill_and_die, args=(path,))
    process.start()
    process.join()
    damage(tmp_path / name)
    table = ListingTable(path)
    assert known_names(table) in (None, {"a"})
    fill(table)
    table.stored("/b", FOUND, table.begin(NOW, AGE))
    assert known_names(table) == {"a", "b"}
    table.close()


def fill_and_die(path: Path) -> None:
    fill(ListingTable(path))
    os.kill(os.getpid(), signal.SIGKILL)


def test_one_process_notices_that_another_has_set_the_file_aside(tmp_path: Path) -> None:
    path = tmp_path / "listings.sqlite"
    one, other = ListingTable(path), ListingTable(path)
    fill(one)
    assert known_names(other) == {"a"}
    path.unlink()
    fill(one)
    one.removed(["/a"], one.begin(NOW, AGE))
    assert known_names(other) == set()
    one.close()
    other.close()


def test_an_answer_asked_of_a_lost_table_is_not_recorded(tmp_path: Path) -> None:
    path = tmp_path / "listings.sqlite"
    table = ListingTable(path)
    fetch = table.begin(NOW, AGE)
    path.unlink()
    table.removed(["/a"], table.begin(NOW, AGE))
    table.record_listing("/", {"a": FOUND}, fetch)
    assert known_names(table) is None
    table.close()


def test_a_folder_that_is_gone_is_a_miss(tmp_path: Path) -> None:
    table = ListingTable(tmp_path / "gone" / "listings.sqlite")
    fill(table)
    assert known_names(table) is None
    assert table.find("/a", NOW) is None


def test_concurrent_changes_of_one_path_leave_it_unknown() -> None:
    table = ListingTable()
    fill(table)
    one, other = table.begin(NOW, AGE), table.begin(NOW, AGE)
    table.stored("/b", FOUND, one)
    table.stored("/b", {**FOUND, "etag": "f"}, other)
    assert table.find("/b", NOW) is None
    assert known_names(table) is None


def test_what_comes_into_a_folder_while_it_is_made_stays_known() -> None:
    table = ListingTable()
    made = table.begin(NOW, AGE)
    table.stored("/d/b", FOUND, table.begin(NOW, AGE))
    table.created_directory("/d", made)
    assert table.find("/d/b", NOW) is not None
    assert table.find("/d", NOW) is not None
    assert table.children("/d", NOW) is None


def test_an_older_answer_does_not_replace_a_newer_one() -> None:
    table = ListingTable()
    slow = table.begin(NOW, AGE)
    table.stored("/b", FOUND, table.begin(NOW, AGE))
    table.record_listing("/", {"b": FOUND}, table.begin(NOW + AGE, AGE))
    table.record_listing("/", {}, slow)
    table.record_entry("/c", FOUND, slow)
    assert known_names(table) == {"b"}


def test_an_older_listing_does_not_replace_a_newer_one() -> None:
    table = ListingTable()
    older = table.begin(NOW - 1, AGE)
    table.record_listing("/", {"new": FOUND}, table.begin(NOW, AGE))
    table.record_listing("/", {"old": FOUND}, older)
    assert known_names(table) == {"new"}


def test_pruning_keeps_what_is_fresh_guards_or_is_remembered() -> None:
    table = ListingTable()
    later = NOW + 4 * AGE + REMEMBERED_ABSENT
    table.record_entry("/none", None, table.begin(NOW, AGE))
    table.record_entry("/fresh", None, table.begin(later, AGE))
    table.record_listing("/d", {"file": FOUND}, table.begin(NOW, AGE))
    table.copied("/d/file", "/d/copy", table.begin(NOW, AGE))
    table.prune(NOW + 4 * AGE, AGE)
    assert table.recall("/none") is not None
    table.prune(later, AGE)
    assert table.recall("/none") is None
    assert table.recall("/fresh") is not None
    assert table.recall("/d/file") is not None
    assert (table.last_listing("/d") or {}).keys() == {"file", "copy"}
    table.prune(NOW + 2 * REMEMBERED, AGE)
    assert table.recall("/d/file") is None
    assert table.recall("/d/copy") is not None
    assert table.last_listing("/d") is None


def test_a_listing_that_is_remembered_has_all_its_entries() -> None:
    table = ListingTable()
    table.stored("/d/mine", FOUND, table.begin(NOW, AGE))
    table.record_listing("/d", {"file": FOUND}, table.begin(NOW + 1, AGE))
    assert (table.last_listing("/d") or {}).keys() == {"file", "mine"}
    for seconds in range(int(3 * AGE)):
        table.prune(NOW + REMEMBERED + seconds, AGE)
        left = table.last_listing("/d")
        assert left is None or left.keys() == {"file", "mine"}
    assert left is None


def test_the_table_prunes_itself_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listings, "PRUNE_EVERY", 10)
    table = ListingTable()
    for number in range(200):
        table.record_entry(f"/{number}", None, table.begin(NOW + number * REMEMBERED_ABSENT, AGE))
    assert len(table.recall_children("/")) < 20

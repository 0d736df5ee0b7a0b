"""Room: writes together never take more than the limit, and those that wait end some time."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import pytest

from davfusion.cache import packs
from davfusion.cache.filestore import FileStore
from davfusion.cache.journal import ROW_COST, Journal
from davfusion.cache.pending import FILE, Row
from davfusion.cache.room import PATIENCE, SEATS, STEP, Meter, Room
from davfusion.cache.too_large import TooLargeError
from davfusion.stores.store import StoreSpaceLimitError, TransientStoreError

LIMIT = 10 * STEP


class World:
    """A room whose time passes only while somebody waits."""

    def __init__(self, folder: Path) -> None:
        self.now = 0.0
        self.spool = FileStore(folder / "spool")
        self.spool.prepare()
        self.journal = Journal(folder / "journal.sqlite", self.spool, clock=lambda: self.now)
        self.room = Room(LIMIT, self.journal, self.spool, lambda: self.now, self.wait)
        self.sends_at: float | None = None

    def wait(self, seconds: float) -> None:
        self.now += seconds
        if self.sends_at is not None and self.now >= self.sends_at:
            self.sends_at = None
            with self.journal.change() as change:
                change.forget("/pending", until=change.latest())

    def file(self, name: str) -> BinaryIO:
        return self.spool.create(name, "wb")

    def fill(self) -> None:
        """Have so much pending that nothing else fits."""
        with self.journal.change() as change:
            change.insert(Row("/pending", FILE, bytes=LIMIT - ROW_COST))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.journal.close()


def test_writes_at_the_same_moment_share_the_room(world: World) -> None:
    def reserve(number: int) -> bool:
        with world.file(str(number)) as file:
            try:
                world.room.reserve(file, 3 * STEP)
            except (StoreSpaceLimitError, TransientStoreError):
                return False
            return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(reserve, range(8))) == 3
    assert world.room.spooled() == 9 * STEP


def test_a_write_waits_until_something_is_sent(world: World) -> None:
    world.fill()
    world.sends_at = PATIENCE / 2
    with world.file("f") as file:
        world.room.reserve(file, STEP)
    assert PATIENCE / 2 <= world.now < PATIENCE


def test_a_write_is_refused_when_nothing_is_sent_and_the_next_one_at_once(world: World) -> None:
    world.fill()
    with world.file("f") as file:
        with pytest.raises(StoreSpaceLimitError):
            world.room.reserve(file, STEP)
        refused = world.now
        assert PATIENCE < refused < PATIENCE + 1
        with pytest.raises(StoreSpaceLimitError):
            world.room.reserve(file, STEP)
        assert world.now == refused


def test_only_some_wait(world: World) -> None:
    world.fill()
    for _ in range(SEATS):
        world.room._seats.acquire()
    with world.file("f") as file, pytest.raises(TransientStoreError) as raised:
        world.room.reserve(file, STEP)
    assert raised.value.retry_after
    assert world.now == 0


def test_what_can_never_fit_is_too_large(world: World) -> None:
    with world.file("f") as file, pytest.raises(TooLargeError):
        world.room.reserve(file, LIMIT + 1)


def test_what_will_not_fit_when_all_is_sent_does_not_wait_longer(world: World) -> None:
    """A pack, which processes have open, stays when what is in it has been sent."""
    pack = packs.folder(world.spool) / ("a" * 32)
    pack.parent.mkdir()
    pack.write_bytes(bytes(STEP))
    with world.journal.change() as change:
        change.insert(Row("/pending", FILE, bytes=1, spool=f"{pack.name}@0"))
    world.sends_at = PATIENCE / 2
    with world.file("f") as file, pytest.raises(TooLargeError):
        world.room.reserve(file, LIMIT)
    assert PATIENCE / 2 <= world.now < PATIENCE


@pytest.mark.parametrize(
    ("expected", "pieces", "reserved"),
    [
        (3 * STEP, [0], [3 * STEP]),
        (3 * STEP, [0, STEP, STEP, STEP], [3 * STEP] * 4),
        (None, [0, 10, STEP], [STEP, STEP, 2 * STEP + 10]),
        (10, [0, 10, 10], [10, 10, STEP + 20]),
        (None, [0, LIMIT - 5, 5], [STEP, LIMIT, LIMIT]),
    ],
)
def test_room_is_reserved_for_all_that_is_announced_or_step_by_step(
    world: World, expected: int | None, pieces: list[int], reserved: list[int]
) -> None:
    meter = Meter(world.room, expected)
    with world.file("f") as file:
        for piece, size in zip(pieces, reserved, strict=True):
            meter(file, piece)
            assert world.room.spooled() == size


def copies(world: World, size: int) -> Iterator[Path]:
    """Files of that many bytes, made one after the other as long as there is room."""
    with world.room.ahead() as make_room:
        for number in range(LIMIT):
            with world.file(str(number)) as file:
                make_room(file, size)
                file.write(bytes(size))
            yield Path(file.name)


@pytest.mark.parametrize("size", [STEP // 10, 3 * STEP])
def test_room_made_ahead_is_used_up_to_the_limit(world: World, size: int) -> None:
    made = copies(world, size)
    for _ in range(LIMIT // size):
        assert next(made).stat().st_size == size
        assert world.room.spooled() <= LIMIT + size  # what has just come is counted twice
    with pytest.raises(StoreSpaceLimitError):
        next(made)


def test_room_made_ahead_is_given_back(world: World) -> None:
    for _, made in zip(range(5), copies(world, 10), strict=False):
        assert made.exists()
    assert world.room.spooled() == 50


def test_small_files_count_as_what_the_disk_gives_them(world: World) -> None:
    with world.journal.change() as change:
        for number in range(100):
            change.insert(Row(f"/{number}", FILE, bytes=1))
    assert world.room.spooled() == 100 * (1 + ROW_COST)

"""The note behind each content of the spool: it says whose it is, or nothing."""

import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from davfusion.cache import notes, spool
from davfusion.cache.filestore import FileStore
from davfusion.cache.pending import FILE, Row

PATH = "/ordner/ü b.txt"
contents = st.binary(max_size=300)
places = st.floats(0, 1, exclude_max=True)
"""Of a byte, as a share of the file."""


@contextmanager
def spooled(content: bytes) -> Iterator[tuple[Path, notes.Note]]:
    with tempfile.TemporaryDirectory() as folder:
        files = FileStore(folder)
        files.prepare()
        new = Row(PATH, FILE, modified=12.5, content_type="text/plain")
        name, note = spool.receive(files, io.BytesIO(content), new, lambda *_: None)
        yield files.path(name, "tmp"), note


@given(contents)
def test_a_whole_file_tells_whose_content_it_is(content: bytes) -> None:
    with spooled(content) as (path, note):
        assert notes.read_note(path) == note
        assert (note.path, note.bytes, note.modified) == (PATH, len(content), 12.5)


@given(contents, places)
def test_a_truncated_file_tells_nothing(content: bytes, place: float) -> None:
    with spooled(content) as (path, _):
        data = path.read_bytes()
        path.write_bytes(data[: int(place * len(data))])
        assert notes.read_note(path) is None


@given(contents, places, st.integers(0, 7))
def test_a_flipped_bit_is_noticed_wherever_it_is(content: bytes, place: float, bit: int) -> None:
    with spooled(content) as (path, _):
        data = bytearray(path.read_bytes())
        data[int(place * len(data))] ^= 1 << bit
        path.write_bytes(bytes(data))
        assert notes.read_note(path) is None


@given(contents, places, places)
def test_zeros_are_noticed(content: bytes, start: float, end: float) -> None:
    with spooled(content) as (path, note):
        data = path.read_bytes()
        first, last = sorted(int(place * len(data)) for place in (start, end))
        zeroed = data[:first] + bytes(last + 1 - first) + data[last + 1 :]
        path.write_bytes(zeroed)
        assert notes.read_note(path) == (note if zeroed == data else None)


@given(st.binary(max_size=300), st.booleans())
def test_any_other_file_tells_nothing(data: bytes, with_end: bool) -> None:
    with spooled(b"") as (path, _):
        end = path.read_bytes()[-30:]
        path.write_bytes(data + (end if with_end else b""))
        assert notes.read_note(path) is None

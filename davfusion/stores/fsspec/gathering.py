"""The source of an upload as a file of known size."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import NamedTemporaryFile
from typing import IO, BinaryIO

from davfusion.stores.store import InterruptEvent, SourceStream, seekable
from davfusion.stores.transfer import blocks, temporary_space


@contextmanager
def gathered(
    source: SourceStream, interrupt_event: InterruptEvent | None
) -> Iterator[tuple[str, IO[bytes], int]]:
    """Name, file and size of a temporary file with all of `source`; it stands at its beginning."""
    with temporary_space(), NamedTemporaryFile() as file:
        for block in blocks(source, interrupt_event):
            file.write(block)
        size = file.tell()
        file.seek(0)
        yield file.name, file.file, size


@contextmanager
def sized(
    source: SourceStream, interrupt_event: InterruptEvent | None
) -> Iterator[tuple[IO[bytes] | BinaryIO, int]]:
    """`source`, or a temporary file with all of it, and how many bytes are left to read."""
    file = seekable(source)
    if file is None:
        with gathered(source, interrupt_event) as (_, temporary, size):
            yield temporary, size
    else:
        start = file.tell()
        size = file.seek(0, io.SEEK_END) - start
        file.seek(start)
        yield file, size

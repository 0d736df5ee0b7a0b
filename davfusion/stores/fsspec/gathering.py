"""The source of an upload as a file of known size."""

from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import NamedTemporaryFile
from typing import IO

from davfusion.stores.store import InterruptEvent, SourceStream
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

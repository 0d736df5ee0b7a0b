"""What differs between systems: memory that one thread has freed serves the others."""

import subprocess
import sys

import pytest

ARENAS = """
import ctypes, threading
from davfusion.platform import share_freed_memory

share_freed_memory()
barrier = threading.Barrier(20)

def use() -> None:
    barrier.wait()
    bytearray(100_000)
    barrier.wait()

threads = [threading.Thread(target=use) for _ in range(20)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc = ctypes.CDLL(None)
libc.open_memstream.restype = ctypes.c_void_p
text, size = ctypes.c_char_p(), ctypes.c_size_t()
stream = ctypes.c_void_p(libc.open_memstream(ctypes.byref(text), ctypes.byref(size)))
libc.malloc_info(0, stream)
libc.fclose(stream)
print(text.value.count(b"<heap "))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_twenty_threads_have_two_arenas() -> None:
    command = [sys.executable, "-c", ARENAS]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert 1 <= int(shown) <= 2

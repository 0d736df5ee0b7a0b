"""What becomes of a write that has turned out larger than the cache."""

import io
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from davfusion.cache.too_large import RATE, Unspooled

SIZES = st.lists(st.integers(1, 6 * RATE), min_size=1, max_size=20)


def numbered(size: int) -> bytes:
    return b"".join(b"%07d\n" % number for number in range(size // 8 + 1))[:size]


@given(st.integers(0, 9 * RATE), st.integers(1, 9), st.integers(0, 9 * RATE), SIZES, st.data())
def test_all_of_it_is_read_in_its_order(
    received: int, block: int, rest: int, sizes: list[int], data: st.DataObject
) -> None:
    content = numbered(received + block + rest)
    client, now, read = io.BytesIO(content[received + block :]), 0.0, b""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "received"
        path.write_bytes(content[:received] + b"a note, and room")
        middle = content[received : received + block]
        with Unspooled(path, received, middle, client, clock=lambda: now) as whole:
            for size in sizes:
                now += data.draw(st.sampled_from([0.0, 1.0, 2.0, 5.0, 60.0]))
                read += whole.read(size)
                assert client.tell() <= max(now * RATE, len(read) - received - block)
            while piece := whole.read(RATE):
                read += piece
            assert whole.read(RATE) == b""
            assert not path.exists()
        assert not path.exists()
    assert read == content


def test_meanwhile_the_client_goes_on_sending(tmp_path: Path) -> None:
    path, client, now = tmp_path / "received", io.BytesIO(bytes(100 * RATE)), 0.0
    path.write_bytes(bytes(100 * RATE))
    with Unspooled(path, 100 * RATE, b"", client, clock=lambda: now) as whole:
        for second in range(50):
            now = second
            whole.read(2 * RATE)
            assert client.tell() >= (now - 2) * RATE
            assert path.stat().st_size == 100 * RATE


class SlowClient(io.BytesIO):
    """Sends a kilobyte a second."""

    now = 0.0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.now += len(data) / 1000
        return data


def test_a_client_that_is_slow_does_not_hold_up_what_has_come(tmp_path: Path) -> None:
    path, client = tmp_path / "received", SlowClient(bytes(100 * RATE))
    path.write_bytes(bytes(100 * RATE))
    with Unspooled(path, 100 * RATE, b"", client, clock=lambda: client.now) as whole:
        for _ in range(50):
            began = client.now
            whole.read(2 * RATE)
            assert client.now - began < 20
            client.now += 1


def test_what_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "received"
    path.write_bytes(b"received")
    with Unspooled(path, 8, b"block", io.BytesIO(b"rest")) as whole:
        assert whole.read(4) == b"rece"
    assert not path.exists()

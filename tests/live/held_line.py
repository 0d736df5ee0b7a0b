"""A way to a server that lets so many bytes through, and then holds all until it is opened."""

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class HeldLine(socketserver.ThreadingTCPServer):
    """To `target`, a port of this machine; `limit` counts what all clients have sent together."""

    daemon_threads = True

    def __init__(self, target: int, limit: int) -> None:
        super().__init__(("127.0.0.1", 0), _Pump)
        self.port: int = self.server_address[1]
        self.target = target
        self._left = limit
        self._lock = threading.Lock()
        self._opened = threading.Event()

    def open(self) -> None:
        """From now on nothing is held."""
        self._opened.set()

    def pass_on(self, size: int) -> None:
        """Return when so many bytes more may pass."""
        with self._lock:
            self._left -= size
            is_held = self._left < 0
        if is_held:
            self._opened.wait()


class _Pump(socketserver.BaseRequestHandler):
    server: HeldLine

    def handle(self) -> None:
        with socket.create_connection(("127.0.0.1", self.server.target)) as there:
            back = threading.Thread(target=_copy, args=(there, self.request), daemon=True)
            back.start()
            _copy(self.request, there, self.server)
            back.join()


def _copy(source: socket.socket, target: socket.socket, line: HeldLine | None = None) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            if line is not None:
                line.pass_on(len(data))
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@contextmanager
def held_line(target: int, limit: int) -> Iterator[HeldLine]:
    """A HeldLine until the block ends."""
    with HeldLine(target, limit) as line:
        threading.Thread(target=line.serve_forever, args=[0.05], daemon=True).start()
        try:
            yield line
        finally:
            line.open()
            line.shutdown()

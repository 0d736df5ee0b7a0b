"""One client of a service for each process, and threads for its requests side by side."""

import os
import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from davfusion.stores.background import BackgroundPool


class Closable(Protocol):
    """An SDK's client."""

    def close(self) -> None: ...


Client = TypeVar("Client", bound=Closable)


class _Process(Generic[Client]):
    """What belongs to one process: no client survives a fork."""

    def __init__(self) -> None:
        self.id = os.getpid()
        self.lock = threading.Lock()
        self.client: Client | None = None


class Connection(Generic[Client]):
    """What `make` makes, on first use in each process."""

    def __init__(self, make: Callable[[], Client], pool: BackgroundPool) -> None:
        self._make = make
        self._process: _Process[Client] = _Process()
        self.pool = pool
        """Threads for single requests that run beside another; they wait for nothing else."""

    @property
    def client(self) -> Client:
        """The client of this process; raises what `make` raises."""
        process = self._here()
        with process.lock:
            if process.client is None:
                process.client = self._make()
            return process.client

    def reset(self) -> None:
        """Close the connections; the next call makes new ones, with credentials read anew."""
        process = self._here()
        with process.lock:
            client, process.client = process.client, None
        if client is not None:
            client.close()

    def _here(self) -> _Process[Client]:
        if self._process.id != os.getpid():
            self._process = _Process()
        return self._process

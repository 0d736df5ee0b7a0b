"""The client of one Dropbox: credentials, connections, threads for requests side by side."""

import logging
import os
import threading
from pathlib import Path
from typing import Any, Final

import dropbox

from davfusion import __version__
from davfusion.stores.background import BackgroundPool
from davfusion.stores.dropbox import credentials
from davfusion.stores.errors import StoreAutorizationError

CONNECTIONS: Final = 32
CONNECT_SECONDS: Final = 10
READ_SECONDS: Final = 60

logging.getLogger("dropbox").setLevel(logging.ERROR)  # it has a line for each request


class _Process:
    """What belongs to one process."""

    def __init__(self) -> None:
        self.id = os.getpid()
        self.lock = threading.Lock()
        self.client: Any = None
        self.pool: BackgroundPool | None = None


class Connection:
    """One client and one pool of threads for each process: neither is shared across a fork."""

    def __init__(self, token_file: Path | None = None) -> None:
        self._token_file = token_file
        self._process = _Process()

    @property
    def account(self) -> str | None:
        """Whose login there is, as far as it says; no request."""
        try:
            return credentials.find(self._token_file).account
        except StoreAutorizationError:
            return None

    @property
    def client(self) -> Any:
        """The SDK's client, made on first use in this process; StoreAutorizationError."""
        process = self._here()
        with process.lock:
            if process.client is None:
                process.client = make_client(credentials.find(self._token_file))
            return process.client

    @property
    def pool(self) -> BackgroundPool:
        """Threads for single requests that run beside another; they wait for nothing else."""
        process = self._here()
        with process.lock:
            if process.pool is None:
                process.pool = BackgroundPool(CONNECTIONS, "dropbox")
            return process.pool

    def reset(self) -> None:
        """Close the connections; the next call makes new ones, with credentials read anew."""
        process = self._here()
        with process.lock:
            client, process.client = process.client, None
        if client is not None:
            client.close()

    def _here(self) -> _Process:
        if self._process.id != os.getpid():
            self._process = _Process()
        return self._process


def make_client(who: credentials.Credentials) -> Any:
    """A client that never retries by itself: retry.py says when to.

    It renews its access token, where it can, before that expires and when it is told so.
    """
    return dropbox.Dropbox(
        oauth2_access_token=who.access_token,
        oauth2_refresh_token=who.refresh_token,
        app_key=who.app_key,
        max_retries_on_error=0,
        max_retries_on_rate_limit=0,
        user_agent=f"davfusion/{__version__}",
        session=dropbox.create_session(CONNECTIONS),
        timeout=(CONNECT_SECONDS, READ_SECONDS),
    )

"""The client of one Dropbox: credentials, connections, threads for requests side by side."""

import logging
from contextlib import closing, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import dropbox

from davfusion import __version__
from davfusion.stores import connection
from davfusion.stores.background import BackgroundPool
from davfusion.stores.dropbox import credentials
from davfusion.stores.dropbox.errors import dropbox_errors
from davfusion.stores.dropbox.streaming import streaming_session
from davfusion.stores.errors import StoreAutorizationError

CONNECTIONS: Final = 32
CONNECT_SECONDS: Final = 10
READ_SECONDS: Final = 60

logging.getLogger("dropbox").setLevel(logging.ERROR)  # it has a line for each request


class Connection(connection.Connection[Any]):
    """The client of one login, that of a token file or of where credentials.py looks.

    Another account's login than that which there was at first is refused.
    """

    def __init__(self, token_file: Path | None = None) -> None:
        super().__init__(
            lambda: make_client(self._credentials()), BackgroundPool(CONNECTIONS, "dropbox")
        )
        self._token_file = token_file
        self._first: credentials.Credentials | None = None
        with suppress(StoreAutorizationError):  # until there is a login
            self._first = credentials.find(token_file)

    @property
    def account(self) -> str | None:
        """Whose login there was at first, None if there was none; see account_of."""
        return None if self._first is None else account_of(self._first)

    def _credentials(self) -> credentials.Credentials:
        found = credentials.find(self._token_file)
        if self._first not in (None, found) and account_of(found) != self.account:
            raise StoreAutorizationError(
                f"the login is {account_of(found)}'s now, but the server was started for "
                f"{self.account}: start it again"
            )
        return found


@lru_cache
def account_of(who: credentials.Credentials) -> str:
    """Whose they are; where they do not say it, Dropbox is asked once."""
    if who.account is not None:
        return who.account
    with dropbox_errors("account of Dropbox"), closing(make_client(who)) as client:
        return str(client.users_get_current_account().email)


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
        session=streaming_session(CONNECTIONS),
        timeout=(CONNECT_SECONDS, READ_SECONDS),
    )

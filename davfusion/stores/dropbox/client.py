"""The client of one Dropbox: credentials, connections, threads for requests side by side."""

import logging
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import dropbox

from davfusion import __version__
from davfusion.stores import connection
from davfusion.stores.background import BackgroundPool
from davfusion.stores.dropbox import credentials
from davfusion.stores.errors import StoreAutorizationError

CONNECTIONS: Final = 32
CONNECT_SECONDS: Final = 10
READ_SECONDS: Final = 60

logging.getLogger("dropbox").setLevel(logging.ERROR)  # it has a line for each request


class Connection(connection.Connection[Any]):
    """The client of one login, that of a token file or of where credentials.py looks.

    `account` is whose login there was at first, as far as it said; another's is refused.
    """

    def __init__(self, token_file: Path | None = None) -> None:
        super().__init__(
            lambda: make_client(self._credentials()), BackgroundPool(CONNECTIONS, "dropbox")
        )
        self._token_file = token_file
        self.account: str | None = None
        with suppress(StoreAutorizationError):  # until there is a login
            self.account = credentials.find(token_file).account

    def _credentials(self) -> credentials.Credentials:
        found = credentials.find(self._token_file)
        if self.account not in (None, found.account):
            raise StoreAutorizationError(
                f"the login is {found.account}'s now, but the server was started for "
                f"{self.account}: start it again"
            )
        return found


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

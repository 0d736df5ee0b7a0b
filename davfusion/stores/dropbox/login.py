"""Getting a login to a Dropbox: OAuth's code flow with PKCE (RFC 7636), without an app secret."""

from dataclasses import replace
from pathlib import Path
from typing import Final

import requests
from dropbox.oauth import DropboxOAuth2FlowNoRedirect

from davfusion.stores.dropbox import credentials
from davfusion.stores.dropbox.client import account_of, make_client
from davfusion.stores.dropbox.credentials import Credentials
from davfusion.stores.dropbox.errors import dropbox_errors
from davfusion.stores.store import StoreAutorizationError

SCOPES: Final = (
    *("account_info.read", "files.metadata.read", "files.metadata.write"),
    *("files.content.read", "files.content.write"),
)
"""The permissions that the app must have been given in the app console."""


class Login:
    """One login with the app of that key; the user opens `url` and brings the code from there."""

    def __init__(self, app_key: str) -> None:
        self._app_key = app_key
        self._flow = DropboxOAuth2FlowNoRedirect(
            app_key,
            use_pkce=True,
            token_access_type="offline",  # noqa: S106 - asks for a refresh token
            scope=list(SCOPES),
        )
        self.url: str = self._flow.start()

    def finish(self, code: str) -> Credentials:
        """What lasts until it is revoked; StoreAutorizationError for a code that is none."""
        with dropbox_errors("login to Dropbox"):
            try:
                granted = self._flow.finish(code.strip())
            except requests.HTTPError as error:
                if error.response is None or error.response.status_code != 400:
                    raise
                raise StoreAutorizationError(
                    "Dropbox does not take this code: each is good for one login and a few "
                    "minutes; begin anew, and check the app key"
                ) from error
        who = Credentials(app_key=self._app_key, refresh_token=granted.refresh_token)
        return replace(who, account=account_of(who))


def log_out(path: Path) -> None:
    """Have Dropbox forget the login that `path` holds, and remove the file.

    The file stays where Dropbox cannot be asked.
    """
    try:
        with dropbox_errors("logout from Dropbox"):
            make_client(credentials.read(path)).auth_token_revoke()
    except StoreAutorizationError:
        if not path.exists():
            raise
    path.unlink()

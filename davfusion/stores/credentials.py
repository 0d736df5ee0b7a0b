"""Passwords that are neither in an address nor on a command line."""

import netrc
import os
from typing import Final

PASSWORD: Final = "DAVFUSION_STORE_PASSWORD"  # noqa: S105 - the variable's name
"""The environment variable for the store's password."""


def credentials_for(host: str, user: str | None) -> tuple[str | None, str | None]:
    """User and password for `host`: by the environment, else by ~/.netrc; None: not known.

    An entry of ~/.netrc for another user than `user` does not count.
    """
    password = os.environ.get(PASSWORD)
    if password:
        return user, password
    try:
        found = netrc.netrc().authenticators(host)
    except FileNotFoundError:
        return user, None
    except netrc.NetrcParseError as error:
        raise ValueError(f"~/.netrc cannot be read: {error.msg}") from error
    if found is None or user not in (None, "", found[0]):
        return user, None
    return found[0], found[2]

"""Requests to one DAV server."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import quote

import requests
from requests.adapters import HTTPAdapter
from requests.auth import HTTPBasicAuth

from davfusion.stores.fsspec.errors import status_error

_TIMEOUT: Final = (10.0, 60.0)
"""Seconds to connect, and between two pieces of an answer."""
_CONNECTIONS: Final = 32


class DavSession:
    """A pool of connections that threads share."""

    def __init__(
        self,
        host: str,
        port: int | None = None,
        *,
        username: str | None = None,
        password: str | None = None,
        secure: bool = False,
        verify: bool | str = True,
    ) -> None:
        """`verify`: whether the server's certificate must be valid, or a file of those that are."""
        self.origin = f"http{'s' * secure}://{host}{f':{port}' if port else ''}"
        self.server = ""
        """What the last answer said of who gave it."""
        self._session = requests.Session()
        adapter = HTTPAdapter(pool_connections=1, pool_maxsize=_CONNECTIONS)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)
        self._session.verify = verify
        self._session.headers["Accept-Encoding"] = "identity"
        if username is not None:
            # As text they would be sent in Latin-1.
            self._session.auth = HTTPBasicAuth(username.encode(), (password or "").encode())

    def url(self, path: str) -> str:
        """The address of a path."""
        return self.origin + quote(path, safe="/")

    @contextmanager
    def asked(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
        accepted: Callable[[int], bool] = lambda status: 200 <= status < 300,
    ) -> Iterator[requests.Response]:
        """The answer of send(); an error where its status is not accepted."""
        answer = self.send(method, path, headers, body)
        with answer:
            if not accepted(answer.status_code):
                raise status_error(
                    answer.status_code,
                    f"{method} {path}: {answer.status_code} {answer.reason}",
                    answer.headers.get("Retry-After"),
                )
            yield answer

    def send(
        self, method: str, path: str, headers: Mapping[str, str] | None, body: Any = None
    ) -> requests.Response:
        """The answer, whatever it is; that to GET is still to be read, or to be closed.

        An answer that is not read to its end costs the connection.
        """
        answer = self._session.request(
            method,
            self.url(path),
            headers=headers,
            data=body,
            stream=method == "GET",
            allow_redirects=False,
            timeout=_TIMEOUT,
        )
        self.server = answer.headers.get("Server", "")
        return answer

    def close(self) -> None:
        """Close all connections that nobody uses."""
        self._session.close()

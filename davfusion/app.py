"""The WSGI application of one worker: users, shares and the DAV methods behind wsgidav's app."""

import base64
import binascii
import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from wsgidav.dav_error import DAVError
from wsgidav.dc.base_dc import BaseDomainController
from wsgidav.http_authenticator import HTTPAuthenticator
from wsgidav.mw.base_mw import BaseMiddleware
from wsgidav.wsgidav_app import WsgiDAVApp

from davfusion.config import ServerConfig
from davfusion.provider.errors import RETRY_SECONDS
from davfusion.provider.provider import StoreProvider, error_response
from davfusion.provider.request import StartResponse, normal_path
from davfusion.provider.shares import Share, Shares
from davfusion.provider.state import State
from davfusion.provider.tree import DavTree
from davfusion.share import OpenShare
from davfusion.stores import paths
from davfusion.stores.memory import MemoryStore
from davfusion.users import CrowdError, Users

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

REALM = "davfusion"
_USERS = "davfusion_users"


class PasswordCheck(Protocol):
    """Who may come in; see users.Users."""

    def check(self, name: str, password: str, address: str) -> bool: ...


class DomainController(BaseDomainController):  # type: ignore[misc]
    """wsgidav's view of our users: Basic authentication, one realm for all that is served."""

    def __init__(self, wsgidav_app: WsgiDAVApp, config: Mapping[str, Any]) -> None:
        super().__init__(wsgidav_app, config)
        self._users: PasswordCheck | None = config[_USERS]

    def get_domain_realm(self, path_info: str, environ: object) -> str:
        del path_info, environ
        return REALM

    def require_authentication(self, realm: str, environ: object) -> bool:
        del realm, environ
        return self._users is not None

    def basic_auth_user(
        self, realm: str, user_name: str, password: str, environ: Mapping[str, Any]
    ) -> bool:
        del realm
        address = environ.get("REMOTE_ADDR", "")
        try:
            return self._users is not None and self._users.check(user_name, password, address)
        except CrowdError as error:  # a 401 would have clients forget the right password
            wait = [("Retry-After", str(RETRY_SECONDS))]
            raise DAVError(503, "Too many logins at once.", add_headers=wait) from error

    def supports_http_digest_auth(self) -> bool:
        return False


class Dispatcher(BaseMiddleware):  # type: ignore[misc]
    """The innermost application: hands the request to the share it names."""

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        provider: StoreProvider = environ["wsgidav.provider"]
        return provider.custom_request_handler(environ, start_response, None)


class DavApp(WsgiDAVApp):  # type: ignore[misc]
    """wsgidav's application with a way in of our own.

    wsgidav's own resolves dot segments instead of refusing them, sends headers without the body
    they announce, reads a refused body into memory, and adds Connection: close to streamed
    answers.
    """

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "OPTIONS" and environ["PATH_INFO"] in ("*", "/*"):
            environ["PATH_INFO"] = "/"
        try:
            return self._answer(environ, start_response)
        except DAVError as error:
            return error_response(error).send(start_response)

    def _answer(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        path = normal_path(environ["PATH_INFO"].encode("latin-1"))
        path += "/" if environ["PATH_INFO"].endswith("/") and path != paths.ROOT else ""
        _drop_unreadable_credentials(environ)
        environ["PATH_INFO"] = path
        environ["QUERY_STRING"] = ""  # wsgidav answers 401 where it holds `logout`
        environ["wsgidav.app"] = self
        environ["wsgidav.config"] = self.config
        environ["wsgidav.verbose"] = self.verbose
        environ["wsgidav.provider"] = self.provider_map["/"]
        response: Iterable[bytes] = self.application(environ, start_response)
        return response


def _drop_unreadable_credentials(environ: dict[str, Any]) -> None:
    """Without them wsgidav asks for credentials; with them it would fail."""
    scheme, _, encoded = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    if scheme.lower() != "basic":
        environ.pop("HTTP_AUTHORIZATION", None)
        return
    try:
        name, colon, _ = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        name = colon = ""
    if not (name and colon):
        del environ["HTTP_AUTHORIZATION"]


class Below:
    """WSGI middleware: `application` lies below the path `prefix`, and `above` all else."""

    def __init__(self, application: DavApp, prefix: str, above: DavApp) -> None:
        self._application = application
        self._prefix = prefix
        self._above = above

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == self._prefix or path.startswith(self._prefix + "/"):
            environ["SCRIPT_NAME"] += self._prefix
            environ["PATH_INFO"] = path[len(self._prefix) :] or "/"
        elif environ["REQUEST_METHOD"] != "OPTIONS":
            return self._above(environ, start_response)
        return self._application(environ, start_response)


def build_app(config: ServerConfig, shares: Iterable[OpenShare]) -> "WSGIApplication":
    """The application of one worker."""
    users = Users(config.users, config.htpasswd) if config.has_users else None
    served = {
        each.name: Share(
            DavTree(each.store, State(each.state_path), read_only=each.config.read_only),
            config.rights(each.config),
        )
        for each in shares
    }
    app = make_app(Shares(served), users)
    return mounted(app, config.prefix, users) if config.prefix else app


def mounted(app: DavApp, prefix: str, users: PasswordCheck | None) -> Below:
    """`app` below `prefix`: Windows looks at each folder on the way there."""
    way = MemoryStore()
    way.create_directory(prefix)
    above = Share(DavTree(way, State(None), read_only=True))
    return Below(app, prefix, make_app(Shares({"/": above}), users))


def make_app(shares: Shares, users: PasswordCheck | None = None) -> DavApp:
    """The application that serves `shares`; without users everyone may use it."""
    logging.getLogger("wsgidav").setLevel(logging.ERROR)
    return DavApp(
        {
            "provider_mapping": {"/": StoreProvider(shares)},
            "middleware_stack": [HTTPAuthenticator, Dispatcher],
            "http_authenticator": {
                "domain_controller": DomainController,
                "accept_basic": True,
                "accept_digest": False,
                "default_to_digest": False,
            },
            "lock_storage": None,
            "property_manager": None,
            "logging": {"enable": False},
            "verbose": 1,
            _USERS: users,
        }
    )

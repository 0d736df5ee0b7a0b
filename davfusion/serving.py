"""What `davfusion serve` does: shares made ready, workers that answer, word of it to the user."""

import functools
import logging
import platform
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from davfusion import preparing, server, share
from davfusion.access_log import AccessLog, configure_logging
from davfusion.app import build_app
from davfusion.config import ROOT, ConfigError, ServerConfig, in_file
from davfusion.cors import Cors
from davfusion.host_check import HostCheck
from davfusion.mounting import mount_hints, reachable_names, url_of
from davfusion.platform import START_METHOD
from davfusion.reverse_proxy import ReverseProxy
from davfusion.server import ServerError, WorkerSpec
from davfusion.share import PreparedShare, ShareError
from davfusion.supervisor import Supervisor
from davfusion.users import Users, UsersError

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

logger = logging.getLogger(__name__)

_WARMING: Final = 0.15
"""Seconds that a worker's start waits for the stores' connections."""

Load = Callable[[], ServerConfig]


def serve(config: ServerConfig) -> None:
    """Serve until a signal comes.

    Raises ConfigError, ShareError, ServerError and UsersError, whose texts are for the user.
    """
    _Server(config).run()


def serve_file(path: Path) -> None:
    """As serve; SIGHUP has the file read again. Raises ConfigError."""
    with _in_words_of_the_file():
        load = functools.partial(_load, path.absolute())
        _Server(load(), load).run()


def check_file(path: Path) -> None:
    """Raise ConfigError unless the file could be served, as far as asking no service tells."""
    with _in_words_of_the_file():
        config = _load(path)
        Users(config.users, config.htpasswd)
        _tls(config)
        preparing.Preparation().candidates(config)


def _load(path: Path) -> ServerConfig:
    from davfusion.config_file import load  # noqa: PLC0415 - what it needs takes time to import

    return load(path)


@contextmanager
def _in_words_of_the_file() -> Iterator[None]:
    try:
        yield
    except (ShareError, ServerError, UsersError) as error:
        raise ConfigError(in_file(str(error))) from error


def _tls(config: ServerConfig) -> server.TlsFiles | None:
    """Raises ServerError for files that cannot be used."""
    if not (config.tls_cert and config.tls_key):
        return None
    files = server.TlsFiles(config.tls_cert, config.tls_key)
    files.context()
    return files


class _Server:
    """One server with what it serves, now and after each reload."""

    def __init__(self, config: ServerConfig, load: Load | None = None) -> None:
        configure_logging(config.log_level)
        platform.platform()  # wsgidav asks for it; it runs a program, workers have it by the fork
        self._config = config
        self._load = load
        self._preparation = preparing.Preparation()
        self._checked(config)
        self._shares = self._preparation.prepare(config)
        self._listener = server.bind(config.host, config.port)

    def run(self) -> None:
        """Until a signal comes."""
        reload = self._reload if self._load else None
        supervisor = Supervisor(self._spec(), reload)
        if START_METHOD == "fork":
            self._preparation.leave = supervisor.leave
        supervisor.run(functools.partial(announce, self._config, self._listener, self._shares))
        if waiting := sum(each.count_pending() for each in self._preparation.shares.values()):
            click.echo(
                f"{waiting} changes have not been sent yet: the next start goes on with them, "
                "or `davfusion drain` sends them now"
            )

    def _checked(self, config: ServerConfig) -> None:
        """What is unusable shows now."""
        Users(config.users, config.htpasswd)
        _tls(config)

    def _spec(self) -> WorkerSpec:
        config = self._config
        sending = tuple(each for each in self._preparation.shares.values() if each.sends)
        return WorkerSpec(
            self._listener,
            functools.partial(make_application, config, self._shares),
            _tls(config),
            config.log_level,
            config.server,
            share.Movers(sending) if sending else None,
            config.workers,
        )

    def _reload(self) -> WorkerSpec | None:
        """What new workers are to serve; None where the old ones go on, which the log explains.

        What has been prepared stays so: what a share that is gone has not sent yet is still sent.
        """
        try:
            with _in_words_of_the_file():
                self._config, self._shares = self._latest()
        except ConfigError as error:
            for line in str(error).splitlines():
                logger.error("not reloaded: %s", line)  # noqa: TRY400 - it is the user's error
            return None
        configure_logging(self._config.log_level)
        for each in self._shares:
            if each.warning:
                logger.warning("%s%s", _named(each), each.warning)
        return self._spec()

    def _latest(self) -> tuple[ServerConfig, tuple[PreparedShare, ...]]:
        config = self._load() if self._load else self._config
        if (config.host, config.port) != (self._config.host, self._config.port):
            raise ConfigError("another host or port takes a restart")
        self._checked(config)
        return config, self._preparation.prepare(config)


def make_application(config: ServerConfig, prepared: Sequence[PreparedShare]) -> "WSGIApplication":
    """What one worker serves."""
    shares = [share.open_share(each) for each in prepared]
    application: WSGIApplication = ReverseProxy(build_app(config, shares), config.trusted_proxies)
    if config.origins:
        application = Cors(application, config.origins)
    until = time.monotonic() + _WARMING
    for each in shares:
        each.warming.join(max(0.0, until - time.monotonic()))
    if not (config.has_users or config.anonymous):
        application = HostCheck(application, config.host)
    return AccessLog(application)


def announce(
    config: ServerConfig, listener: socket.socket, shares: Sequence[PreparedShare]
) -> None:
    """Say where the shares are, how to mount them on this system, and where the caches are."""
    port = listener.getsockname()[1]
    tls = config.tls_cert is not None
    path = config.prefix.removeprefix("/") + "/" if config.prefix else ""
    urls = [url_of(name, port, tls=tls) + path for name in reachable_names(config.host)]
    what = ", ".join(f"{_named(each)}{each.config.target}" for each in shares)
    click.echo(f"Serving {what} on {' and '.join(urls)}")
    for hint in mount_hints(urls[-1], sys.platform, users=config.has_users):
        click.echo(f"  {hint}")
    click.echo(f"Cache: {', '.join(str(each.folder) for each in shares)}")
    if any(each.sends for each in shares):
        click.echo("Writes are kept there and sent later: `davfusion status` shows what waits.")
    for each in shares:
        if each.warning:
            click.echo(f"davfusion: {_named(each)}{each.warning}", err=True)
    sys.stdout.flush()


def _named(prepared: PreparedShare) -> str:
    return "" if prepared.name == ROOT else f"{prepared.name}: "

"""All commands but `serve`; here those about caches: status, drain, retry, check, cache clear.

What a command needs is imported when it runs.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from davfusion.commands.login import login, logout

if TYPE_CHECKING:
    from davfusion.commands.caches import Cache

_CONTEXT: Final = {"auto_envvar_prefix": "DAVFUSION"}
_ABOUT: Final = """

TARGET is as for `davfusion serve`, or with --config the name of a share; without it, this is about
every cache of the cache folder, or of the file."""

Command = Callable[..., int]
"""What a command does with its caches; its exit code."""


def _for_caches(name: str, help_text: str, *options: Callable[[Any], Any]) -> Callable[..., Any]:
    """A command that gets the caches it is about, and `options`."""

    def decorate(run: Command) -> click.Command:
        @functools.wraps(run)
        @click.pass_context
        def chosen(context: click.Context, /, **values: Any) -> None:
            from davfusion.commands.caches import Selection, chosen_caches  # noqa: PLC0415
            from davfusion.share import ShareError  # noqa: PLC0415

            names = (
                "target",
                "config_file",
                "cache_dir",
                "cache_id",
                "s3_endpoint_url",
                "s3_path_style",
            )
            selection = Selection(**{name: values.pop(name) for name in names})
            caches = chosen_caches(selection)
            if not (caches or name == "status"):
                raise ShareError(
                    "there are no caches: check --cache-dir, and run this as the server's user"
                )
            context.exit(run(caches, **values))

        command: Any = chosen
        for option in (*reversed(options), *reversed(_SELECTION)):
            command = option(command)
        made: click.Command = click.command(
            name, help=help_text + _ABOUT, context_settings=_CONTEXT
        )(command)
        return made

    return decorate


_SELECTION: Final = (
    click.argument("target", envvar="DAVFUSION_TARGET", required=False),
    click.option(
        "--config",
        "config_file",
        envvar="DAVFUSION_CONFIG",
        type=click.Path(path_type=Path, dir_okay=False),
        help="The server's configuration file.",
    ),
    click.option(
        "--cache-dir",
        type=click.Path(path_type=Path),
        help="Folder of all caches.  [default: this user's]",
    ),
    click.option("--cache-id", help="Name of the cache.  [default: found by TARGET]"),
    click.option("--s3-endpoint-url", help="S3 server.  [default: what the last server used]"),
    click.option(
        "--s3-path-style/--s3-virtual-host",
        "s3_path_style",
        default=None,
        help="Bucket in the path or in the host name.  [default: what the last server used]",
    ),
)


@_for_caches(
    "status",
    "Show what waits to be sent, what failed, and what the caches hold. Changes nothing.\n\n"
    "Exits with 1 if something needs somebody to see to it.",
    click.option("--json", "as_json", is_flag=True, allow_from_autoenv=False, help="For programs."),
)
def status(caches: "list[Cache]", *, as_json: bool) -> int:
    from davfusion.commands import show_status  # noqa: PLC0415

    return show_status.show(caches, as_json=as_json)


@_for_caches(
    "drain",
    "Have all that waits sent now, and wait until the store has it.\n\n"
    "Exits with 0 only then. Without a running server it sends by itself. Ctrl-C ends it; what "
    "has not been sent stays where it is.",
    click.option(
        "--timeout",
        type=click.FloatRange(min=0),
        allow_from_autoenv=False,
        help="Seconds after which it gives up.  [default: never]",
    ),
)
def drain(caches: "list[Cache]", *, timeout: float | None) -> int:
    from davfusion.commands import draining  # noqa: PLC0415

    return draining.drain(caches, timeout)


@_for_caches(
    "retry",
    "Have changes that failed for good tried again.",
    click.option(
        "--path",
        "paths",
        multiple=True,
        allow_from_autoenv=False,
        help="Only this path of the share, and all below it. Repeatable.",
    ),
)
def retry(caches: "list[Cache]", *, paths: tuple[str, ...]) -> int:
    from davfusion.commands import upkeep  # noqa: PLC0415

    return upkeep.retry(caches, paths)


@_for_caches(
    "check",
    "Look whether everything in the caches is as it should be.\n\n"
    "Exits with 0 only if it is. All content is read.",
    click.option(
        "--repair",
        is_flag=True,
        allow_from_autoenv=False,
        help="Put back lost writes, and remove what is no good and the store has, too.",
    ),
)
def check(caches: "list[Cache]", *, repair: bool) -> int:
    from davfusion.commands import upkeep  # noqa: PLC0415

    return upkeep.check(caches, repair=repair)


@_for_caches(
    "clear",
    "Remove cached content and listings, which the store has, too.\n\n"
    "What has not been sent yet stays, and so do locks and properties.",
)
def clear(caches: "list[Cache]") -> int:
    from davfusion.commands import upkeep  # noqa: PLC0415

    return upkeep.clear(caches)


@click.group("cache", commands=[clear])
def cache() -> None:
    """Caches on this disk."""


COMMANDS: Final = (status, drain, retry, check, cache, login, logout)

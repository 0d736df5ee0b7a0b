"""`davfusion status`: the figures of caches, as text and as JSON (keys: docs/commands.md)."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any, TypeVar

import click

from davfusion.cache.status import CacheStatus, Change, Conflict, Some, read_status
from davfusion.commands.caches import Cache
from davfusion.commands.wording import age, count, one_line, plain, size, when
from davfusion.platform import is_running

T = TypeVar("T")


def show(caches: list[Cache], *, as_json: bool) -> int:
    """Print all; 1 if one of them needs somebody."""
    found = [(cache, read_status(cache.folder)) for cache in caches]
    if as_json:
        click.echo(json.dumps({"caches": [_as_json(*pair) for pair in found]}, indent=2))
    elif not found:
        click.echo("There are no caches.")
    else:
        now = time.time()
        click.echo("\n\n".join("\n".join(_lines(*pair, now)) for pair in found))
    return int(any(status.needs_somebody for _, status in found))


def _pid(cache: Cache, status: CacheStatus) -> int | None:
    """Of the server; None where none runs, or the folder is in use by something else."""
    if not status.in_use or cache.note is None or not is_running(cache.note.pid):
        return None
    return cache.note.pid


def _as_json(cache: Cache, status: CacheStatus) -> dict[str, Any]:
    journal = status.journal
    return {
        "id": cache.folder.path.name,
        "share": cache.share,
        "target": cache.config.target if cache.config else None,
        "folder": str(cache.folder.path),
        "in_use": status.in_use,
        "pid": _pid(cache, status),
        "away": status.away and status.away._asdict(),
        "problem": journal.problem,
        "pending": asdict(journal.pending),
        "sending": asdict(journal.sending),
        "failed": asdict(journal.failed),
        "retrying": asdict(journal.retrying),
        "conflicts": asdict(journal.conflicts),
        "spool_bytes": status.spooled,
        "block_bytes": status.blocks.bytes,
        "limit_bytes": cache.note.cache_size if cache.note else None,
        "hits": status.blocks.hits,
        "misses": status.blocks.misses,
        "lost_and_found": status.lost,
    }


def _lines(cache: Cache, status: CacheStatus, now: float) -> Iterator[str]:
    journal = status.journal
    yield cache.name
    yield _line("cache", str(cache.folder.path))
    yield _line("server", _server(cache, status))
    if status.away:
        since = age(now - status.away.since)
        yield _line("store", f"away for {since}: {one_line(status.away.reason)}")
    if journal.problem:
        yield _line("journal", f"cannot be read ({journal.problem}): run `davfusion check`")
    else:
        yield _line("to send", _to_send(status, now))
    yield from _list("sending", journal.sending, _sending)
    yield from _list("failed", journal.failed, lambda change: _failed(change, now))
    if journal.failed.count:
        yield _line("", "see to the cause, then run `davfusion retry`")
    yield from _list("retrying", journal.retrying, lambda change: _retrying(change, now))
    yield from _list("conflicts", journal.conflicts, _conflict)
    yield _line("sizes", _sizes(cache, status))
    yield _line("reads", _reads(status))
    if status.lost:
        files = count(status.lost, "file")
        yield _line("lost+found", f"{files}: run `davfusion check`")


def _line(label: str, text: str) -> str:
    return f"  {label:<11} {plain(text)}"


def _list(label: str, some: Some[T], text: Callable[[T], str]) -> Iterator[str]:
    """The number, and below it the first ones."""
    if not some.count:
        return
    yield _line(label, f"{some.count:,}")
    for item in some.first:
        yield _line("", text(item))
    if some.count > len(some.first):
        yield _line("", f"and {some.count - len(some.first):,} more")


def _server(cache: Cache, status: CacheStatus) -> str:
    if not status.in_use:
        return "not running"
    pid = _pid(cache, status)
    return f"running (process {pid})" if pid else "running"


def _to_send(status: CacheStatus, now: float) -> str:
    pending = status.journal.pending
    if not pending.count:
        return "nothing"
    numbers = [
        count(pending.files, "file"),
        count(pending.directories, "folder"),
        count(pending.deletions, "deletion"),
    ]
    shown = ", ".join(number for number in numbers if not number.startswith("0 "))
    since = age(now - (pending.oldest or now))
    return f"{shown}; {size(pending.bytes)}; the oldest for {since}"


def _sending(change: Change) -> str:
    if not change.bytes:
        return change.path
    part = f"{size(change.sent)} of {size(change.bytes)}"
    return f"{change.path}: {part} ({100 * change.sent // change.bytes}%)"


def _failed(change: Change, now: float) -> str:
    tries = count(change.tries, "try", "tries")
    waits = f"waits for {age(now - change.since)}"
    return f"{change.path}: {one_line(change.error)} ({tries}, {waits})"


def _retrying(change: Change, now: float) -> str:
    again = f"again in {age(change.due - now)}" if change.due > now else "again now"
    tries = count(change.tries, "try", "tries")
    return f"{change.path}: {one_line(change.error)} ({tries}, {again})"


def _conflict(conflict: Conflict) -> str:
    if conflict.copy == conflict.path:
        return f"{when(conflict.at)}  {conflict.path} was changed elsewhere, and not deleted"
    return f"{when(conflict.at)}  {conflict.path}: ours is {conflict.copy}"


def _sizes(cache: Cache, status: CacheStatus) -> str:
    limit = f" of {size(cache.note.cache_size)}" if cache.note else ""
    return f"unsent {size(status.spooled)}, cached {size(status.blocks.bytes)}{limit}"


def _reads(status: CacheStatus) -> str:
    hits, misses = status.blocks.hits, status.blocks.misses
    share = f" ({100 * hits // (hits + misses)}% hits)" if hits + misses else ""
    return f"{count(hits, 'block')} from the cache, {misses:,} from the store{share}"

"""`davfusion retry`, `check` and `cache clear`."""

import sqlite3
import sys

import click

from davfusion.cache.check import Finding, Report, check_cache
from davfusion.cache.clear import clear_cache
from davfusion.cache.outbox import Outbox
from davfusion.cache.reading import damage
from davfusion.commands.caches import Cache
from davfusion.commands.wording import count, plain, size
from davfusion.share import ShareError
from davfusion.stores import paths as share_paths
from davfusion.stores.errors import InvalidPathValueError


def retry(caches: list[Cache], paths: tuple[str, ...]) -> int:
    """Have what failed tried again, of all paths or of these and all below."""
    for path in paths:
        _require_path(path)
    is_well = True
    for cache in caches:
        if not cache.folder.journal_path.exists():
            click.echo(f"{cache.name}: nothing has failed")
        elif problem := damage(cache.folder.journal_path):
            click.echo(f"{cache.name}: the journal is damaged ({problem}): run `davfusion check`")
            is_well = False
        else:
            click.echo(f"{cache.name}: {_retry(cache, paths)}")
    return int(not is_well)


def _require_path(path: str) -> None:
    try:
        share_paths.check_path(path)
    except InvalidPathValueError as error:
        raise click.BadParameter(f"{path!r} is no path such as /folder/file: {error}") from error


def _retry(cache: Cache, paths: tuple[str, ...]) -> str:
    journal = cache.folder.journal(0)
    try:
        number = Outbox(journal, cache.folder.spool).retry_failed(paths or (share_paths.ROOT,))
    finally:
        journal.close()
    if not number:
        return f"nothing has failed{' there' if paths else ''}"
    if cache.folder.is_in_use():
        return f"{count(number, 'change')} will be tried again now"
    return f"`davfusion drain`, or the next server, tries {count(number, 'change')} again"


def check(caches: list[Cache], *, repair: bool) -> int:
    """Report what is not as it should be; 0 if nothing is left of that."""
    reports = []
    for cache in caches:
        report = check_cache(cache.folder, repair=repair, progress=_show_progress)
        _show_progress("")
        click.echo(f"{cache.name}: {_verdict(report)}")
        for finding in report.findings:
            click.echo(f"  {plain(_finding(finding))}")
        reports.append(report)
    return int(not all(report.is_well for report in reports))


def _verdict(report: Report) -> str:
    looked = f"{count(report.contents, 'unsent file')} and {count(report.blocks, 'block')} read"
    found = len(report.findings)
    return f"{looked}, {count(found, 'finding') if found else 'all is well'}"


def _finding(finding: Finding) -> str:
    outcome = "repaired" if finding.repaired else finding.cure
    return f"{finding.subject}: {finding.problem}; {outcome}"


def _show_progress(what: str) -> None:
    """Only where somebody watches."""
    if sys.stderr.isatty():
        click.echo(f"\r{what[:78]:<78}\r", nl=False, err=True)


def clear(caches: list[Cache]) -> int:
    """Remove what the store has, too."""
    for cache in caches:
        try:
            freed = clear_cache(cache.folder)
        except (OSError, sqlite3.Error) as error:
            raise ShareError(
                f"{cache.folder.path} cannot be cleared: {error}; check its permissions"
            ) from error
        click.echo(f"{cache.name}: {size(freed)} became free")
    return 0

"""Who may come in: names and password hashes, from the command line and an htpasswd file."""

import functools
import hashlib
import hmac
import logging
import os
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from davfusion.access_log import printable

if TYPE_CHECKING:
    from passlib.context import CryptContext

logger = logging.getLogger(__name__)

MEMO_SECONDS: Final = 300.0
"""How long a password that was right is known without computing its hash again, after each use."""

MAX_DELAY: Final = 2.0
"""Seconds that a wrong password costs at most, after several."""

FORGET_SECONDS: Final = 600.0
_FIRST_DELAY: Final = 0.25
_MAX_SLEEPERS: Final = 2
_MAX_REMEMBERED: Final = 10_000

_SCHEMES = (
    "bcrypt", "apr_md5_crypt", "sha512_crypt", "sha256_crypt", "pbkdf2_sha256",
    "ldap_sha1", "ldap_salted_sha1",
)  # fmt: skip
_BCRYPT = re.compile(r"\$2[a-z]?\$[0-9]{2}\$[./A-Za-z0-9]{53}")
"""passlib tells it by its beginning alone."""
_NAME = re.compile(r"[^:\x00-\x1f\x7f]+")

Hashes = Mapping[str, str]


class UsersError(Exception):
    """A user's entry or the htpasswd file cannot be used; the text holds no secret."""


@functools.cache
def _context() -> "CryptContext":
    from passlib.context import CryptContext  # noqa: PLC0415 - not needed for --help

    return CryptContext(list(_SCHEMES))


def hash_password(password: str) -> str:
    """A bcrypt hash, which htpasswd files and --user take. Raises UsersError if it is too long."""
    try:
        return str(_context().handler("bcrypt").hash(password))
    except ValueError as error:
        raise UsersError("bcrypt takes passwords of at most 72 bytes, without NUL") from error


def is_name(text: str) -> bool:
    """Whether a user can have that name."""
    return _NAME.fullmatch(text) is not None


def is_hash(text: str) -> bool:
    """Whether `text` is a password's hash of a kind that is known here, and whole."""
    scheme = _context().identify(text)
    return bool(_BCRYPT.fullmatch(text)) if scheme == "bcrypt" else scheme is not None


def parse_user(text: str) -> tuple[str, str]:
    """(name, hash) of `NAME:PASSWORD` or `NAME:HASH`; a plain password is hashed at once.

    Raises UsersError.
    """
    name, _, secret = text.partition(":")
    if not (is_name(name) and secret):
        raise UsersError("a user is given as NAME:PASSWORD or NAME:HASH")
    if is_hash(secret):
        return name, secret
    return name, str(_context().handler("pbkdf2_sha256").hash(secret))


def parse_htpasswd(lines: Iterable[str]) -> dict[str, str]:
    """Name -> hash of the lines of an htpasswd file; raises UsersError naming the line."""
    hashes = {}
    for number, line in enumerate(lines, 1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        name, _, secret = entry.partition(":")
        if not (is_name(name) and is_hash(secret)):
            raise UsersError(f"line {number} is not NAME:HASH with a hash known here")
        hashes[name] = secret
    return hashes


class CrowdError(Exception):
    """So many guesses of a name wait already that nothing was compared."""


class HtpasswdFile:
    """The entries of an htpasswd file, read again when it changes.

    A changed file that cannot be read or understood leaves the entries as they were.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version = self._stat()
        self._hashes = self._read()

    @property
    def hashes(self) -> Hashes:
        try:
            version = self._stat()
            if version != self._version:
                self._version = version
                self._hashes = self._read()
        except UsersError as error:
            logger.warning("%s; the entries read before stay valid", error)
        return self._hashes

    def _stat(self) -> tuple[int, int, int]:
        try:
            status = self._path.stat()
        except OSError as error:
            raise self._error(error.strerror) from error
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _read(self) -> dict[str, str]:
        try:
            return parse_htpasswd(self._path.read_text(encoding="utf-8").splitlines())
        except OSError as error:
            raise self._error(error.strerror) from error
        except (UsersError, UnicodeDecodeError) as error:
            raise self._error(error) from error

    def _error(self, cause: object) -> UsersError:
        return UsersError(f"the htpasswd file {self._path} cannot be used: {cause}")


class Throttle:
    """Slows each name and address down after failures, without holding up other requests.

    Only a few threads wait at a time; beyond them a caller that has to wait is refused at once.
    """

    def __init__(self, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._sleepers = threading.BoundedSemaphore(_MAX_SLEEPERS)
        self._failures: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()

    def failed(self, who: tuple[str, str]) -> None:
        """Note a failure."""
        now = self._clock()
        with self._lock:
            count, last = self._failures.pop(who, (0, now))
            count = 0 if now - last > FORGET_SECONDS else count
            delay = min(MAX_DELAY, _FIRST_DELAY * 2.0 ** min(count, 10))
            self._failures[who] = (count + 1, now + delay)
            if len(self._failures) > _MAX_REMEMBERED:
                self._failures.popitem(last=False)

    def succeeded(self, who: tuple[str, str]) -> None:
        """Forget the failures."""
        with self._lock:
            self._failures.pop(who, None)

    def wait(self, who: tuple[str, str]) -> bool:
        """Wait until `who` may go on; False if too many are waiting already."""
        with self._lock:
            _, until = self._failures.get(who, (0, 0.0))
        left = until - self._clock()
        if left <= 0:
            return True
        if not self._sleepers.acquire(blocking=False):
            return False
        try:
            self._sleep(left)
        finally:
            self._sleepers.release()
        return True


class Users:
    """The users of one server; may be asked from several threads."""

    def __init__(
        self,
        users: Hashes | Iterable[tuple[str, str]] = (),
        htpasswd: Path | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._given = dict(users)
        self._file = HtpasswdFile(htpasswd) if htpasswd else None
        self._clock = clock
        self._throttle = Throttle(clock, sleep)
        self._memo_key = os.urandom(32)
        self._memo: OrderedDict[bytes, float] = OrderedDict()
        self._memo_lock = threading.Lock()

    def __bool__(self) -> bool:
        """Whether clients must name themselves; an empty htpasswd file lets nobody in."""
        return bool(self._given) or self._file is not None

    def check(self, name: str, password: str, address: str = "") -> bool:
        """Whether this is the user's password; slow after failures, which are logged.

        A name that does not exist takes as long as a wrong password. CrowdError where others guess
        at the same name from the same address.
        """
        hashes = {**(self._file.hashes if self._file else {}), **self._given}
        known = hashes.get(name)
        proof = self._proof(name, password, known or "")
        if known and self._is_remembered(proof):
            self._remember(proof)  # so that nobody's guesses disturb who is at work
            return True
        who = (name[:256], address)
        if not self._throttle.wait(who):
            logger.warning("too many logins at once for %s from %s", printable(name[:64]), address)
            raise CrowdError
        if _verify(password, known, hashes) and known:
            self._remember(proof)
            self._throttle.succeeded(who)
            return True
        self._throttle.failed(who)
        logger.warning("wrong name or password for %s from %s", printable(name[:64]), address)
        self._throttle.wait(who)
        return False

    def _proof(self, name: str, password: str, known: str) -> bytes:
        parts = "\0".join((name, known, password)).encode("utf-8", "surrogateescape")
        return hmac.new(self._memo_key, parts, hashlib.sha256).digest()

    def _is_remembered(self, proof: bytes) -> bool:
        with self._memo_lock:
            return self._memo.get(proof, 0.0) > self._clock()

    def _remember(self, proof: bytes) -> None:
        with self._memo_lock:
            self._memo.pop(proof, None)
            self._memo[proof] = self._clock() + MEMO_SECONDS
            if len(self._memo) > _MAX_REMEMBERED:
                self._memo.popitem(last=False)


def _verify(password: str, known: str | None, hashes: Hashes) -> bool:
    """Compare with `known`, or in vain with another's hash so that it takes as long."""
    reference = known or next(iter(hashes.values()), None)
    if reference is None:
        return False
    try:
        return bool(_context().verify(password, reference))
    except ValueError:  # longer than bcrypt takes, or NUL: never the right one
        return False

"""The configuration file: YAML in, the values of config.py out; every error names its key."""

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import TypeAdapter, ValidationError

from davfusion import config
from davfusion.config import (
    EVERYBODY,
    OPTIONS,
    ROOT,
    ConfigError,
    ServerConfig,
    ShareConfig,
    given,
    in_file,
    is_secret,
    scheme_of,
)
from davfusion.config_yaml import Document, Key
from davfusion.stores.paths import is_valid_name
from davfusion.users import is_hash, is_name

_VARIABLE: Final = re.compile(r"\$(?:\$\{|\{([^{}]*)\})")
_KINDS: Final = {
    "bool_parsing": "true or false",
    "dataclass_type": "a mapping with keys of its own",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "path_type": "a path, as text in quotes",
    "string_type": "a single value",
    "tuple_type": "a list",
}
_LONGEST_SECRET: Final = 64 * 1024
T = TypeVar("T")


def load(path: Path) -> ServerConfig:
    """The configuration in a file; ConfigError has a line of text for each thing that is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise ConfigError(f"{path} cannot be read: {reason}") from error
    try:
        return parse(text, path.absolute().parent)
    except ConfigError as error:
        raise ConfigError("\n".join(f"{path}: {line}" for line in str(error).split("\n"))) from None


def parse(text: str, folder: Path, environ: Mapping[str, str] = os.environ) -> ServerConfig:
    """The configuration in a YAML text; relative paths in it begin at `folder`.

    `${NAME}` stands for a value of `environ`. Raises ConfigError.
    """
    return _Reading(text, folder, environ).result()


class _Reading:
    """One text on its way to a ServerConfig, and what is found to be wrong meanwhile."""

    def __init__(self, text: str, folder: Path, environ: Mapping[str, str]) -> None:
        self._document = Document(text)
        self._folder = folder
        self._environ = environ
        self._problems: list[tuple[int, str]] = []
        """Line, and what is wrong there."""

    def result(self) -> ServerConfig:
        """Raises ConfigError."""
        values = self._document.values(self._text, _is_option, _is_needed)
        self._stop()
        parsed = self._validated(ServerConfig, {} if values is None else values, ())
        for name, share in parsed.shares.items():
            self._check_share(name, share, parsed)
        self._check_users(parsed)
        shares = {name: self._settled(name, share) for name, share in parsed.shares.items()}
        self._stop()
        try:
            return config.check(replace(self._anchored(parsed), shares=shares))
        except ConfigError as error:
            raise ConfigError(in_file(str(error))) from error

    def _stop(self) -> None:
        if self._problems:
            found = sorted(dict.fromkeys(self._problems))
            raise ConfigError("\n".join(f"line {line}: {text}" for line, text in found))

    def _wrong(self, key: Key, text: str) -> None:
        name = ".".join(map(str, key)) or "the file"
        self._problems.append((self._document.line(key), f"{name}: {text}"))

    def _text(self, key: Key, text: str) -> str:
        """What a value stands for: with variables filled in, or read from the file it names."""
        try:
            if _is_secret(key) and text.startswith("file:"):
                return self._content(text.removeprefix("file:"))
            return _VARIABLE.sub(self._variable, text)
        except ConfigError as error:
            self._wrong(key, str(error))
            return text

    def _variable(self, match: re.Match[str]) -> str:
        if match[1] is None:
            return "${"
        if match[1] not in self._environ:
            raise ConfigError(f"the environment has no {match[1]} (a plain ${{ is written $${{)")
        return self._environ[match[1]]

    def _content(self, name: str) -> str:
        path = self._path(Path(name))
        try:
            with path.open(encoding="utf-8") as file:
                content = file.read(_LONGEST_SECRET).rstrip("\r\n")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8"
            raise ConfigError(f"{path} cannot be read: {reason}") from error
        if not content.isprintable():
            raise ConfigError(f"{path} holds more than one line of text")
        return content

    def _validated(self, kind: type[T], values: object, key: Key) -> T:
        """`values`, which stand at `key`, as a `kind`; else all that is wrong is raised."""
        try:
            return TypeAdapter(kind).validate_python(values)
        except ValidationError as error:
            for found in error.errors(include_url=False):
                self._note(kind, (*key, *found["loc"]), dict(found))
            self._stop()
            raise

    def _note(self, kind: Any, key: Key, found: dict[str, Any]) -> None:
        """One of pydantic's findings."""
        if found["type"] == "unexpected_keyword_argument":
            holder = ShareConfig if kind is ServerConfig and len(key) > 1 else kind
            known = [field.name for field in fields(holder)]
            return self._wrong(key, f"there is no such key{_nearest(str(key[-1]), known)}")
        if found["type"] in ("missing", "missing_argument"):
            return self._wrong(key, "is missing")
        shown = "its value" if _is_secret(key) else repr(self._document.text(key))
        if self._document.text(key) is None:
            shown = "what stands here"
        said = found["msg"].removeprefix("Value error, ").removeprefix("Input ")
        if found["type"] in _KINDS:
            said = f"should be {_KINDS[found['type']]}"
        text = said.replace(repr(str(found["input"])), shown)
        return self._wrong(key, text if shown in text else f"{shown} {text}")

    def _settled(self, name: str, share: ShareConfig) -> ShareConfig:
        """The share with checked options, and with paths that hold from everywhere."""
        options = share.options
        if schema := OPTIONS.get(scheme_of(share.target)):
            key = ("shares", name, "options")
            found = given(self._validated(schema, dict(options), key))
            options = {
                option: self._path(value) if isinstance(value, Path) else value
                for option, value in found.items()
            }
        cache_dir = share.cache_dir and self._path(share.cache_dir)
        target = share.target
        if scheme_of(target) in ("", "local"):
            target = str(self._path(Path(target.removeprefix("local:"))))
        return replace(share, target=target, options=options, cache_dir=cache_dir)

    def _anchored(self, parsed: ServerConfig) -> ServerConfig:
        return replace(
            parsed,
            htpasswd=parsed.htpasswd and self._path(parsed.htpasswd),
            tls_cert=parsed.tls_cert and self._path(parsed.tls_cert),
            tls_key=parsed.tls_key and self._path(parsed.tls_key),
            cache_dir=parsed.cache_dir and self._path(parsed.cache_dir),
        )

    def _path(self, path: Path) -> Path:
        try:
            return self._folder / path.expanduser()
        except RuntimeError:  # ~ of a user who is not there
            return self._folder / path

    def _check_share(self, name: str, share: ShareConfig, parsed: ServerConfig) -> None:
        key = ("shares", name)
        if share.target in ("", "local:"):
            self._wrong(
                (*key, "target"), f"{share.target!r} names no folder, and no address either"
            )
        if name == ROOT:
            if len(parsed.shares) > 1:
                self._wrong(key, "is the whole tree, so there can be no other share")
        elif not is_valid_name(name) or "\\" in name:
            self._wrong(key, "a share's name is that of a folder, or / for the whole tree")
        for kind, names in (("read", share.read), ("write", share.write)):
            if names is not None and not parsed.has_users:
                self._wrong((*key, kind), "nobody has a name without users or htpasswd")
                continue
            for index, member in enumerate(names or ()):
                self._check_member((*key, kind, index), member, parsed)

    def _check_member(self, key: Key, name: str, parsed: ServerConfig) -> None:
        if name.startswith("@"):
            if name[1:] not in parsed.groups:
                self._wrong(key, f"there is no group {name[1:]!r}; groups are made under groups")
        elif name not in parsed.users and name != EVERYBODY and not parsed.htpasswd:
            self._wrong(key, f"there is no user {name!r}; a group is written @{name}")

    def _check_users(self, parsed: ServerConfig) -> None:
        if not parsed.shares:
            self._wrong(("shares",), "there has to be one at least")
        for name, secret in parsed.users.items():
            if not is_name(name):
                self._wrong(("users", name), "a user's name has no colon")
            if not is_hash(secret):
                self._wrong(("users", name), "is no hash: `davfusion hash-password` makes one")
        for group, names in parsed.groups.items():
            for index, name in enumerate(names):
                if name.startswith("@"):
                    self._wrong(("groups", group, index), f"{name!r}: a group holds users alone")
                else:
                    self._check_member(("groups", group, index), name, parsed)


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, 1, 0.5)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(known) or 'none'}"


def _is_needed(key: Key) -> bool:
    """Whether nothing there would let in more people than is meant, or leave out a share."""
    is_member = len(key) == 2 and key[0] in ("shares", "users", "groups")
    return is_member or key == ("users",) or (len(key) == 3 and key[2] in ("read", "write"))


def _is_option(key: Key) -> bool:
    """Whether it is an option of a share's store."""
    return len(key) > 3 and key[0] == "shares" and key[2] == "options"


def _is_secret(key: Key) -> bool:
    """Whether the value may come from a file, and must not be shown."""
    is_user = len(key) == 2 and key[0] == "users"
    return is_user or (_is_option(key) and any(is_secret(str(step)) for step in key[3:]))

"""YAML as a configuration file needs it: plain values, and the line that each stands in."""

import re
from collections.abc import Callable
from typing import Any, Final

import yaml

from davfusion.config import ConfigError

Key = tuple[str | int, ...]
"""The way from the top of the document to a value."""

_WHOLE: Final = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_DECIMAL: Final = re.compile(r"[-+]?[0-9]{1,18}\.[0-9]{1,18}")
_TRUTH: Final = {"true": True, "false": False}
_NOTHING: Final = ("", "~", "null")


class Document:
    """A YAML text without aliases and tags, of which no value can be more than it looks.

    Raises ConfigError, here and from values(), naming the line.
    """

    def __init__(self, text: str) -> None:
        try:
            self._top = yaml.compose(text, Loader=_Loader)
        except ConfigError:
            raise
        except yaml.MarkedYAMLError as error:
            # Not str(error): it quotes the line, which may hold a secret.
            raise ConfigError(f"{_line(error.problem_mark)}: {error.problem}") from error
        except (yaml.YAMLError, ValueError) as error:
            raise ConfigError("line 1: a character that YAML does not allow") from error
        except RecursionError as error:
            raise ConfigError("line 1: nested too deep") from error

    def values(
        self,
        meant: Callable[[Key, str], str],
        is_free: Callable[[Key], bool],
        is_needed: Callable[[Key], bool],
    ) -> Any:
        """All of it as dicts, lists and texts; `meant` is what the text of a value stands for.

        An empty value is left out, so that its default holds, unless it `is_needed`. What
        `is_free`, because nothing says what it should be, is a number or a truth value where it is
        written as one.
        """
        return None if self._top is None else _Values(meant, is_free, is_needed).of(self._top, ())

    def line(self, key: Key) -> int:
        """The number of the line where `key` stands, or what would hold it."""
        return _number(self._node(key).start_mark if self._top else None)

    def text(self, key: Key) -> str | None:
        """What stands there, None for a mapping or a list."""
        node = self._node(key) if self._top else None
        return str(node.value) if isinstance(node, yaml.ScalarNode) else None

    def _node(self, key: Key) -> Any:
        node = self._top
        for step in key:
            if isinstance(node, yaml.SequenceNode) and isinstance(step, int):
                node = node.value[step]
            elif isinstance(node, yaml.MappingNode):
                members = {name.value: value for name, value in node.value}
                node = members.get(step, node)
        return node


class _Values:
    """See Document.values."""

    def __init__(
        self,
        meant: Callable[[Key, str], str],
        is_free: Callable[[Key], bool],
        is_needed: Callable[[Key], bool],
    ) -> None:
        self._meant = meant
        self._is_free = is_free
        self._is_needed = is_needed

    def of(self, node: Any, key: Key) -> Any:
        """What `node`, which stands at `key`, is."""
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, key)
        if isinstance(node, yaml.SequenceNode):
            return [self.of(each, (*key, index)) for index, each in enumerate(node.value)]
        members: dict[str, Any] = {}
        for name_node, value_node in node.value:
            name = _name(name_node)
            if name in members:
                raise ConfigError(f"{_line(name_node.start_mark)}: {name} is here twice")
            members[name] = self.of(value_node, (*key, name))
        return {name: value for name, value in members.items() if value is not None}

    def _scalar(self, node: Any, key: Key) -> str | int | float | bool | None:
        text = _sound(node)
        if node.style is None and text in _NOTHING and not self._is_needed(key):
            return None
        meant = self._meant(key, text)
        # What was filled in is a text: a secret of digits is no number.
        return (
            _typed(text) if node.style is None and meant == text and self._is_free(key) else meant
        )


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Composes nodes; refuses what would make a short text large, or a value something else."""

    def compose_node(self, parent: object, index: object) -> Any:
        event = self.peek_event()
        is_tagged = getattr(event, "tag", None) not in (None, "!")
        if isinstance(event, yaml.AliasEvent) or is_tagged or getattr(event, "anchor", None):
            raise ConfigError(f"{_line(event.start_mark)}: anchors, aliases and tags are not taken")
        return super().compose_node(parent, index)


def _number(mark: Any) -> int:
    return int(mark.line) + 1 if mark else 1


def _line(mark: Any) -> str:
    return f"line {_number(mark)}"


def _name(node: Any) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise ConfigError(f"{_line(node.start_mark)}: a key has to be a word")
    return _sound(node)


def _sound(node: Any) -> str:
    text = str(node.value)
    if "\0" in text or not text.isprintable():
        raise ConfigError(f"{_line(node.start_mark)}: an unprintable character")
    return text


def _typed(text: str) -> str | int | float | bool:
    if text in _TRUTH:
        return _TRUTH[text]
    if _WHOLE.fullmatch(text):
        return int(text)
    return float(text) if _DECIMAL.fullmatch(text) else text

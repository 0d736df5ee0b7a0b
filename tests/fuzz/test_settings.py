"""What the administrator writes, and what lies in the cache folder."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from davfusion import config_file
from davfusion.cache.notes import Note, packed, read_note
from davfusion.config import (
    ConfigError,
    parse_junk,
    parse_network,
    parse_prefix,
    parse_seconds,
    parse_size,
)
from davfusion.users import UsersError, parse_htpasswd, parse_user
from tests.fuzz.fuzzing import fuzzed, octets, refusal, texts

YAML = texts(
    "shares", "docs", "url", "s3://bucket", "memory:", "users", "port", "8080", "cache_size", "2GB",
    ": ", ":\n", "\n", "\n  ", "\n    ", "- ", "[", "]", "{", "}", '"', "'", "&a ", "*a",
    "!!python/object ",
    "|", "${HOME}", "${", "yes", "null", "~", "#", "<<: ", "? ", "---\n", "%YAML 1.2\n",
)  # fmt: skip
HASHES = texts(
    "alice", ":", "$2y$10$" + "a" * 53, "$apr1$abcdefgh$h9FWgUz3n9YxylKLlR5SQ/", "{SHA}", "$5$", "#"
)
NOTE = packed(Note("/f", 3, "900150983cd24fb0d6963f7d28e17f72", 0.0, None))


@fuzzed
@given(texts("2000", "MB", "1.5", "GB", "KiB", "s", ".", "9" * 400))
def test_sizes_and_durations(text: str) -> None:
    for read in (parse_size, parse_seconds):
        try:
            value = read(text)
        except ConfigError:
            continue
        assert value >= 0
        assert math.isfinite(value)


@fuzzed
@given(texts("mac", "office", "none", ",", "/", "dav", "10.0.0.0", "/8", "::1", "."))
def test_other_options(text: str) -> None:
    for read in (parse_junk, parse_prefix, parse_network):
        refusal(lambda read=read: read(text), ConfigError)  # type: ignore[misc]


@fuzzed
@given(HASHES)
def test_entries_of_users(text: str) -> None:
    for refused in (
        refusal(lambda: parse_htpasswd(text.splitlines()), UsersError),
        refusal(lambda: parse_user(text), UsersError),
    ):
        assert refused is None or "$2y$" not in str(refused)


@fuzzed
@given(YAML)
def test_configuration_files(text: str) -> None:
    refusal(lambda: config_file.parse(text, Path("/nowhere"), {}), ConfigError)


@fuzzed
@given(st.integers(0, len(NOTE)), octets(b"abc", NOTE, NOTE[-25:], b'{"path": "/f"}'))
def test_notes_of_the_spool(tmp_path: Path, cut: int, rest: bytes) -> None:
    file = tmp_path / "content"
    for content in (rest, b"abc" + NOTE[:cut] + rest + NOTE[cut:]):
        file.write_bytes(content)
        note = read_note(file)
        assert note is None or (note.bytes, note.path) == (3, "/f")


def test_a_note_that_is_whole_is_read(tmp_path: Path) -> None:
    (tmp_path / "content").write_bytes(b"abc" + NOTE)
    found = read_note(tmp_path / "content")
    assert found is not None
    assert found.path == "/f"
    with pytest.raises(FileNotFoundError):
        read_note(tmp_path / "missing")

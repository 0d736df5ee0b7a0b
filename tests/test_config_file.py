"""The configuration file: what it gives, and that every error names its key and what would do."""

import contextlib
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from davfusion.config import (
    ConfigError,
    DropboxOptions,
    S3Options,
    ServerConfig,
    ShareConfig,
    check,
    parse_junk,
    parse_size,
)
from davfusion.config_file import load, parse
from davfusion.stores.registry import TargetError, open_store

ROOT = Path(__file__).parents[1]
KINDS = (ServerConfig, ShareConfig, S3Options, DropboxOptions)
EXAMPLES = sorted((ROOT / "config").glob("*.yaml"))
HASH = "$2b$12$0lwTzjSawnToASNSbWmK.umKRhneib.kkMGFLujVeafqyq2VZT6Oi"
"""Of `hunter2`: not made anew, since the names of tests hold it."""
ENVIRON = {"S3": "s3://b", "PORT": "81", "KEY": "0123", "HASH": HASH, "EMPTY": ""}


def read(text: str, folder: Path = Path("/etc")) -> ServerConfig:
    return parse(text, folder, ENVIRON)


def wrong(text: str) -> list[str]:
    """What is said about it, line by line."""
    with pytest.raises(ConfigError) as caught:
        read(text)
    return str(caught.value).splitlines()


def test_defaults_are_those_of_the_command_line() -> None:
    found = read("shares: {photos: {target: 's3://b'}}")
    assert found == check(ServerConfig({"photos": ShareConfig("s3://b")}))


def test_values_are_read_as_the_command_line_reads_them() -> None:
    found = read(
        """
        port: ${PORT}
        shares:
          photos:
            target: s3://b/p
            cache_size: 5GB
            cache_expiration: 90s
            write_mode: through
            read_only: yes
            options: {path_style: false, profile: "${KEY}", region: "$${KEY}"}
        """
    )
    photos = found.shares["photos"]
    assert (found.port, photos.cache_size, photos.cache_expiration) == (81, 5 << 30, 90)
    assert (photos.write_mode, photos.read_only) == ("through", True)
    assert photos.options == {"path_style": False, "profile": "0123", "region": "${KEY}"}


def test_relative_paths_begin_at_the_file() -> None:
    found = read(
        "{htpasswd: users, cache_dir: /caches, shares: {a: {target: a}, b: {target: 'local:/b', "
        "cache_dir: b}}}"
    )
    assert found.htpasswd == Path("/etc/users")
    assert [share.target for share in found.shares.values()] == ["/etc/a", "/b"]
    assert [share.cache_dir for share in found.shares.values()] == [Path("/caches"), Path("/etc/b")]


def test_rights_are_of_users_and_groups() -> None:
    found = read(
        f"""
        users: {{alice: {HASH}, bob: {HASH}, carol: "${{HASH}}"}}
        groups: {{family: [alice, bob]}}
        shares:
          open: {{target: a}}
          shown: {{target: b, read: ["*"], write: [carol]}}
          ours: {{target: c, read: ["@family"], write: [alice]}}
          mine: {{target: d, read: [carol]}}
          nobodys: {{target: e, read: []}}
        """
    )
    may = {
        name: "".join(
            "w" if rights.may_write(user) else "r" if rights.may_read(user) else "-"
            for user in ("alice", "bob", "carol", "dave")
        )
        for name, rights in ((n, found.rights(share)) for n, share in found.shares.items())
    }
    assert may == {
        "open": "wwww",
        "shown": "rrwr",
        "ours": "wr--",
        "mine": "--r-",
        "nobodys": "----",
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("shares:\n  a: {target: b, cache_sise: 5}", "line 2: shares.a.cache_sise: .*cache_size"),
        ("prot: 80\nshares: {a: {target: b}}", "line 1: prot: .*did you mean port"),
        (
            "shares:\n  a:\n    target: b\n    cache_size: 1 parsec",
            "line 4: shares.a.cache_size: '1 p.*2000MB",
        ),
        ("shares: {a: {}}", "shares.a.target: is missing"),
        ("shares: {a: {target: b, write_mode: up}}", "write_mode: 'up' .*'back' or 'through'"),
        ("port: 70000\nshares: {a: {target: b}}", "port: '70000' .* 0 to 65535"),
        ("shares: {a: {target: b, read_only: perhaps}}", "read_only: 'perhaps' .*true or false"),
        (
            "cors_origins: [app.example]\nshares: {a: {target: b}}",
            "cors_origins.0: 'app.ex.*https://",
        ),
        ("shares: {a: {target: b, junk: [mac, office]}}", "a.junk: .* should be a single value"),
        ("shares: {a: {target: b, cache_size: 500}}", "1: shares.a.cache_size: '500' .* 1MB"),
        ("shares: {a: {target: '${EMPTY}'}}", "shares.a.target: '' names no folder"),
        ("shares: {a: {target: b}, c: }", "shares.c: '' should be a mapping"),
        ("users:\nshares: {a: {target: b}}", "line 1: users: '' should be a mapping"),
        ("users: {alice: }\nshares: {a: {target: b}}", "users.alice: is no hash"),
        (f"users: {{a: {HASH[:-1]}}}\nshares: {{a: {{target: b}}}}", "users.a: is no hash"),
        (f"users: {{u: {HASH}}}\nshares: {{a: {{target: b, read: }}}}", "a.read: '' .* a list"),
        ("shares: {a: {target: '${no-name}'}}", "target: the environment has no no-name"),
        ("shares: {a: {target: b, options: {region: x}}}", "region: there is no such key"),
        ("shares: {a: {target: 's3://b', options: {access_key_id: x}}}", "needs .*secret_access"),
        ("shares: {a: 's3://b'}", "shares.a: 's3://b' should be a mapping"),
        ("shares: [a]", "shares: .* a mapping"),
        ("shares: {}", "shares: there has to be one"),
        ("", "shares: is missing"),
        ("[1, 2]", "a mapping"),
        ("shares: {/: {target: a}, b: {target: c}}", "shares./: is the whole tree"),
        ("shares: {a/b: {target: a}}", "shares.a/b: .*name"),
        ("port: ${NO_SUCH}\nshares: {a: {target: b}}", "port: the environment has no NO_SUCH"),
        ("port: 1\nport: 2", "line 2: port is here twice"),
        ("a: &x 1\nb: *x", "line 1: anchors, aliases"),
        ("a: !!set {b}", "tags are not taken"),
        ("shares: {a: [", "line 1: "),
        ("shares: {a: {target: b, read: [alice]}}", "read: nobody has a name"),
        ("shares: {a: {target: 's3://b', options: {regoin: x}}}", "options.regoin.*region"),
        ("shares: {options: {target: '${S3}', options: {x: y}}}", "options.x: .*endpoint_url"),
        ("shares: {options: {target: '${S3}', x: y}}", "shares.options.x: .*cache_size"),
        ("shares: {a: {target: 's3://b', options: {checksums: crc}}}", "'crc' .*'md5' or 'sdk'"),
        ("shares: {a: {target: b}}\nhost: 0.0.0.0", "give users or htpasswd"),
        ("shares: {a: {target: b}}\ntls_cert: c", "tls_cert and tls_key belong together"),
    ],
)
def test_errors_name_the_key_the_value_and_what_would_do(text: str, said: str) -> None:
    assert re.search(said, wrong(text)[0]), wrong(text)


def test_all_errors_are_named_at_once() -> None:
    lines = wrong("port: x\nworkers: 0\nshares:\n  a: {target: b, cache_size: c}")
    assert [line.split(":")[0] for line in lines] == ["line 1", "line 2", "line 4"]


def test_users_that_are_not_there() -> None:
    users = f"users: {{alice: {HASH}}}\ngroups: {{us: [alic]}}\n"
    lines = wrong(users + "shares: {a: {target: b, read: [bob], write: ['@them']}}")
    assert "groups.us.0: there is no user 'alic'" in "".join(lines)
    assert "shares.a.read.0: there is no user 'bob'" in "".join(lines)
    assert "shares.a.write.0: there is no group 'them'" in "".join(lines)
    users = f"users: {{alice: {HASH}}}\ngroups: {{us: [alice], all: ['@us']}}\n"
    assert (
        "groups.all.0: '@us': a group holds users alone"
        in wrong(users + "shares: {a: {target: b}}")[0]
    )
    read("htpasswd: users\nshares: {a: {target: b, read: [bob]}}")  # the file may name him later


@pytest.mark.parametrize(
    "text",
    [
        "users: {alice: hunter2}\nshares: {a: {target: b}}",
        "users: {alice: [hunter2]}\nshares: {a: {target: b}}",
        "shares: {a: {target: 's3://b', options: {secret_access_key: [hunter2]}}}",
        "shares: {a: {target: 's3://b', options: {session_token: {hunter2: hunter2}}}}",
        "shares: {a: {target: 's3://b', options: {secret: hunter2}}}",
        "users: {alice: 'hunter2\nshares: {}",
        "port: ${SECRET}\nshares: {a: {target: b, cache_size: '${SECRET}', read: '${SECRET}'}}",
        "users: {alice: 'file:secret'}\nshares: {a: {target: b}}",
    ],
)
def test_no_secret_is_shown(text: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hunter2\n")
    with pytest.raises(ConfigError) as caught:
        parse(text, tmp_path, {"SECRET": "hunter2"})
    assert "hunter2" not in str(caught.value)


def test_secrets_come_from_files(tmp_path: Path) -> None:
    (tmp_path / "hash").write_text(HASH + "\n")
    (tmp_path / "key").write_text("hunter2\r\n")
    found = parse(
        """
        users: {alice: "file:hash"}
        shares:
          a:
            target: "s3://b"
            options: {access_key_id: "file:key", secret_access_key: "file:key", region: "file:key"}
        """,
        tmp_path,
    )
    assert found.users == {"alice": HASH}
    options = {"access_key_id": "hunter2", "secret_access_key": "hunter2", "region": "file:key"}
    assert found.shares["a"].options == options
    assert "hunter2" not in repr(found)
    assert HASH not in repr(found)
    (line,) = wrong("users: {alice: 'file:no-such'}\nshares: {a: {target: b}}")
    assert "users.alice: /etc/no-such cannot be read" in line


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes(b"\xff")
    for name, said in (("none", "No such file"), ("c.yaml", "not UTF-8")):
        with pytest.raises(ConfigError, match=said):
            load(tmp_path / name)


TEXTS = st.text(max_size=12) | st.sampled_from(
    [
        "/",
        "*",
        "@g",
        "alice",
        "${HASH}",
        "${",
        "file:x",
        "5GB",
        "yes",
        "s3://b",
        "memory:",
        "~x",
        "${S3}",
    ]
)
KEYS = st.sampled_from([each.name for kind in (ServerConfig, ShareConfig) for each in fields(kind)])
SCALARS = TEXTS | st.integers() | st.floats() | st.booleans() | st.none() | st.dates()
LISTED = SCALARS | st.lists(SCALARS, max_size=3)
MAPPED = LISTED | st.dictionaries(KEYS | TEXTS, LISTED, max_size=3)
VALUES = MAPPED | st.lists(MAPPED, max_size=3) | st.dictionaries(KEYS | TEXTS, MAPPED, max_size=3)
SHARES = st.dictionaries(
    TEXTS, st.fixed_dictionaries({"target": TEXTS}) | st.dictionaries(KEYS, VALUES), max_size=3
)
CONFIGS = st.dictionaries(KEYS, VALUES, max_size=4).flatmap(
    lambda top: SHARES.map(lambda shares: {**top, "shares": shares})
)


def _gives_a_config_or_an_error(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(read(text), ServerConfig)


@given(CONFIGS | VALUES)
def test_any_values_give_a_config_or_an_error(value: Any) -> None:
    _gives_a_config_or_an_error(yaml.safe_dump(value, allow_unicode=True))


@given(st.text(max_size=60) | st.text(alphabet="shares: {}[]&*!|>'\"\\\n-#%@`$0x", max_size=60))
def test_any_text_gives_a_config_or_an_error(text: str) -> None:
    _gives_a_config_or_an_error(text)


def test_what_would_become_large_or_deep_is_refused() -> None:
    laughs = "a: &a [x, x]\n" + "".join(
        f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdef", "bcdefg", strict=True)
    )
    for text in (laughs, "[" * 5000, "a: " + "{b: " * 5000, "port: " + "9" * 5000):
        assert wrong(text)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_can_be_served(
    example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = example.read_text(encoding="utf-8")
    for name in re.findall(r"\$\{(\w+)\}", text):
        monkeypatch.setenv(name, "value")
    (tmp_path / "files").mkdir()
    (tmp_path / "dropbox.json").write_text('{"app_key": "key", "refresh_token": "token"}')
    (tmp_path / example.name).write_text(text)
    for share in load(tmp_path / example.name).shares.values():
        try:
            open_store(share.target, share.options)
        except TargetError as error:  # of a package that the development tools lack
            assert example.stem == "gs"
            assert "pip install 'davfusion[gcs]'" in str(error)


def test_the_full_example_has_every_key() -> None:
    text = (ROOT / "config" / "full.yaml").read_text(encoding="utf-8")
    keys = set(re.findall(r"^[ #]*(\w+):", text, re.MULTILINE))
    wanted = {each.name for kind in KINDS[:3] for each in fields(kind)}
    assert wanted <= keys


def test_the_documentation_has_every_key_with_its_default() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    section = text[text.index("## The configuration file") :]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) ?\| ", section, re.MULTILINE))
    documented = [each for kind in KINDS for each in fields(kind)]
    assert set(rows) == {each.name for each in documented}
    for each in documented:
        if isinstance(each.default, bool):
            assert rows[each.name] == ("on" if each.default else "off")
        elif isinstance(each.default, float):
            assert rows[each.name] == f"{each.default:g}"
        elif isinstance(each.default, str | int) and each.name != "cache_size":
            assert rows[each.name] == str(each.default)
    assert parse_size(rows["cache_size"]) == ShareConfig("").cache_size
    assert parse_junk(rows["junk"]) == ShareConfig("").junk


def test_check_config_says_what_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("port: x\nshares: {a: {target: b, cache_sise: 5}}\n")
    command = [sys.executable, "-m", "davfusion", "check-config", str(file)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 2
    assert all(line.startswith(f"davfusion: {file}: line ") for line in ended.stderr.splitlines())
    file.write_text("shares: {a: {target: b}}\n")
    missing = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "share a:" in missing.stderr
    (tmp_path / "b").mkdir()
    well = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "all is well" in well.stdout

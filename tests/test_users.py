"""Who may come in, how fast, and what the log says of it."""

import os
import threading
from pathlib import Path

import pytest

import davfusion.users
from davfusion.users import (
    MAX_DELAY,
    MEMO_SECONDS,
    CrowdError,
    Users,
    UsersError,
    hash_password,
    parse_htpasswd,
    parse_user,
)

# Of `secret`, made by `openssl passwd -apr1` and `openssl dgst -sha1`.
APR1 = "$apr1$abcdefgh$h9FWgUz3n9YxylKLlR5SQ/"
SHA = "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="


class Time:
    """A clock that sleeping moves on."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def time() -> Time:
    return Time()


def users(time: Time, *given: str, htpasswd: Path | None = None) -> Users:
    return Users(
        [parse_user(text) for text in given], htpasswd, clock=lambda: time.now, sleep=time.sleep
    )


def write(path: Path, text: str, changed: int) -> None:
    path.write_text(text)
    os.utime(path, (changed, changed))


def test_right_and_wrong_passwords(time: Time) -> None:
    some = users(time, "alice:with:colons", "bob:" + SHA, "eve:" + APR1)
    assert some.check("alice", "with:colons")
    assert some.check("bob", "secret")
    assert some.check("eve", "secret")
    assert not some.check("alice", "secret")
    assert not some.check("carol", "secret")
    assert not some.check("bob", SHA)
    assert not some.check("", "")


@pytest.mark.parametrize("password", ["x" * 100, "nul\0", "", "\udce4"])
def test_passwords_that_bcrypt_does_not_take(time: Time, password: str) -> None:
    assert not users(time, "bob:" + hash_password("secret")).check("bob", password)


def test_long_and_unusual_plain_passwords(time: Time) -> None:
    password = "き" * 100
    assert users(time, f"bob:{password}").check("bob", password)
    assert not users(time, f"bob:{password}").check("bob", password[:72])


def test_hashes() -> None:
    assert hash_password("secret").startswith("$2b$")
    with pytest.raises(UsersError, match="72"):
        hash_password("x" * 73)
    name, plain_hash = parse_user("bob:secret")
    assert name == "bob"
    assert "secret" not in plain_hash
    for kept in (SHA, APR1, "$2y$10$" + "a" * 53):
        assert parse_user("bob:" + kept) == ("bob", kept)


@pytest.mark.parametrize("text", ["bob", "bob:", ":secret", "new\nline:secret"])
def test_what_is_no_user_is_not_shown(text: str) -> None:
    with pytest.raises(UsersError) as caught:
        parse_user(text)
    assert "secret" not in str(caught.value)


def test_htpasswd_lines() -> None:
    assert parse_htpasswd(["# users", "", f"bob:{SHA} ", f"eve:{APR1}"]) == {
        "bob": SHA,
        "eve": APR1,
    }
    with pytest.raises(UsersError, match="line 2") as caught:
        parse_htpasswd([f"bob:{SHA}", "eve:plaintext"])
    assert "plaintext" not in str(caught.value)


def test_an_htpasswd_file_is_read_again_when_it_changes(
    time: Time, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "users"
    write(file, f"bob:{SHA}\n", 1)
    some = users(time, htpasswd=file)
    assert some.check("bob", "secret")
    write(file, f"eve:{SHA}\n", 2)
    assert not some.check("bob", "secret")
    assert some.check("eve", "secret")
    write(file, "garbage\n", 3)
    assert some.check("eve", "secret")
    file.unlink()
    assert some.check("eve", "secret")
    assert "stay valid" in caplog.text


def test_an_empty_htpasswd_file_lets_nobody_in(time: Time, tmp_path: Path) -> None:
    file = tmp_path / "users"
    file.touch()
    some = users(time, htpasswd=file)
    assert some
    assert not some.check("bob", "")
    assert not Users()
    with pytest.raises(UsersError, match="missing"):
        users(time, htpasswd=tmp_path / "missing")


def test_a_right_password_is_hashed_once_in_a_while(
    time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = users(time, "bob:secret")
    assert some.check("bob", "secret")
    with monkeypatch.context() as patch:
        patch.setattr("davfusion.users._verify", lambda *_: False)
        assert some.check("bob", "secret")
        time.now += MEMO_SECONDS - 1
        assert some.check("bob", "secret")
        time.now += MEMO_SECONDS - 1
        assert some.check("bob", "secret")
        time.now += MEMO_SECONDS + 1
        assert not some.check("bob", "secret")


def test_an_unknown_name_costs_a_hash_too(time: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    some = users(time, "bob:" + SHA)
    compared = []

    def verify(password: str, known: str) -> bool:
        compared.append((password, known))
        return True

    monkeypatch.setattr(davfusion.users._context(), "verify", verify)
    assert not some.check("carol", "guess")
    assert compared == [("guess", SHA)]


def test_failures_slow_a_name_and_address_down_and_nobody_else(time: Time) -> None:
    some = users(time, "bob:secret", "eve:secret")
    for _ in range(8):
        assert not some.check("bob", "guess", "192.0.2.1")
    assert time.slept[:3] == [0.25, 0.5, 1.0]
    assert max(time.slept) == MAX_DELAY
    time.slept.clear()
    assert some.check("eve", "secret", "192.0.2.1")
    assert some.check("bob", "secret", "192.0.2.2")
    assert some.check("bob", "secret", "192.0.2.1")
    assert time.slept == []


def test_a_crowd_of_guesses_holds_up_few_threads(time: Time) -> None:
    waiting = threading.Semaphore(0)
    release = threading.Event()

    def sleep(_seconds: float) -> None:
        waiting.release()
        release.wait()

    some = Users([parse_user("bob:secret")], clock=lambda: time.now, sleep=sleep)
    crowd = [threading.Thread(target=some.check, args=("bob", "guess")) for _ in range(2)]
    for thread in crowd:
        thread.start()
        waiting.acquire()
    for password in ("guess", "secret"):
        with pytest.raises(CrowdError):
            some.check("bob", password)
    assert some.check("bob", "secret", "elsewhere")
    assert some.check("bob", "secret")
    release.set()
    for thread in crowd:
        thread.join()


def test_a_failure_is_logged_with_its_address_and_without_the_password(
    time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    assert not users(time, "bob:secret").check("b\x1bo\n", "guess", "192.0.2.1")
    assert r"b\x1bo\n from 192.0.2.1" in caplog.text
    assert "guess" not in caplog.text

"""The command as users run it: what it prints, how it ends, what it keeps to itself."""

import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.servers import S3Server

live = pytest.mark.live
DAVFUSION = (sys.executable, "-m", "davfusion")
PATIENCE = 30.0


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home of its own, and none of the machine's credentials."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "DAVFUSION_"))]:
        if name != "DAVFUSION_TESTING":
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def folder(tmp_path: Path, environment: None) -> Path:
    path = tmp_path / "files"
    path.mkdir()
    (path / "a.txt").write_text("hello")
    return path


def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [*DAVFUSION, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)


def refusal(*arguments: object) -> str:
    """The one line on stderr with which `davfusion serve` ends; on any port unless one is given."""
    return refusal_of("serve", "--port", "0", *arguments)


def refusal_of(*arguments: object) -> str:
    """The same of any command."""
    ended = run(*arguments)
    assert (ended.returncode, ended.stdout) == (1, ""), ended
    lines = ended.stderr.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("davfusion: ")
    return lines[0]


class Serving:
    """A running `davfusion serve`."""

    def __init__(self, process: "subprocess.Popen[str]", announced: list[str]) -> None:
        self.process = process
        self.announced = announced
        found = re.search(r"http://\S+", announced[0])
        assert found
        self.url = found[0]

    def request(self, path: str, method: str = "GET", user: str = "", body: bytes = b"") -> bytes:
        headers = {"Authorization": "Basic " + b64encode(user.encode()).decode()} if user else {}
        request = urllib.request.Request(  # noqa: S310 - the server of this test
            self.url + path, body or None, headers, method=method
        )
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:  # noqa: S310
            return bytes(response.read())

    def status(self, path: str, method: str = "GET", user: str = "", body: bytes = b"") -> int:
        try:
            self.request(path, method, user, body)
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        return 200

    def stop(self) -> str:
        """The log, after a clean end."""
        self.process.terminate()
        _, log = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0
        return log


@contextmanager
def serving(*arguments: object) -> Iterator[Serving]:
    command = [*DAVFUSION, "serve", "--port", "0", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    announced: list[str] = []
    try:
        while not announced or not announced[-1].startswith("Cache:"):
            line = process.stdout.readline()
            assert line, process.communicate()[1]
            announced.append(line.rstrip())
        yield Serving(process, announced)
    finally:
        process.kill()
        process.communicate()


def test_help_and_version_load_no_more_than_they_need() -> None:
    assert "--write-back-delay" in run("serve", "--help").stdout
    assert re.search(r"\d+\.\d+\.\d+", run("--version").stdout)
    loaded = "import sys, davfusion.cli; print({'boto3', 'wsgidav', 'cheroot'} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", loaded], capture_output=True, check=True)
    assert printed.stdout.strip() == b"set()"


@live
def test_a_folder_is_served_as_announced(folder: Path, tmp_path: Path) -> None:
    with serving(folder) as server:
        assert server.request("a.txt") == b"hello"
        server.request("b.txt?token=hidden", "PUT", body=b"new")
        (folder / "b.txt").write_text("changed outside")
        assert server.request("b.txt") == b"changed outside"
        (folder / "a.txt").unlink()
        assert server.status("a.txt") == 404
        assert server.status("b.txt", "DELETE") == 200
        log = server.stop()
    assert re.search(r'INFO 127\.0\.0\.1 - "PUT /b\.txt" 201 \d+ms', log)
    assert "hidden" not in log
    assert "Traceback" not in log
    cache = Path(server.announced[-1].removeprefix("Cache: "))
    assert cache.is_relative_to(tmp_path / "caches")
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700


@live
def test_users_come_in_and_passwords_stay_out_of_the_log(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = subprocess.run(
        [*DAVFUSION, "hash-password", "--password", "file-secret"], capture_output=True, check=True
    )
    (tmp_path / "users").write_bytes(b"carol:" + hashed.stdout)
    monkeypatch.setenv("DAVFUSION_USER", "alice:env-secret bob:env-secret")
    with serving(folder, "--htpasswd", tmp_path / "users", "--log-level", "debug") as server:
        for user in ("alice:env-secret", "bob:env-secret", "carol:file-secret"):
            assert server.request("a.txt", user=user) == b"hello"
        assert server.request("a.txt?logout", user="alice:env-secret") == b"hello"
        assert server.status("a.txt") == 401
        assert server.status("a.txt", user="alice:guessed-secret") == 401
        log = server.stop()
    assert 'alice "GET /a.txt" 200' in log
    assert "wrong name or password for alice from 127.0.0.1" in log
    assert "secret" not in log + "".join(server.announced)


@live
def test_read_only(folder: Path) -> None:
    with serving(folder, "--read-only") as server:
        assert server.request("a.txt") == b"hello"
        assert server.status("b.txt", "PUT", body=b"new") == 403
        assert server.status("a.txt", "DELETE") == 403
    assert [path.name for path in folder.iterdir() if path.is_file()] == ["a.txt"]


@live
def test_memory_is_served_by_one_worker(environment: None) -> None:
    with serving("memory:", "--workers", 4) as server:
        server.request("a", "PUT", body=b"kept")
        assert {server.request("a") for _ in range(10)} == {b"kept"}


@live
def test_the_environment_gives_the_target(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAVFUSION_TARGET", str(folder))
    with serving() as server:
        assert server.request("a.txt") == b"hello"


@live
def test_a_body_that_breaks_off_leaves_the_old_file(folder: Path) -> None:
    with serving(folder) as server:
        port = int(server.url.rstrip("/").rpartition(":")[2])
        for rest in (
            b"Content-Length: 10\r\n\r\nhalf",
            b"Transfer-Encoding: chunked\r\n\r\n9\r\nhalf",
            b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhalf",
        ):
            with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
                client.sendall(b"PUT /a.txt HTTP/1.1\r\nHost: localhost\r\n" + rest)
                client.shutdown(socket.SHUT_WR)
                answer = b"".join(iter(lambda: client.recv(4096), b""))
            assert answer.startswith(b"HTTP/1.1 400 ")
        assert server.request("a.txt") == b"hello"
        assert "Traceback" not in server.stop()


@live
def test_s3_answers_within_a_moment(
    environment: None, s3_server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_keys(monkeypatch, s3_server)
    start = time.monotonic()
    with serving(f"s3://{bucket}/prefix", "--write-mode", "through") as server:
        assert server.status("missing") == 404
        assert time.monotonic() - start < 5  # 1.1 s on a machine at rest
        server.request("a.txt", "PUT", body=b"stored")
        assert server.request("a.txt") == b"stored"
    stored: Any = s3_server.client().get_object(Bucket=bucket, Key="prefix/a.txt")
    assert stored["Body"].read() == b"stored"


@live
def test_s3_that_cannot_be_used(
    environment: None, s3_server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = refusal(f"s3://{bucket}", "--s3-endpoint-url", s3_server.endpoint)
    assert "credentials" in missing
    assert "AWS_SECRET_ACCESS_KEY" in missing
    give_keys(monkeypatch, s3_server)
    assert "no-such-bucket" in refusal("s3://no-such-bucket")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    wrong = refusal(f"s3://{bucket}")
    assert "AWS_ACCESS_KEY_ID" in wrong
    assert "wrong" not in wrong


@live
def test_a_server_that_nobody_answers_is_named(
    environment: None, s3_server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_keys(monkeypatch, s3_server)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with serving(f"s3://{bucket}") as server:
        assert server.status("a.txt") == 503
        log = server.stop()
    assert "http://127.0.0.1:9" in log
    assert "AWS_ENDPOINT_URL" in log


def give_keys(monkeypatch: pytest.MonkeyPatch, server: S3Server) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)


def test_targets_that_cannot_be_served(folder: Path, tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "missing")
    assert "not a folder" in refusal(folder / "a.txt")
    assert "s3:" in refusal("gopher://host")
    assert "prefix" in refusal("s3://bucket/a/../b")
    assert "http://" in refusal("s3://bucket", "--s3-endpoint-url", "host:9000")


@live
def test_folders_without_permission(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:  # root may do everything, unless it gives that up
        if not shutil.which("setpriv"):
            pytest.skip("root needs setpriv to have no permission")
        capabilities = "-dac_override,-dac_read_search"
        ordinary = ("setpriv", f"--bounding-set={capabilities}", *DAVFUSION)
        monkeypatch.setattr(f"{__name__}.DAVFUSION", ordinary)
    folder.chmod(0o500)
    with serving(folder) as server:
        assert server.request("a.txt") == b"hello"
        assert server.status("b.txt", "PUT", body=b"new") == 403
        assert server.stop().count("no permission to write") == 1
    folder.chmod(0)
    assert "permission to read" in refusal(folder)
    folder.chmod(0o700)


@live
def test_without_users_other_names_are_refused(folder: Path) -> None:
    def ask(server: Serving, host: str) -> int:
        connection = HTTPConnection(server.url.split("/")[2], timeout=PATIENCE)
        connection.request("GET", "/a.txt", headers={"Host": host})
        status = connection.getresponse().status
        connection.close()
        return status

    with serving(folder) as server:
        assert [ask(server, host) for host in ("localhost", "evil.example")] == [200, 421]
        assert "--anonymous" in server.stop()
    with serving(folder, "--anonymous") as server:
        assert ask(server, "evil.example") == 200
    with serving(folder, "--user", "alice:secret") as server:
        assert ask(server, "evil.example") == 401


def test_a_port_in_use(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "--port" in refusal(folder, "--port", taken.getsockname()[1])


def test_a_cache_folder_that_cannot_be_written(folder: Path, tmp_path: Path) -> None:
    assert "--cache-dir" in refusal(folder, "--port", 0, "--cache-dir", "/proc/cache")
    (tmp_path / "file").touch()
    assert "--cache-dir" in refusal(folder, "--port", 0, "--cache-dir", tmp_path / "file" / "x")
    assert "--cache-dir" in refusal(folder, "--cache-dir", tmp_path / "file")
    assert "--cache-dir" in refusal(folder, "--cache-dir", folder / "cache")
    assert "--cache-id" in refusal(folder, "--port", 0, "--cache-id", "../x")


@live
def test_two_servers_of_one_cache(folder: Path) -> None:
    with serving(folder):
        assert "--cache-id" in refusal(folder, "--port", 0)
        with serving(folder, "--cache-id", "another") as second:
            assert second.request("a.txt") == b"hello"


def test_other_refusals(folder: Path, tmp_path: Path) -> None:
    assert "--anonymous" in refusal(folder, "--host", "0.0.0.0")  # noqa: S104
    (tmp_path / "bad").write_text("bob:plain-secret\n")
    line = refusal(folder, "--htpasswd", tmp_path / "bad")
    assert "line 1" in line
    assert "secret" not in line
    assert "--tls-key" in refusal(folder, "--tls-cert", tmp_path / "bad")
    line = refusal(folder, "--tls-cert", tmp_path / "bad", "--tls-key", tmp_path / "bad")
    assert "PEM" in line


def test_a_configuration_file_says_all(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "davfusion.yaml"
    assert "No such file" in refusal_of("serve", "--config", file)
    file.write_text("shares: {/: {target: none}}\n")
    assert f"{tmp_path / 'none'} does not exist" in refusal_of("serve", "--config", file)
    file.write_text("shares: {/: {target: files, cache_dir: files/cache}}\n")
    assert "with cache_dir" in refusal_of("serve", "--config", file)
    file.write_text("shares: {a: {target: files, cache_id: x}, b: {target: files, cache_id: x}}\n")
    assert "share b: it has the cache of share a" in refusal_of("serve", "--config", file)
    assert "share b: it has the cache of share a" in refusal_of("check-config", file)
    for beside in ((folder,), ("--port", "0"), ("--read-only",)):
        ended = run("serve", "--config", file, *beside)
        assert (ended.returncode, "the file says all" in ended.stderr) == (2, True)
    ended = run("serve")
    assert (ended.returncode, "TARGET, or --config" in ended.stderr) == (2, True)


def test_wrong_options_are_usage_errors_that_show_no_secret(folder: Path) -> None:
    ended = run("serve", folder, "--user", "no-colon-secret")
    assert ended.returncode == 2
    assert "NAME:PASSWORD" in ended.stderr
    assert "secret" not in ended.stderr
    for size in ("big", "2000"):
        assert run("serve", folder, "--cache-size", size).returncode == 2

"""Debian's nginx, Apache and Caddy in front, with the examples of docs/reverse-proxy.md."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import servers
from tests.live.serving import Serving, free_port, is_open, program, run, serving

pytestmark = pytest.mark.live
EXAMPLES = Path(__file__).parents[2] / "docs" / "reverse-proxy.md"
NGINX = """
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {example}
}}
"""
MODULES = ("mpm_event", "authz_core", "headers", "proxy", "proxy_http", "socache_shmcb", "ssl")
APACHE = """
{modules}
ServerRoot {folder}
ServerName localhost
PidFile {folder}/pid
ErrorLog {folder}/error.log
Listen 127.0.0.1:{port}
{example}
"""
CADDY = """
{{
    admin off
    auto_https off
    default_sni localhost
    storage file_system {folder}
}}
{example}
"""


@pytest.fixture
def share(tmp_path: Path) -> Iterator[Serving]:
    (tmp_path / "files").mkdir()
    options = ("--prefix", "/dav", "--anonymous")
    with serving(str(tmp_path / "files"), tmp_path, *options) as server:
        yield server


def example(kind: str, share: Serving, port: int, certificate: Path) -> str:
    """The example of the documentation, with these ports and this certificate."""
    found = re.search(rf"```{kind}\n(.*?)```", EXAMPLES.read_text(), re.DOTALL)
    assert found
    text = found[1].replace("listen 443", f"listen 127.0.0.1:{port}")
    text = text.replace("*:443", f"127.0.0.1:{port}").replace(
        "127.0.0.1:8080", f"127.0.0.1:{share.port}"
    )
    site = f"https://127.0.0.1:{port} {{\n    tls {certificate}.pem {certificate}.key"
    text = text.replace("files.example.org {", site)
    return text.replace("/etc/ssl/files.example.org", str(certificate))


@pytest.fixture(params=["nginx", "apache", "caddy"])
def url(
    request: pytest.FixtureRequest, share: Serving, certificate: tuple[Path, Path], tmp_path: Path
) -> Iterator[str]:
    """The share as the proxy's clients know it."""
    folder, port = tmp_path / "proxy", free_port()
    folder.mkdir()
    for file, suffix in zip(certificate, (".pem", ".key"), strict=True):
        (folder / f"certificate{suffix}").write_bytes(file.read_bytes())
    server = example(request.param, share, port, folder / "certificate")
    config = folder / "proxy.conf"
    if request.param == "nginx":
        config.write_text(NGINX.format(folder=folder, example=server))
        command = [program("nginx"), "-c", str(config), "-p", str(folder)]
    elif request.param == "caddy":
        config.write_text(CADDY.format(folder=folder, example=server))
        command = [program("caddy"), "run", "--config", str(config), "--adapter", "caddyfile"]
    else:
        modules = "\n".join(
            f"LoadModule {m}_module /usr/lib/apache2/modules/mod_{m}.so" for m in MODULES
        )
        config.write_text(APACHE.format(folder=folder, modules=modules, port=port, example=server))
        command = [program("apache2"), "-f", str(config), "-D", "FOREGROUND"]
    process = subprocess.Popen(command, env={**os.environ, "XDG_CONFIG_HOME": str(folder)})
    while not is_open(port):
        assert process.poll() is None
    yield f"https://127.0.0.1:{port}/dav/"
    process.terminate()
    process.wait()


def test_clients_behind_a_proxy(url: str, share: Serving) -> None:
    replay = servers.testing_program("clientreplay").__file__
    done = subprocess.run(
        [sys.executable, str(replay), url, "--quiet"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_rename_and_a_large_file_by_curl(
    url: str, share: Serving, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    large = tmp_path / "large"
    large.write_bytes(bytes(20_000_000))

    def curl(*arguments: str) -> str:
        return run(program("curl"), "-ksS", "-w", "%{http_code}", *arguments)

    assert curl("-T", str(large), url + "a") == "201"
    assert curl("-X", "MOVE", "-H", f"Destination: {url}b", url + "a") == "201"
    assert curl("-I", url + "b").count("ength: 20000000") == 1
    told = "X-Forwarded-For: 192.0.2.7"
    assert curl("-H", told, "-X", "PROPFIND", "-H", "Depth: 0", url[:-1])[-3:] == "207"
    share.stop()
    # Caddy believes no client, the others' examples add to what it says.
    address = "127.0.0.1" if request.node.callspec.params["url"] == "caddy" else "192.0.2.7"
    assert f'{address} - "PROPFIND /dav" 207' in share.log.read_text()

"""Servers for the stores that fsspec reaches: sshd, an FTP server and Apache, on loopback."""

import getpass
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import bcrypt
import pytest

from davfusion.stores.credentials import PASSWORD
from davfusion.stores.fsspec import FsspecStore
from tests.live.serving import free_port, is_open, program

START_SECONDS = 10


@dataclass(frozen=True)
class SftpServer:
    """Debian's sshd, for the user who runs the tests."""

    port: int
    home: Path
    """Its .ssh has the key and known_hosts."""
    process: "subprocess.Popen[bytes]"

    @property
    def address(self) -> str:
        return f"sftp://127.0.0.1:{self.port}"


def wait_for_port(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Return when something listens."""
    give_up = time.monotonic() + START_SECONDS
    while not is_open(port):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < give_up, log.read_text()
        time.sleep(0.02)


@pytest.fixture(scope="session")
def sftp_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SftpServer]:
    """sshd with keys of its own, and HOME as its client finds them."""
    folder = tmp_path_factory.mktemp("sshd")
    port, home = free_port(), folder / "home"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    key, host_key = home / ".ssh" / "id_ed25519", folder / "host_key"
    for made in (key, host_key):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", made], check=True)
    shutil.copy(key.with_suffix(".pub"), folder / "authorized_keys")
    public = host_key.with_suffix(".pub").read_text()
    (home / ".ssh" / "known_hosts").write_text(f"[127.0.0.1]:{port} {public}")
    config = folder / "sshd_config"
    config.write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {host_key}\nPidFile none\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nPermitRootLogin yes\nSubsystem sftp internal-sftp\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    with (folder / "log").open("wb") as log, pytest.MonkeyPatch.context() as patch:
        sshd = shutil.which("sshd", path="/usr/sbin") or program("sshd")
        process = subprocess.Popen([sshd, "-D", "-e", "-f", config], stderr=log)
        patch.setenv("HOME", str(home))
        try:
            wait_for_port(port, process, folder / "log")
            yield SftpServer(port, home, process)
        finally:
            process.terminate()
            process.wait()


@dataclass(frozen=True)
class FtpServer:
    """pyftpdlib, with one user who may do everything below `root`."""

    port: int
    root: Path
    process: "subprocess.Popen[bytes]"

    @property
    def address(self) -> str:
        return f"ftp://me@127.0.0.1:{self.port}"


@pytest.fixture(scope="session")
def ftp_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FtpServer]:
    """A process of its own; the password comes by the environment."""
    folder = tmp_path_factory.mktemp("ftp")
    port, root = free_port(), folder / "root"
    root.mkdir()
    command = [sys.executable, "-m", "pyftpdlib", "-i", "127.0.0.1", "-p", str(port), "-w"]
    command += ["-d", str(root), "-u", "me", "-P", "secret"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log, stdout=log)
        try:
            wait_for_port(port, process, folder / "log")
            yield FtpServer(port, root, process)
        finally:
            process.terminate()
            process.wait()


@dataclass(frozen=True)
class DavServer:
    """Apache with mod_dav; `root` is its folder."""

    port: int
    root: Path
    process: "subprocess.Popen[bytes]"

    @property
    def address(self) -> str:
        return f"webdav://me@127.0.0.1:{self.port}"


_APACHE = """
ServerName localhost
ServerRoot {folder}
Listen 127.0.0.1:{port}
PidFile {folder}/pid
ErrorLog {folder}/log
Mutex file:{folder}
{modules}
DocumentRoot {folder}/root
DavLockDB {folder}/locks
LimitXMLRequestBody 0
AllowEncodedSlashes NoDecode
<Directory {folder}/root>
    Dav On
    AllowOverride None
    AuthType Basic
    AuthName dav
    AuthUserFile {folder}/users
    Require valid-user
</Directory>
"""
_MODULES = "mpm_event authn_core authn_file authz_core authz_user auth_basic dav dav_fs"


@pytest.fixture(scope="session")
def dav_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DavServer]:
    """Debian's, in the foreground, with the user `me` and the password `secret`."""
    folder = tmp_path_factory.mktemp("apache")
    port, root = free_port(), folder / "root"
    root.mkdir()
    modules = "\n".join(
        f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so"
        for name in _MODULES.split()
    )
    if os.geteuid() == 0:
        modules += "\nUser www-data\nGroup www-data"
        for made in (folder, root):
            shutil.chown(made, "www-data")
        folder.chmod(0o755)
        for above in folder.parents[:3]:
            above.chmod(0o755)
    password = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
    (folder / "users").write_text(f"me:{password}\n")
    config = folder / "apache.conf"
    config.write_text(_APACHE.format(folder=folder, port=port, modules=modules))
    apache = shutil.which("apache2", path="/usr/sbin") or program("apache2")
    with (folder / "output").open("wb") as log:
        process = subprocess.Popen([apache, "-DFOREGROUND", "-f", config], stderr=log)
        try:
            wait_for_port(port, process, folder / "output")
            yield DavServer(port, root, process)
        finally:
            process.terminate()
            process.wait()


@pytest.fixture(scope="session")
def rclone_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DavServer]:
    """`rclone serve webdav`, with the user `me` and the password `secret`."""
    folder = tmp_path_factory.mktemp("rclone")
    port, root = free_port(), folder / "root"
    root.mkdir()
    command = [program("rclone"), "serve", "webdav", str(root), "--addr", f"127.0.0.1:{port}"]
    command += ["--user", "me", "--pass", "secret", "--config", os.devnull]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            wait_for_port(port, process, folder / "log")
            yield DavServer(port, root, process)
        finally:
            process.terminate()
            process.wait()


def end_sessions(server: "subprocess.Popen[bytes]") -> None:
    """Kill the processes that serve the connections there are, and what else it has started."""
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children")
    for pid in map(int, children.read_text().split()):
        with suppress(ProcessLookupError):  # it has just ended
            os.kill(pid, signal.SIGKILL)


@dataclass(frozen=True)
class SmbServer:
    """Debian's Samba, with the user who runs the tests and the password `secret`."""

    port: int
    root: Path
    process: "subprocess.Popen[bytes]"

    @property
    def address(self) -> str:
        return f"smb://{getpass.getuser()}@127.0.0.1:{self.port}/files"


_SAMBA = """
[global]
interfaces = lo
bind interfaces only = yes
smb ports = {port}
disable netbios = yes
server role = standalone server
server min protocol = SMB3
passdb backend = tdbsam
private dir = {folder}/private
state directory = {folder}/state
cache directory = {folder}/cache
lock directory = {folder}/lock
pid directory = {folder}/pid
ncalrpc dir = {folder}/ncalrpc
usershare path =
log file = {folder}/log
load printers = no
[files]
path = {root}
read only = no
"""


@pytest.fixture(scope="session")
def smb_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmbServer]:
    """smbd in the foreground; what it keeps lies in a folder of its own."""
    folder = tmp_path_factory.mktemp("smb")
    port, root = free_port(), folder / "root"
    for made in (root, *(folder / n for n in ("private", "state", "cache", "lock", "pid"))):
        made.mkdir(mode=0o755)
    config = folder / "smb.conf"
    config.write_text(_SAMBA.format(folder=folder, root=root, port=port))
    add = [program("smbpasswd"), "-c", str(config), "-s", "-a", getpass.getuser()]
    subprocess.run(add, input=b"secret\nsecret\n", check=True, capture_output=True)
    smbd = [shutil.which("smbd", path="/usr/sbin") or program("smbd"), "-F", "--no-process-group"]
    with (folder / "output").open("wb") as log:
        process = subprocess.Popen(
            [*smbd, "-s", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            process_group=0,
        )
        try:
            wait_for_port(port, process, folder / "output")
            yield SmbServer(port, root, process)
        finally:
            process.terminate()
            process.wait()


@pytest.fixture
def smb_folder(smb_server: SmbServer) -> Path:
    """A new folder."""
    root = smb_server.root / f"a root {uuid4().hex}"
    root.mkdir()
    return root


@pytest.fixture
def smb_store(
    smb_server: SmbServer, smb_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FsspecStore]:
    """That folder by SMB."""
    monkeypatch.setenv(PASSWORD, "secret")
    url = f"{smb_server.address}/{quote(smb_folder.name)}"
    with closing_store(FsspecStore(url)) as store:
        yield store


@pytest.fixture
def sftp_store(sftp_server: SftpServer, tmp_path: Path) -> Iterator[FsspecStore]:
    """A new folder."""
    (tmp_path / "a root").mkdir()
    store = FsspecStore(f"{sftp_server.address}{tmp_path}/a%20root")
    yield store
    store.reconnect()


@pytest.fixture
def ftp_store(ftp_server: FtpServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[FsspecStore]:
    """A new folder."""
    monkeypatch.setenv(PASSWORD, "secret")
    root = f"a root {uuid4().hex}"
    (ftp_server.root / root).mkdir()
    store = FsspecStore(f"{ftp_server.address}/{quote(root)}")
    yield store
    store.reconnect()


@pytest.fixture
def dav_store(dav_server: DavServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[FsspecStore]:
    """A new folder."""
    monkeypatch.setenv(PASSWORD, "secret")
    with closing_store(new_folder(dav_server)) as store:
        yield store


@pytest.fixture
def rclone_store(
    rclone_server: DavServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FsspecStore]:
    """A new folder."""
    monkeypatch.setenv(PASSWORD, "secret")
    with closing_store(new_folder(rclone_server)) as store:
        yield store


def new_folder(server: DavServer) -> FsspecStore:
    """Made by DAV, so that it is the server's."""
    root = f"a root {uuid4().hex}"
    with closing_store(FsspecStore(server.address)) as above:
        above.create_directory(f"/{root}")
    return FsspecStore(f"{server.address}/{quote(root)}")


@contextmanager
def closing_store(store: FsspecStore) -> Iterator[FsspecStore]:
    """Its connections are closed in the end."""
    try:
        yield store
    finally:
        store.reconnect()

"""SFTP by paramiko: what fsspec's class leaves out of the protocol.

Host keys are checked against known_hosts, reads and writes are pipelined, and a link is told from
what it leads to.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from stat import S_ISDIR, S_ISLNK, S_ISREG
from typing import Any, ClassVar, Final

import paramiko
from fsspec.implementations.sftp import SFTPFileSystem

from davfusion.stores.fsspec.backend import OWN_INSTANCE, require_version, version_of
from davfusion.stores.fsspec.folders import FolderBackend
from davfusion.stores.store import (
    Metadata,
    NoSuchFilesytemObjectError,
    ReadableStream,
    StoreAutorizationError,
)

logger = logging.getLogger(__name__)

TIMEOUT: Final = 30.0
"""Seconds without an answer."""
_WINDOW: Final = 4 * 1024 * 1024
"""Bytes asked for ahead of the reader; paramiko keeps all of it in memory."""
_REQUEST: Final = 32 * 1024
"""Bytes of one read or write; servers need not take more (draft-ietf-secsh-filexfer-02, 3)."""


class _OnlyKnownHosts(paramiko.MissingHostKeyPolicy):
    def missing_host_key(
        self,
        client: paramiko.SSHClient,  # noqa: ARG002 - paramiko's signature
        hostname: str,
        key: paramiko.PKey,
    ) -> None:
        raise StoreAutorizationError(
            f"the key of {hostname} ({key.get_name()} {key.fingerprint}) is not in "
            "~/.ssh/known_hosts: connect once with sftp, and compare it"
        )


class KnownHostsFileSystem(SFTPFileSystem):  # type: ignore[misc] # fsspec has no types
    """fsspec's, but it knows the user's known_hosts, and a server that is silent is given up."""

    def _connect(self) -> None:
        self.client = paramiko.SSHClient()
        self.client.load_system_host_keys()
        self.client.set_missing_host_key_policy(self.host_key_policy)
        try:
            self.client.connect(self.host, **self.ssh_kwargs)
        except paramiko.SSHException as error:
            if "No authentication methods" not in str(error):
                raise
            raise StoreAutorizationError(f"no key and no password for {self.host}") from error
        self.ftp = self.client.open_sftp()
        channel = self.ftp.get_channel()
        if channel is not None:
            channel.settimeout(TIMEOUT)
            channel.get_transport().set_keepalive(int(TIMEOUT))


class SftpBackend(FolderBackend):
    """One SSH connection."""

    filesystem_class: ClassVar[type | None] = KnownHostsFileSystem
    options: ClassVar[Mapping[str, Any]] = {
        **OWN_INSTANCE,
        "host_key_policy": _OnlyKnownHosts(),
        "timeout": TIMEOUT,
        "banner_timeout": TIMEOUT,
        "auth_timeout": TIMEOUT,
    }

    also_given: ClassVar[tuple[Callable[..., Any], ...]] = (paramiko.SSHClient.connect,)

    def close(self) -> None:
        self.filesystem.client.close()

    def stat(self, path: str) -> Metadata:
        """A link to a file is that file; one to a folder is nothing, as it may lead anywhere."""
        status = self._sftp.lstat(path)
        if S_ISLNK(status.st_mode or 0):
            status = self._sftp.stat(path)
            if not S_ISREG(status.st_mode or 0):
                raise NoSuchFilesytemObjectError(f"{path} is a link to no file")
        return _metadata(status, path)

    def listing(self, directory: str) -> dict[str, Metadata]:
        found = {status.filename: status for status in self._sftp.listdir_attr(directory)}
        return {
            name: metadata
            for name, status in found.items()
            if (metadata := self._member(f"{directory}/{name}", status)) is not None
        }

    def entries(self, directory: str) -> dict[str, bool]:
        """Links as what they are."""
        found = self._sftp.listdir_attr(directory)
        return {status.filename: S_ISDIR(status.st_mode or 0) for status in found}

    def _member(self, path: str, status: paramiko.SFTPAttributes) -> Metadata | None:
        try:
            return self.stat(path) if S_ISLNK(status.st_mode or 0) else _metadata(status, path)
        except (FileNotFoundError, NoSuchFilesytemObjectError):
            return None

    def open(self, path: str, offset: int, length: int | None, etag: str | None) -> ReadableStream:
        """An open file stays the version it was, and says itself which one that is."""
        file = self._sftp.open(path, "rb")
        try:
            metadata = _metadata(file.stat(), path)
            require_version(metadata, path, etag)
        except BaseException:
            file.close()
            raise
        end = metadata["bytes"] if length is None else min(offset + length, metadata["bytes"])
        return _Pipelined(file, offset, end)

    def write(self, path: str, blocks: Iterable[bytes]) -> None:
        """Requests are sent ahead of their answers; before the last one all of them are read."""
        with self._sftp.open(path, "wb") as file:
            file.set_pipelined(True)
            last = b""
            for block in blocks:
                file.write(last)
                file.write(block[:-_REQUEST])
                last = block[-_REQUEST:]
            file.set_pipelined(False)
            file.write(last)

    def set_modified(self, path: str, when: float) -> None:
        self._sftp.utime(path, (when, when))

    def rename(self, src: str, dst: str) -> None:
        """By OpenSSH's extension; without it the protocol knows no rename over a file."""
        try:
            self._sftp.posix_rename(src, dst)
        except OSError as error:
            if "nsupported" not in str(error):
                raise
            self._sftp.rename(src, dst)

    def make_directory(self, path: str) -> None:
        self._sftp.mkdir(path)

    def remove(self, path: str) -> None:
        self._sftp.remove(path)

    def remove_directory(self, path: str) -> None:
        self._sftp.rmdir(path)

    @property
    def _sftp(self) -> paramiko.SFTPClient:
        client: paramiko.SFTPClient = self.filesystem.ftp
        return client


class _Pipelined:
    """The bytes of a file from `offset` to before `end`, asked for a window ahead."""

    def __init__(self, file: paramiko.SFTPFile, offset: int, end: int) -> None:
        self._file = file
        self._at = self._asked = offset
        self._end = end
        file.seek(offset)
        file._prefetch_thread = _until_it_breaks(file._prefetch_thread)  # type: ignore[attr-defined]

    def read(self, size: int = -1, /) -> bytes:
        if size < 0:
            return b"".join(iter(partial(self.read, _WINDOW), b""))
        if self._at >= self._end:
            return b""
        if self._at == self._asked:
            self._asked = min(self._asked + _WINDOW, self._end)
            self._file.prefetch(self._asked)
        data = self._file.read(min(size, self._asked - self._at))
        if not data and size:  # so paramiko says that the connection has broken
            raise EOFError(f"{self._end - self._at} bytes before the end")
        self._at += len(data)
        return data

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> "_Pipelined":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _until_it_breaks(ask: Callable[..., None]) -> Callable[..., None]:
    """What paramiko runs in a thread of its own: nobody could catch what it raises there.

    Who reads notices a connection that has broken, too; who has closed the file need not know.
    """

    def quiet(*windows: Any) -> None:
        try:
            ask(*windows)
        except (EOFError, OSError, paramiko.SSHException) as error:
            logger.debug("reading ahead ended: %r", error)

    return quiet


def _metadata(status: paramiko.SFTPAttributes, path: str) -> Metadata:
    mode, modified = status.st_mode or 0, float(status.st_mtime or 0)
    if S_ISDIR(mode):
        return Metadata(modified=modified, bytes=0, is_dir=True)
    if not S_ISREG(mode):
        raise NoSuchFilesytemObjectError(f"{path} is neither file nor folder")
    size = status.st_size or 0
    return Metadata(modified=modified, bytes=size, is_dir=False, etag=version_of(size, modified))

"""FTP by ftplib: what fsspec's class leaves out of the protocol.

Stats by MLST instead of listing the folder (RFC 3659), one data connection for a whole range
instead of one for each block, and modified times by MFMT (draft-somers-ftp-mfxx).
"""

import ftplib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from davfusion.stores import paths
from davfusion.stores.fsspec.backend import version_of
from davfusion.stores.fsspec.folders import FolderBackend
from davfusion.stores.fsspec.ranges import Ranges
from davfusion.stores.store import (
    Metadata,
    NoSuchFilesytemObjectError,
    ReadableStream,
    StoreAccessError,
)

_BLOCK: Final = 256 * 1024
_UNKNOWN: Final = ("500", "502", "504")
"""Replies of a server that has not got a command (RFC 959, 4.2.1)."""
_DATE: Final = "%Y%m%d%H%M%S"

Facts = Mapping[str, str]


class FtpBackend(FolderBackend):
    """One control connection; it has one data connection at a time."""

    def __init__(self, filesystem: Any) -> None:
        super().__init__(filesystem)
        self._ftp: ftplib.FTP = filesystem.ftp
        self._ftp.voidcmd("TYPE I")

    @classmethod
    def why_refused(cls, name: str) -> str | None:
        """A command is a line."""
        return "with a line break in it" if {"\r", "\n"} & {*name} else None

    def close(self) -> None:
        self._ftp.close()

    def stat(self, path: str) -> Metadata:
        try:
            reply = self._ftp.sendcmd(f"MLST {_line(path)}")
        except ftplib.error_perm as error:
            if str(error)[:3] in _UNKNOWN:
                raise StoreAccessError("the FTP server has no MLST (RFC 3659)", 501) from error
            if str(error)[:3] == "501":  # some say so of a name that is not there
                raise NoSuchFilesytemObjectError(path) from error
            raise
        return _metadata(_entry(reply.splitlines()[1].strip())[1], path)

    def listing(self, directory: str) -> dict[str, Metadata]:
        if not self.stat(directory)["is_dir"]:
            raise NoSuchFilesytemObjectError(f"{directory} is a file")
        return {
            name: _metadata(facts, name)
            for name, facts in self._members(directory)
            if facts.get("type") in ("file", "dir") and paths.is_valid_name(name)
        }

    def entries(self, directory: str) -> dict[str, bool]:
        return {
            name: facts.get("type") == "dir"
            for name, facts in self._members(directory)
            if facts.get("type") not in ("cdir", "pdir")
        }

    def _members(self, directory: str) -> list[tuple[str, Facts]]:
        """Name and facts; ftplib's own mlsd() would switch what follows to text."""
        with self._ftp.transfercmd(f"MLSD {_line(directory)}") as data:
            text = b"".join(iter(partial(data.recv, _BLOCK), b"")).decode(self._ftp.encoding)
        self._ftp.voidresp()
        return [_entry(line) for line in text.split("\r\n") if line]

    def open(self, path: str, offset: int, length: int | None, etag: str | None) -> ReadableStream:
        """While it sends a file, the server cannot be asked which version that is."""
        return Ranges(self, path, offset, length, etag)

    def read_range(self, path: str, start: int, end: int) -> bytes:
        """By a data connection that is closed where it has brought enough."""
        got = bytearray()
        with self._ftp.transfercmd(f"RETR {_line(path)}", rest=start or None) as data:
            while len(got) < end - start:
                block = data.recv(min(_BLOCK, end - start - len(got)))
                if not block:
                    break
                got += block
        self._end_transfer()
        return bytes(got)

    def write(self, path: str, blocks: Iterable[bytes]) -> None:
        with self._ftp.transfercmd(f"STOR {_line(path)}") as data:
            try:
                for block in blocks:
                    data.sendall(block)
            except OSError:
                data.close()
                self._ftp.voidresp()  # raises why the server broke off
                raise
            except BaseException:
                data.close()
                self._end_transfer()
                raise
        self._ftp.voidresp()

    def _end_transfer(self) -> None:
        """Read what the server says of a transfer that we broke off."""
        with suppress(ftplib.Error):
            self._ftp.voidresp()

    def set_modified(self, path: str, when: float) -> None:
        """Where the server knows MFMT, or its older form by MDTM."""
        date = datetime.fromtimestamp(when, UTC).strftime(_DATE)
        for command in ("MFMT", "MDTM"):
            with suppress(ftplib.error_perm):
                self._ftp.voidcmd(f"{command} {date} {_line(path)}")
                return

    def rename(self, src: str, dst: str) -> None:
        self._ftp.rename(_line(src), _line(dst))

    def make_directory(self, path: str) -> None:
        self._ftp.mkd(_line(path))

    def remove(self, path: str) -> None:
        self._ftp.delete(_line(path))

    def remove_directory(self, path: str) -> None:
        self._ftp.rmd(_line(path))


def _line(path: str) -> str:
    """`path` as an argument of a command, which is a line (RFC 959, 5.3.1)."""
    if "\r" in path or "\n" in path:
        raise StoreAccessError(f"FTP cannot name {path!r}", 400)
    return path


def _entry(line: str) -> tuple[str, Facts]:
    """Name and facts of one line (RFC 3659, 7.2)."""
    facts, _, name = line.partition(" ")
    pairs = (fact.partition("=") for fact in facts.split(";") if fact)
    return name, {key.lower(): value for key, _, value in pairs}


def _metadata(facts: Facts, path: str) -> Metadata:
    date = facts.get("modify", "19700101000000")[:14]
    modified = datetime.strptime(f"{date}+0000", f"{_DATE}%z").timestamp()
    if facts.get("type") in ("dir", "cdir", "pdir"):
        return Metadata(modified=modified, bytes=0, is_dir=True)
    if facts.get("type") != "file":
        raise NoSuchFilesytemObjectError(f"{path} is neither file nor folder")
    size = int(facts.get("size", 0))
    etag = version_of(size, modified, facts.get("unique", ""))
    return Metadata(modified=modified, bytes=size, is_dir=False, etag=etag)

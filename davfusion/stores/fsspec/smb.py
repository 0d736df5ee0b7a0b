"""SMB by smbprotocol: what fsspec's class leaves out of the protocol.

A listing tells of all members at once instead of by a question for each, and a rename replaces.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from stat import FILE_ATTRIBUTE_DIRECTORY, FILE_ATTRIBUTE_REPARSE_POINT, S_ISDIR
from typing import Any, ClassVar, Final

import smbclient
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_random_exponential

from davfusion.stores import paths
from davfusion.stores.fsspec.backend import OWN_INSTANCE, version_of
from davfusion.stores.fsspec.folders import FOLDER_FEATURES, FolderBackend
from davfusion.stores.store import Features, Metadata

_REFUSED: Final = re.compile(r'[\x00-\x1f<>:"|?*\\]|[ .]$')
"""learn.microsoft.com/windows/win32/fileio/naming-a-file; Samba shows such names as others."""
_ACCESS_DENIED: Final = 0xC0000022
_EPOCH: Final = datetime.fromtimestamp(0, UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class SmbBackend(FolderBackend):
    """Files of a Windows or Samba server.

    One that is open may be renamed and removed all the same.
    """

    features: ClassVar[Features] = replace(FOLDER_FEATURES, case_insensitive_names=True)
    options: ClassVar[Mapping[str, Any]] = {**OWN_INSTANCE, "share_access": "rwd"}

    @classmethod
    def why_refused(cls, name: str) -> str | None:
        if _REFUSED.search(name):
            return 'with one of <>:"|?*\\ in it, or a space or dot at its end'
        return None

    def stat(self, path: str) -> Metadata:
        found = smbclient.stat(self._address(path), port=self.filesystem._port)
        return _metadata(S_ISDIR(found.st_mode), found.st_size, found.st_mtime_ns // 1000)

    def listing(self, directory: str) -> dict[str, Metadata]:
        with smbclient.scandir(self._address(directory), port=self.filesystem._port) as found:
            return {
                entry.name: self._member(f"{directory}/{entry.name}", entry.smb_info)
                for entry in found
                if paths.is_valid_name(entry.name)
            }

    def _member(self, path: str, info: Any) -> Metadata:
        if info.file_attributes & FILE_ATTRIBUTE_REPARSE_POINT:  # a link, or a file that is far
            return self.stat(path)
        is_dir = bool(info.file_attributes & FILE_ATTRIBUTE_DIRECTORY)
        return _metadata(is_dir, info.end_of_file, (info.last_write_time - _EPOCH) // _MICROSECOND)

    def set_modified(self, path: str, when: float) -> None:
        smbclient.utime(self._address(path), (when, when), port=self.filesystem._port)

    @retry(
        retry=retry_if_exception(lambda error: getattr(error, "ntstatus", None) == _ACCESS_DENIED),
        stop=stop_after_attempt(8),
        wait=wait_random_exponential(multiplier=0.01, max=0.5),
        reraise=True,
    )
    def rename(self, src: str, dst: str) -> None:
        """fsspec's own refuses to replace a file.

        Samba denies it for the moment in which another has one of them open.
        """
        smbclient.replace(self._address(src), self._address(dst), port=self.filesystem._port)

    def _address(self, path: str) -> str:
        return f"//{self.filesystem.host}{path}".replace("/", "\\")


def _metadata(is_dir: bool, size: int, microseconds: int) -> Metadata:
    """A listing's times are cut to microseconds, so a stat's are too."""
    modified = microseconds / 1e6
    if is_dir:
        return Metadata(modified=modified, bytes=0, is_dir=True)
    etag = version_of(size, modified)
    return Metadata(modified=modified, bytes=size, is_dir=False, etag=etag)

"""How to mount a share, in the words of the system that davfusion runs on."""

import socket
from collections.abc import Sequence


def url_of(host: str, port: int, *, tls: bool) -> str:
    """The share's URL; an IPv6 address gets its brackets."""
    scheme, usual = ("https", 443) if tls else ("http", 80)
    name = f"[{host}]" if ":" in host else host
    return f"{scheme}://{name}/" if port == usual else f"{scheme}://{name}:{port}/"


def mount_hints(url: str, system: str, *, users: bool) -> Sequence[str]:
    """Lines for a person; `system` as sys.platform names it."""
    if system == "darwin":
        return [f"Finder: Go > Connect to Server (Cmd-K), enter {url}"]
    if system == "win32":
        lines = [f"Command line: net use * {url}", f"Explorer: This PC > Map network drive, {url}"]
        if users and url.startswith("http:"):
            lines.append("Windows sends passwords over TLS only: add --tls-cert and --tls-key")
        return lines
    login = " --webdav-user NAME --webdav-pass $(rclone obscure PASSWORD)" if users else ""
    return [
        f"Files (GNOME):   gio mount dav{url.removeprefix('http')}",
        f"davfs2, as root: mount -t davfs {url} /mnt",
        f"rclone:          rclone mount :webdav: /mnt --webdav-url {url} --webdav-vendor owncloud"
        f" --vfs-cache-mode writes{login}",
    ]


def reachable_names(host: str) -> Sequence[str]:
    """The names to reach a server by that listens on `host`; the last is for other machines."""
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        return ["127.0.0.1", socket.gethostname()]
    return [host]

"""S3 servers that differ, made from a real one: a proxy that alters requests and answers.

It ends the client's signature and signs anew, since what it alters is signed. Each quirk is the
manner of a server in use, named in QUIRKS.
"""

import http.client
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final
from urllib.parse import urlsplit

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

QUIRKS: Final = {
    "ignores conditions": "If-Match and If-None-Match on writes have no effect",
    "refuses conditions": "501 to a write with a condition",
    "bare etags": "If-Match is compared without quotes",
    "refuses checksums": "400 to the SDK's checksum headers and trailers",
    "wants Content-MD5": "400 to DeleteObjects without it",
    "no DeleteObjects": "501",
    "no CopyObject": "501",
    "empty ETag": "from CompleteMultipartUpload",
    "corrupts uploads": "a bit of every request body flips on the way",
    "error in 200": "from CompleteMultipartUpload",
    "reversed listings": "each page from its last key to its first",
}
_RENEWED: Final = {
    *("authorization", "x-amz-date", "x-amz-content-sha256", "host", "content-length"),
    *("expect", "connection", "transfer-encoding", "user-agent", "accept-encoding"),
}


class QuirkProxy(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, endpoint: str, credentials: Credentials, quirks: set[str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        if unknown := quirks - QUIRKS.keys():
            raise ValueError(f"no such quirk: {unknown}")
        self.backend = endpoint
        self.signer = S3SigV4Auth(credentials, "s3", "us-east-1")
        self.quirks = quirks
        self.endpoint = f"http://127.0.0.1:{self.server_address[1]}"
        self.log: list[str] = []
        self.asked: list[str] = []
        """What the client asked about (Expect) before it sent it, a round trip each."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: QuirkProxy
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:
        """The log is a list."""

    def handle_expect_100(self) -> bool:
        self.server.asked.append(f"{self.command} {self.path}")
        return super().handle_expect_100()

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.log.append(f"{self.command} {self.path}")
        headers = {k.lower(): v for k, v in self.headers.items() if k.lower() not in _RENEWED}
        refusal = self._refusal(headers)
        if refusal is not None:
            status, code = refusal
            self._answer(status, [], f"<Error><Code>{code}</Code></Error>".encode())
            return
        self._alter_conditions(headers)
        if self._has("corrupts uploads") and body:
            body = bytes([body[0] ^ 1]) + body[1:]
        self._forward(headers, body)

    do_PUT = do_POST = do_DELETE = do_HEAD = do_GET  # noqa: N815 - http.server's names

    def _has(self, quirk: str) -> bool:
        return quirk in self.server.quirks

    def _refusal(self, headers: dict[str, str]) -> tuple[int, str] | None:
        writes = self.command in ("PUT", "POST")
        conditional = writes and {"if-match", "if-none-match"} & headers.keys()
        deletes = self.command == "POST" and self.path.endswith("?delete")
        copies = self.command == "PUT" and "x-amz-copy-source" in headers
        sums = [name for name in headers if re.match("x-amz-(checksum|sdk|trailer)", name)]
        bare = not headers.get("if-match", "").startswith('"')
        refused = {
            "refuses conditions": (conditional, 501, "NotImplemented"),
            "refuses checksums": (sums, 400, "InvalidArgument"),
            "wants Content-MD5": (deletes and "content-md5" not in headers, 400, "InvalidRequest"),
            "no DeleteObjects": (deletes, 501, "NotImplemented"),
            "no CopyObject": (copies, 501, "NotImplemented"),
            "bare etags": (writes and not bare, 412, "PreconditionFailed"),
        }
        for quirk, (applies, status, code) in refused.items():
            if self._has(quirk) and applies:
                return status, code
        return None

    def _alter_conditions(self, headers: dict[str, str]) -> None:
        if self.command in ("PUT", "POST") and self._has("ignores conditions"):
            headers.pop("if-match", None)
            headers.pop("if-none-match", None)
        if self._has("bare etags") and "if-match" in headers:
            headers["if-match"] = f'"{headers["if-match"]}"'

    def _forward(self, headers: dict[str, str], body: bytes) -> None:
        request = AWSRequest(self.command, self.server.backend + self.path, headers, body)
        request.context["payload_signing_enabled"] = True
        self.server.signer.add_auth(request)
        backend = http.client.HTTPConnection(urlsplit(self.server.backend).netloc, timeout=60)
        try:
            backend.request(self.command, self.path, body, dict(request.headers.items()))
            answer = backend.getresponse()
            self._answer(answer.status, answer.getheaders(), self._altered(answer.read()))
        finally:
            backend.close()

    def _altered(self, body: bytes) -> bytes:
        if self._has("reversed listings") and b"<ListBucketResult" in body:
            objects = re.findall(rb"<Contents>.*?</Contents>", body, re.DOTALL)
            body = re.sub(rb"<Contents>.*?</Contents>", lambda _: objects.pop(), body, flags=re.S)
        if b"<CompleteMultipartUploadResult" in body:
            if self._has("empty ETag"):
                body = re.sub(rb"<ETag>.*?</ETag>", b"<ETag></ETag>", body)
            if self._has("error in 200"):
                body = b"<Error><Code>InternalError</Code></Error>"
        return body

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        length = str(len(body))
        for name, value in headers:
            if name.lower() == "content-length" and self.command == "HEAD":
                length = value
            elif name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def running_quirks(endpoint: str, key: str, secret: str, *quirks: str) -> Iterator[QuirkProxy]:
    """A server with `quirks` before the one at `endpoint`, until the block ends."""
    proxy = QuirkProxy(endpoint, Credentials(key, secret), set(quirks))
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()

"""The kinds of requests whose instructions are counted, and a client that asks for one of them again and again."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from harness.process import ProgramFailed

from .site import BODY, ETAG

TIMEOUT_S = 30.0
# A page is stored a moment after its first visitor has it.
SETTLING = 50


@dataclass(frozen=True)
class Kind:
    name: str
    path: str
    status: int
    is_hit: bool = False
    method: str = "GET"
    fields: bytes = b""
    body_bytes: int | None = len(BODY)
    """None: as many as Content-Length says."""

    @property
    def request(self) -> bytes:
        line = f"{self.method} {self.path} HTTP/1.1\r\n"
        return line.encode() + b"Host: example.test\r\nUser-Agent: bench\r\nAccept: */*\r\n" + self.fields + b"\r\n"


KINDS = (
    Kind("hit", "/stored", 200, is_hit=True),
    Kind("hit of HEAD", "/stored", 200, is_hit=True, method="HEAD", body_bytes=0),
    Kind("hit not modified", "/stored", 304, is_hit=True, fields=b"If-None-Match: %b\r\n" % ETAG, body_bytes=0),
    Kind("refused by a limit", "/refused", 429, body_bytes=None),
    Kind("fixed answer", "/fixed", 200),
    Kind("proxied", "/proxied", 200),
)


class Client:
    """One connection, one request at a time: each costs the gateway one wake-up, however slow the machine is."""

    def __init__(self, port: int) -> None:
        self._stream = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
        self._stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        self._stream.close()

    def settle(self, kind: Kind) -> None:
        """Until the answer is of its kind: the first one of a page comes from the origin, the first under a limit is let in."""
        for _ in range(SETTLING):
            self._stream.sendall(kind.request)
            head, _ = self._answer(kind)
            if _is_of(kind, head):
                return
        raise ProgramFailed(f"{kind.name}: got {head.decode(errors='replace')!r}")

    def ask(self, kind: Kind, times: int) -> None:
        for _ in range(times):
            self._stream.sendall(kind.request)
            head, body = self._answer(kind)
            if not _is_of(kind, head) or kind.body_bytes not in (None, len(body)):
                raise ProgramFailed(f"{kind.name}: got {len(body)} bytes and {head.decode(errors='replace')!r}")

    def _answer(self, kind: Kind) -> tuple[bytes, bytes]:
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._receive(kind)
        head, _, body = received.partition(b"\r\n\r\n")
        fields = (line.partition(b":") for line in head.split(b"\r\n")[1:])
        length = next((int(value) for name, _, value in fields if name.lower() == b"content-length"), 0)
        while kind.body_bytes != 0 and len(body) < length:
            body += self._receive(kind)
        return head, body

    def _receive(self, kind: Kind) -> bytes:
        if piece := self._stream.recv(65536):
            return piece
        raise ProgramFailed(f"{kind.name}: the gateway closed the connection")


def _is_of(kind: Kind, head: bytes) -> bool:
    line, *fields = head.split(b"\r\n")
    is_hit = any(field.lower().startswith(b"cache-status:") and b"; hit" in field for field in fields)
    return line.startswith(b"HTTP/1.1 %d " % kind.status) and is_hit == kind.is_hit

"""A small HTTP client of our own: checks an answer before a run, and holds idle connections."""

from __future__ import annotations

import select
import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .cases import Ask, Load
from .process import ProgramFailed

TIMEOUT_S = 10.0
# Requests that a limit of one a minute may give, by some way of counting.
LET_THROUGH = 10
# Far below the range of ephemeral ports that one source address has.
PER_SOURCE_ADDRESS = 5_000


def check(port: int, case: Load) -> str:
    """What the case asks, of a page that was asked for before; returns the TLS version and cipher, "" in plaintext.

    Every proxy must give the same bytes, or the figures compare different work.
    """
    with _connected(port, case.tls) as stream:
        # What answers a HEAD need not be stored.
        _exchange(stream, case.path, Ask.PAGE)
        _check(stream, case.path, case.body_bytes, case.ask)
        return _negotiated(stream)


def check_refused(port: int, path: str, tls: bool) -> str:
    """Requests until one is refused, and one more; returns the same.

    Every proxy must say when to come back, and keep the connection.
    """
    with _connected(port, tls) as stream:
        for _ in range(LET_THROUGH):
            if _exchange(stream, path, Ask.PAGE).status == 429:
                break
        answer = _exchange(stream, path, Ask.PAGE)
        if answer.status != 429 or b"retry-after" not in answer.fields:
            raise ProgramFailed(f"{path}: expected 429 with Retry-After, got {answer.status} with {answer.fields}")
        return _negotiated(stream)


@contextmanager
def idle(port: int, path: str, body_bytes: int, connections: int) -> Iterator[None]:
    """That many connections, each having had one answer, open for the length of the block."""
    held: list[socket.socket] = []
    try:
        for index in range(connections):
            stream = socket.socket()
            held.append(stream)
            stream.settimeout(TIMEOUT_S)
            # A reset instead of TIME_WAIT: the next run needs the ports.
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            stream.bind((f"127.0.0.{2 + index // PER_SOURCE_ADDRESS}", 0))
            stream.connect(("127.0.0.1", port))
            _check(stream, path, body_bytes, Ask.PAGE)
        yield
        _check_open(held)
    finally:
        for stream in held:
            stream.close()


def _connected(port: int, tls: bool) -> socket.socket:
    raw = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
    if not tls:
        return raw
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # The certificate was made for this run; what is checked here is the answer, not a chain.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(raw)


def _negotiated(stream: socket.socket) -> str:
    if not isinstance(stream, ssl.SSLSocket):
        return ""
    cipher = stream.cipher()
    return f"{stream.version()} {cipher[0] if cipher else ''}"


@dataclass(frozen=True)
class _Answer:
    status: int
    fields: dict[bytes, bytes]
    body: bytes


def _check(stream: socket.socket, path: str, body_bytes: int, ask: Ask) -> None:
    """`body_bytes` are those of the page."""
    answer = _exchange(stream, path, ask)
    expected = body_bytes if ask is Ask.PAGE else 0
    if answer.status != ask.status or len(answer.body) != expected:
        raise ProgramFailed(f"{path}: expected {ask.status} and {expected} bytes, got {answer.status} and {len(answer.body)}")
    if ask is Ask.HEAD and answer.fields.get(b"content-length") != b"%d" % body_bytes:
        raise ProgramFailed(f"{path}: expected the Content-Length of the page, got {answer.fields}")
    if ask is not Ask.PAGE:
        return
    alphabet = bytes(range(ord("a"), ord("z") + 1))
    if answer.body != (alphabet * (body_bytes // 26 + 1))[:body_bytes]:
        raise ProgramFailed(f"{path}: the body differs from the origin's")


def _exchange(stream: socket.socket, path: str, ask: Ask) -> _Answer:
    """One request and its answer, whose body, if it has one, is of a length that is told."""
    # As the load generators call it: what is stored for one name is not for another.
    host = f"127.0.0.1:{stream.getpeername()[1]}"
    field = f"{ask.field}\r\n" if ask.field else ""
    try:
        stream.sendall(f"{ask.method} {path} HTTP/1.1\r\nHost: {host}\r\n{field}\r\n".encode())
        received = b""
        while b"\r\n\r\n" not in received:
            received += _receive(stream)
        head, _, body = received.partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        status = int(first.split(b" ")[1])
        if ask is Ask.HEAD or status == 304:
            return _Answer(status, fields, body)
        if b"content-length" not in fields:
            raise ProgramFailed(f"{path}: expected Content-Length, got {head!r}")
        while len(body) < int(fields[b"content-length"]):
            body += _receive(stream)
    except ConnectionError as error:
        raise ProgramFailed(f"{path}: the connection was closed: {error}") from error
    return _Answer(status, fields, body)


def _receive(stream: socket.socket) -> bytes:
    if piece := stream.recv(65536):
        return piece
    raise ConnectionError("before the end of an answer")


def _check_open(held: list[socket.socket]) -> None:
    poll = select.poll()
    for stream in held:
        # Nothing is due on an idle connection: readable means closed or worse.
        poll.register(stream, select.POLLIN)
    if closed := poll.poll(0):
        raise ProgramFailed(f"{len(closed)} of {len(held)} idle connections were closed by the proxy")

"""A small HTTP client of our own: checks an answer before a run, and holds idle connections."""

from __future__ import annotations

import select
import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from .process import ProgramFailed

TIMEOUT_S = 10.0
# Far below the range of ephemeral ports that one source address has.
PER_SOURCE_ADDRESS = 5_000


def check(port: int, path: str, body_bytes: int, tls: bool) -> str:
    """One request; returns the TLS version and cipher, "" in plaintext.

    Every proxy must give the same bytes, or the figures compare different work.
    """
    raw = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
    if not tls:
        with raw:
            _ask(raw, path, body_bytes)
        return ""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # The certificate was made for this run; what is checked here is the answer, not a chain.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with context.wrap_socket(raw) as stream:
        _ask(stream, path, body_bytes)
        cipher = stream.cipher()
        return f"{stream.version()} {cipher[0] if cipher else ''}"


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
            _ask(stream, path, body_bytes)
        yield
        _check_open(held)
    finally:
        for stream in held:
            stream.close()


def _ask(stream: socket.socket, path: str, body_bytes: int) -> None:
    stream.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    received = b""
    while b"\r\n\r\n" not in received:
        if not (piece := stream.recv(65536)):
            raise ProgramFailed(f"{path}: connection closed within the head: {received!r}")
        received += piece
    head, _, received = received.partition(b"\r\n\r\n")
    status, *fields = head.split(b"\r\n")
    length = f"content-length: {body_bytes}".encode()
    if b" 200 " not in status or length not in (field.lower() for field in fields):
        raise ProgramFailed(f"{path}: expected 200 and {length.decode()}, got {head!r}")
    while len(received) < body_bytes:
        if not (piece := stream.recv(65536)):
            raise ProgramFailed(f"{path}: connection closed after {len(received)} bytes of body")
        received += piece
    alphabet = bytes(range(ord("a"), ord("z") + 1))
    if received != (alphabet * (body_bytes // 26 + 1))[:body_bytes]:
        raise ProgramFailed(f"{path}: the body differs from the origin's")


def _check_open(held: list[socket.socket]) -> None:
    poll = select.poll()
    for stream in held:
        # Nothing is due on an idle connection: readable means closed or worse.
        poll.register(stream, select.POLLIN)
    if closed := poll.poll(0):
        raise ProgramFailed(f"{len(closed)} of {len(held)} idle connections were closed by the proxy")

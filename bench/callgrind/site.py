"""What the gateway is given to answer: an origin of one page, and the configuration in front of it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

BODY = b"x" * 1024
ETAG = b'"1"'
ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nCache-Control: public, max-age=3600\r\n"
    b"ETag: %b\r\nContent-Length: %d\r\n\r\n%b" % (ETAG, len(BODY), BODY)
)


@contextmanager
def origin() -> Iterator[int]:
    """Its port. Each answer is one write: how many reads it takes would else depend on the moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_accept, args=(listener,), daemon=True).start()
        yield listener.getsockname()[1]


def _accept(listener: socket.socket) -> None:
    while True:
        try:
            stream, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_answer, args=(stream,), daemon=True).start()


def _answer(stream: socket.socket) -> None:
    received = b""
    with stream:
        while piece := stream.recv(65536):
            received += piece
            while b"\r\n\r\n" in received:
                _, _, received = received.partition(b"\r\n\r\n")
                stream.sendall(ANSWER)


def configuration(port: int, origin_port: int) -> str:
    """A default configuration with one limit, and a route for each kind of answer."""
    return f"""\
[server]
listen = ["127.0.0.1:{port}"]
workers = 1
max_connections = 100
keepalive_requests = 1_000_000
watch = false

[limit.ample]
quota = "1_000_000 per second"
key = "client-ip"

[limit.used-up]
quota = "1 per day"
key = "client-ip"

[upstream.app]
backends = ["127.0.0.1:{origin_port}"]

[cache.policy.pages]

[[route]]
path = "/stored"
upstream = "app"
cache = "pages"
limit = ["ample"]

[[route]]
path = "/proxied"
upstream = "app"
limit = ["ample"]

[[route]]
path = "/refused"
upstream = "app"
limit = ["used-up"]

[[route]]
path = "/fixed"
limit = ["ample"]
[route.respond]
status = 200
body = "{BODY.decode()}"
"""

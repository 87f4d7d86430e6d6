"""The cases: what is asked of every proxy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Load:
    """Closed-loop load: every connection asks again as soon as it has its answer."""

    name: str
    title: str
    path: str
    body_bytes: int
    tls: bool
    h2: bool


@dataclass(frozen=True)
class Idle:
    """Connections that have had one answer each and stay open."""

    name: str
    title: str
    connections: int


Case = Load | Idle

SMALL = ("/1k", 1024)
LARGE = ("/64k", 64 * 1024)

CASES: dict[str, Case] = {
    case.name: case
    for case in (
        Load("proxied-1k", "Proxied, 1 KiB", *SMALL, tls=False, h2=False),
        Load("proxied-64k", "Proxied, 64 KiB", *LARGE, tls=False, h2=False),
        Load("tls-h1-1k", "TLS 1.3, HTTP/1.1, proxied, 1 KiB", *SMALL, tls=True, h2=False),
        Load("tls-h2-1k", "TLS 1.3, HTTP/2, proxied, 1 KiB", *SMALL, tls=True, h2=True),
        Idle("idle-1000", "1,000 idle keep-alive connections", 1_000),
        Idle("idle-10000", "10,000 idle keep-alive connections", 10_000),
    )
}

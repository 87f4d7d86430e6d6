"""The cases: what is asked of every proxy."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Cache(Enum):
    """Where a proxy finds its answers."""

    OFF = "off"
    """Nowhere: the origin is asked each time."""
    MEMORY = "memory"
    """In its own memory; the origin was asked once, before the load."""
    REDIS = "redis"
    """The same of a proxy without a tier in Redis; the others find them there."""


class Limit(Enum):
    """How often a client may ask, as each proxy counts its address."""

    OFF = "off"
    """As often as it likes."""
    AMPLE = "ample"
    """More often than anybody can."""
    USED_UP = "used-up"
    """Once a minute: what is measured are refusals."""


class Ask(Enum):
    """What is wished of the page, and the status that answers it."""

    PAGE = ("GET", "", 200)
    HEAD = ("HEAD", "", 200)
    IF_CHANGED = ("GET", 'If-None-Match: "1"', 304)
    """By who has it already: the origin calls every page that."""

    def __init__(self, method: str, field: str, status: int) -> None:
        self.method = method
        self.field = field
        self.status = status


@dataclass(frozen=True, kw_only=True)
class _Case:
    cache: Cache = Cache.OFF
    limit: Limit = Limit.OFF
    urls: int = 1
    """Asked for in turn; of all of them the answer is the same."""


@dataclass(frozen=True)
class Load(_Case):
    """Closed-loop load, every connection asks again as soon as it has its answer; or open, at a fixed rate."""

    name: str
    title: str
    path: str
    body_bytes: int
    tls: bool
    h2: bool
    ask: Ask = Ask.PAGE
    pace: float | None = None
    """Of what nginx answers at most: the rate at which is asked. None: the load is closed."""

    @property
    def is_refused(self) -> bool:
        return self.limit is Limit.USED_UP

    @property
    def asks_origin(self) -> bool:
        return self.cache is Cache.OFF and not self.is_refused


@dataclass(frozen=True)
class Idle(_Case):
    """Connections that have had one answer each and stay open."""

    name: str
    title: str
    connections: int


Case = Load | Idle

SMALL = ("/1k", 1024)
LARGE = ("/64k", 64 * 1024)
# Far more than a memory tier of 1 MiB holds, and no more files than nginx may have open.
IN_REDIS = 12_000
LARGE_IN_REDIS = 2_000

CASES: dict[str, Case] = {
    case.name: case
    for case in (
        Load("proxied-1k", "Proxied, 1 KiB", *SMALL, tls=False, h2=False),
        Load("proxied-64k", "Proxied, 64 KiB", *LARGE, tls=False, h2=False),
        Load("tls-h1-1k", "TLS 1.3, HTTP/1.1, proxied, 1 KiB", *SMALL, tls=True, h2=False),
        Load("tls-h2-1k", "TLS 1.3, HTTP/2, proxied, 1 KiB", *SMALL, tls=True, h2=True),
        Load("hit-1k", "Hit in memory, 1 KiB", *SMALL, tls=False, h2=False, cache=Cache.MEMORY),
        Load("hit-64k", "Hit in memory, 64 KiB", *LARGE, tls=False, h2=False, cache=Cache.MEMORY),
        Load("hit-head", "Hit in memory, HEAD", *SMALL, tls=False, h2=False, cache=Cache.MEMORY, ask=Ask.HEAD),
        Load("hit-unchanged", "Hit in memory, 304", *SMALL, tls=False, h2=False, cache=Cache.MEMORY, ask=Ask.IF_CHANGED),
        Load("tls-h1-hit-1k", "TLS 1.3, HTTP/1.1, hit in memory, 1 KiB", *SMALL, tls=True, h2=False, cache=Cache.MEMORY),
        Load("tls-h2-hit-1k", "TLS 1.3, HTTP/2, hit in memory, 1 KiB", *SMALL, tls=True, h2=True, cache=Cache.MEMORY),
        Load("redis-hit-1k", "Hit in Redis, 1 KiB", *SMALL, tls=False, h2=False, cache=Cache.REDIS, urls=IN_REDIS),
        Load("redis-hit-64k", "Hit in Redis, 64 KiB", *LARGE, tls=False, h2=False, cache=Cache.REDIS, urls=LARGE_IN_REDIS),
        Load("refused", "Refused by a limit", *SMALL, tls=False, h2=False, limit=Limit.USED_UP),
        Load("tls-h2-refused", "TLS 1.3, HTTP/2, refused by a limit", *SMALL, tls=True, h2=True, limit=Limit.USED_UP),
        Load("limited-hit-1k", "Hit in memory under a limit, 1 KiB", *SMALL, tls=False, h2=False, cache=Cache.MEMORY,
             limit=Limit.AMPLE),
        Load("paced-hit-1k", "Hit in memory under a limit, 1 KiB, at half of what nginx does at most", *SMALL, tls=False,
             h2=False, cache=Cache.MEMORY, limit=Limit.AMPLE, pace=0.5),
        Idle("idle-1000", "1,000 idle keep-alive connections", 1_000),
        Idle("idle-10000", "10,000 idle keep-alive connections", 10_000),
    )
}

"""What a proxy is given to serve, and where."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .cases import Cache, Case, Limit
from .redis import Redis

# Above the largest idle case, for every proxy. Of descriptors a proxy needs that many and a few more:
# idle clients hold none towards the origin.
CONNECTIONS = 12_000
DESCRIPTORS = 16_000
# Of a cache with one answer in it, and of one that holds those of many URLs.
CACHE_MIB = 64
LARGE_CACHE_MIB = 512
# Of a limit that nobody reaches, a second.
AMPLE = 10_000_000


@dataclass(frozen=True)
class Site:
    """What a proxy must serve, and a directory of its own."""

    directory: Path
    memory: Path
    """The same where files are in memory, if the machine has such a place."""
    origin: str
    plain_port: int
    tls_port: int
    certificate: Path
    key: Path
    case: Case
    admin_port: int
    redis: Redis | None
    """For a proxy that has a tier there, in the cases of hits in it."""

    @property
    def caches(self) -> bool:
        return self.case.cache is not Cache.OFF

    @property
    def limits(self) -> bool:
        return self.case.limit is not Limit.OFF

    @property
    def refuses(self) -> bool:
        return self.case.limit is Limit.USED_UP

    @property
    def cache_mib(self) -> int:
        return CACHE_MIB if self.case.urls == 1 else LARGE_CACHE_MIB

    def write(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.write_text(text)
        return path


@dataclass(frozen=True)
class Programs:
    """Where the binaries are."""

    tollgate: Path
    bare: Path
    bare_hit: Path
    bare_limit: Path
    origin: Path
    visitors: Path

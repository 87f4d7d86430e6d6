"""What a proxy is given to serve, and where."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .cases import Cache

# Above the largest idle case, for every proxy. Of descriptors a proxy needs that many and a few more:
# idle clients hold none towards the origin.
CONNECTIONS = 12_000
DESCRIPTORS = 16_000
# Of the caches; the pages of the bench are two.
CACHE_MIB = 64


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
    cache: Cache

    @property
    def caches(self) -> bool:
        return self.cache is not Cache.OFF

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
    origin: Path

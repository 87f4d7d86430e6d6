"""A Redis for one sample. It runs on the core of the load: what it costs is counted apart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .process import Tree, free_port, started


@dataclass(frozen=True)
class Redis:
    port: int
    tree: Tree


@contextmanager
def running(directory: Path, core: int) -> Iterator[Redis]:
    """Empty, and nothing of it is written to disk."""
    port = free_port()
    command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no",
               "--dir", str(directory)]
    with started("Redis", command, core, directory / "redis.log") as tree:
        tree.wait_until_listening(port)
        yield Redis(port, tree)

"""The gateway under callgrind, which counts its instructions."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.process import ProgramFailed, Tree, free_port, started

from .site import configuration

DUMP_DEADLINE_S = 60


class Gateway:
    def __init__(self, tree: Tree, port: int, directory: Path) -> None:
        self.port = port
        self._tree, self._directory, self._dumps = tree, directory, 0

    def instructions(self) -> int:
        """Of all its threads, since this was asked last."""
        (pid,) = self._tree.pids()
        command = ["vgdb", _pipes(self._directory), f"--pid={pid}", "dump"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=DUMP_DEADLINE_S)
        self._dumps += 1
        dump = self._directory / f"counts.{self._dumps}"
        if done.returncode != 0 or not dump.is_file():
            self._tree.check_alive()
            raise ProgramFailed(f"vgdb could not make callgrind write its counts: {done.stderr.strip()}")
        return parse_dump(dump.read_text())


@contextmanager
def running(binary: Path, origin_port: int, directory: Path) -> Iterator[Gateway]:
    port = free_port()
    config = directory / "gateway.toml"
    config.write_text(configuration(port, origin_port))
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={directory}/counts", _pipes(directory),
               str(binary), "run", "--config", str(config)]
    with started("callgrind", command, max(os.sched_getaffinity(0)), directory / "output.log") as tree:
        tree.wait_until_listening(port)
        yield Gateway(tree, port, directory)


def _pipes(directory: Path) -> str:
    """Where callgrind can be spoken to."""
    return f"--vgdb-prefix={directory}/vgdb"


def parse_dump(text: str) -> int:
    found = re.search(r"^totals: (\d+)$", text, re.MULTILINE)
    if not found:
        raise ProgramFailed("callgrind: cannot read its counts")
    return int(found[1])

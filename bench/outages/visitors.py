"""Visitors who ask a gateway at a fixed rate while something is done to Redis."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.process import ProgramFailed

from .servers import preference

SOURCE = Path(__file__).resolve().parents[1] / "outage.rs"


@dataclass(frozen=True, slots=True)
class Answer:
    """`path` is the number of the one that was asked for; times are in microseconds from the beginning of the visit."""

    path: int
    at: int
    latency: int
    # 0: there was none.
    status: int
    is_hit: bool


@dataclass(frozen=True)
class Act:
    """When it began and ended, in microseconds from the beginning of the visit."""

    began: int
    ended: int


@dataclass(frozen=True)
class Visit:
    answers: list[Answer]
    acts: list[Act]


class Visitors:
    """The program they are, and where they come from."""

    def __init__(self, directory: Path, core: int, connections: int) -> None:
        self.program = directory / "outage"
        subprocess.run(["rustc", "-O", "--edition", "2024", "-o", self.program, SOURCE], check=True)
        self._core, self._connections = core, connections

    def visit(self, port: int, paths: Iterable[str], rate: float, seconds: float,
              acts: list[tuple[float, Callable[[], object]]]) -> Visit:
        """Each act begins after its share of the time, or when those before it have ended; rate 0: as fast as answers come."""
        command = ["setpriv", "--pdeathsig", "TERM", "taskset", "-c", str(self._core), *preference(), str(self.program),
                   "visit", f"127.0.0.1:{port}", " ".join(paths), str(rate), str(seconds), str(self._connections)]
        started, acted = time.monotonic(), []
        visiting = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            for share, act in acts:
                time.sleep(max(0.0, started + share * seconds - time.monotonic()))
                began = time.time_ns()
                act()
                acted.append((began, time.time_ns()))
            output, _ = visiting.communicate(timeout=seconds + 60)
        finally:
            visiting.kill()
            visiting.wait()
        first, *lines = output.splitlines()
        begin = int(first)
        answers = [_answer(line) for line in lines]
        if not answers:
            raise ProgramFailed(f"port {port}: nobody has asked")
        return Visit(answers, [Act(began // 1000 - begin, ended // 1000 - begin) for began, ended in acted])


def _answer(line: str) -> Answer:
    path, at, latency, status, hit = map(int, line.split())
    return Answer(path, at, latency, status, bool(hit))


def quartiles(values: list[float]) -> tuple[float, float, float]:
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high

"""System calls per request, by strace, in a run of its own: tracing slows a proxy many times over,
so nothing else of such a run is used."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from .process import ProgramFailed, Tree

ATTACH_DEADLINE_S = 10.0


def count(tree: Tree, report: Path, load: Callable[[], int]) -> dict[str, float]:
    """Calls per request by name, most frequent first. `load` returns how many requests it did."""
    report.unlink(missing_ok=True)
    command = ["strace", "-f", "-c", "-o", str(report)]
    for pid in tree.pids():
        command += ["-p", str(pid)]
    tracer = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait_until_attached(tree, tracer)
        requests = load()
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait()
    return {name: calls / requests for name, calls in parse_strace(report.read_text()).items()}


def _wait_until_attached(tree: Tree, tracer: subprocess.Popen) -> None:
    deadline = time.monotonic() + ATTACH_DEADLINE_S
    while not all(_traced(thread) for thread in tree.threads()):
        if tracer.poll() is not None or time.monotonic() > deadline:
            raise ProgramFailed(f"strace could not attach to {tree.name}")
        time.sleep(0.02)


def _traced(thread: int) -> bool:
    try:
        status = Path(f"/proc/{thread}/status").read_text()
    except FileNotFoundError:
        # A thread that has ended in between needs no tracing.
        return True
    return "TracerPid:\t0\n" not in status


def parse_strace(report: str) -> dict[str, int]:
    """The table of `strace -c`: the fourth column counts calls, the last one names them."""
    calls: dict[str, int] = {}
    for line in report.splitlines():
        fields = line.split()
        if len(fields) >= 5 and fields[3].isdigit() and fields[-1] != "total":
            calls[fields[-1]] = int(fields[3])
    if not calls:
        raise ProgramFailed(f"strace: cannot read its report:\n{report}")
    return dict(sorted(calls.items(), key=lambda item: -item[1]))

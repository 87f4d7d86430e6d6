"""Programs of a run: started on one core, measured as a process tree, ended by pid."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
START_DEADLINE_S = 15.0
STOP_DEADLINE_S = 5.0


class ProgramFailed(Exception):
    """A program of the run did not start, did not stay up, or did not do its work."""


@dataclass(frozen=True)
class Cpu:
    """CPU seconds since the start of a tree or core."""

    user: float
    system: float

    @property
    def total(self) -> float:
        return self.user + self.system

    def __sub__(self, earlier: Cpu) -> Cpu:
        return Cpu(self.user - earlier.user, self.system - earlier.system)


@dataclass(frozen=True)
class _Stat:
    pid: int
    session: int
    cpu: Cpu
    resident_bytes: int


class Tree:
    """One started program and all its processes.

    The program leads a session of its own, so a worker whose parent has gone is still counted.
    """

    def __init__(self, name: str, popen: subprocess.Popen, log: Path) -> None:
        self.name = name
        self.log = log
        self._popen = popen

    def pids(self) -> list[int]:
        return [stat.pid for stat in self._stats()]

    def threads(self) -> list[int]:
        return [int(task.name) for pid in self.pids() for task in Path(f"/proc/{pid}/task").iterdir()]

    def cpu(self) -> Cpu:
        """utime + stime of every live process, with that of the children they have reaped."""
        stats = self._stats()
        return Cpu(sum(s.cpu.user for s in stats), sum(s.cpu.system for s in stats))

    def resident_bytes(self) -> int:
        """Sum of RSS. Pages that master and worker share count twice, before and after alike."""
        return sum(stat.resident_bytes for stat in self._stats())

    def check_alive(self) -> None:
        if self._popen.poll() is not None:
            said = self.log.read_text(errors="replace")[-2000:].strip() or "it said nothing"
            raise ProgramFailed(f"{self.name} ended with code {self._popen.returncode}: {said}")

    def wait_until_listening(self, *ports: int) -> None:
        deadline = time.monotonic() + START_DEADLINE_S
        for port in ports:
            while not _accepts(port):
                self.check_alive()
                if time.monotonic() > deadline:
                    raise ProgramFailed(f"{self.name} does not listen on port {port}; log: {self.log}")
                time.sleep(0.02)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """None of its processes does anything for the length of the block."""
        pids = self.pids()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def stop(self) -> None:
        """SIGTERM to the leader, SIGKILL to whatever of the tree is left after the deadline."""
        if self._popen.poll() is None:
            self._popen.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_DEADLINE_S
        while self.pids() and time.monotonic() < deadline:
            self._popen.poll()
            time.sleep(0.02)
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._popen.wait()

    def _stats(self) -> list[_Stat]:
        return [stat for stat in _all_processes() if stat.session == self._popen.pid]


@contextmanager
def started(name: str, command: list[str], core: int, log: Path) -> Iterator[Tree]:
    """The program, pinned to `core`, for the length of a `with` block."""
    with log.open("ab") as output:
        popen = subprocess.Popen(
            pinned(command, core), stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    tree = Tree(name, popen, log)
    try:
        yield tree
    finally:
        tree.stop()


def pinned(command: list[str], core: int) -> list[str]:
    """On that core alone. It dies with the harness even if that is killed: setpriv asks the kernel for a SIGTERM then."""
    return ["setpriv", "--pdeathsig", "TERM", "taskset", "-c", str(core), *command]


def core_cpu(core: int) -> Cpu:
    """What a core has spent on everything, interrupts included, since boot."""
    for line in Path("/proc/stat").read_text().splitlines():
        label, *fields = line.split()
        if label == f"cpu{core}":
            user, nice, system, _idle, _iowait, irq, softirq, *_ = (
                int(field) / TICKS_PER_SECOND for field in fields
            )
            return Cpu(user + nice, system + irq + softirq)
    raise ProgramFailed(f"no core {core} in /proc/stat")


def raise_descriptor_limit(wanted: int) -> None:
    """For the harness and everything it starts. Above the hard limit only a privileged process may go."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
    except (ValueError, PermissionError) as error:
        raise ProgramFailed(f"the limit of open files is {hard} (ulimit -Hn); needed: {wanted}") from error


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _all_processes() -> Iterator[_Stat]:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            text = (entry / "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        stat = parse_stat(text)
        if stat is not None:
            yield stat


def parse_stat(text: str) -> _Stat | None:
    """One /proc/PID/stat (proc(5)); None for a process that has ended and is not reaped yet."""
    # The name may hold spaces and parentheses: fields are counted after the last one.
    pid = int(text.split(" ", 1)[0])
    fields = text.rpartition(")")[2].split()
    state, session = fields[0], int(fields[3])
    if state in ("Z", "X"):
        return None
    utime, stime, cutime, cstime = (int(field) / TICKS_PER_SECOND for field in fields[11:15])
    return _Stat(pid, session, Cpu(utime + cutime, stime + cstime), int(fields[21]) * PAGE_BYTES)

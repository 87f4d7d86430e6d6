"""Servers of Redis that are killed, stalled, started again and fail over, and whatever else is done to them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from harness.process import ProgramFailed, Tree, free_port, started

# Where that is allowed what is measured goes before other programs: otherwise their time slices would be measured.
PREFERRED = ["chrt", "--rr", "1"]
RECOVERY_S = 30


def run(stack: ExitStack, name: str, command: list[str], core: int, log: Path) -> Tree:
    return stack.enter_context(started(name, [*preference(), *command], core, log))


@cache
def preference() -> list[str]:
    is_allowed = subprocess.run([*PREFERRED, "true"], stderr=subprocess.DEVNULL).returncode == 0
    return PREFERRED if is_allowed else []


class Server:
    """One redis-server, which can be killed and started again on its port."""

    def __init__(self, name: str, core: int, directory: Path, cluster: bool = False) -> None:
        self.port = free_port()
        self._name, self._core = name, core
        self._log = directory / f"{name}.log"
        self._command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly",
                         "no", "--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru", "--dir", str(directory)]
        if cluster:
            self._command += ["--cluster-enabled", "yes", "--cluster-port", str(free_port()), "--cluster-config-file",
                              f"{name}.conf", "--cluster-node-timeout", "1000", "--cluster-replica-validity-factor", "0",
                              "--repl-diskless-sync-delay", "0"]
        self._running = ExitStack()
        self._tree: Tree | None = None
        self.start()

    def start(self) -> None:
        self._tree = run(self._running, self._name, self._command, self._core, self._log)
        self._tree.wait_until_listening(self.port)

    def signal(self, number: int) -> None:
        for pid in self._tree.pids():
            os.kill(pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.close()
        self._tree = None

    def revive(self) -> None:
        """It runs again, after it was killed or stalled."""
        if self._tree is None:
            self.start()
        else:
            self.signal(signal.SIGCONT)

    def close(self) -> None:
        if self._tree is not None:
            with suppress(ProcessLookupError):
                self.signal(signal.SIGCONT)
        self._running.close()

    def serves(self, key: str) -> bool:
        """Whether it is the master of a cluster that has this key."""
        slot = int(self.ask("CLUSTER", "KEYSLOT", key))
        own = next(line for line in self.ask("CLUSTER", "NODES").splitlines() if "myself" in line)
        ranges = [list(map(int, word.split("-"))) for word in own.split()[8:] if not word.startswith("[")]
        return any(one[0] <= slot <= one[-1] for one in ranges)

    def ask(self, *words: str) -> str:
        command = ["redis-cli", "-p", str(self.port), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout.strip()


class Cluster:
    """Three masters, each with a replica."""

    def __init__(self, core: int, directory: Path, stack: ExitStack) -> None:
        self.nodes = []
        for number in range(6):
            self.nodes.append(Server(f"node-{number}", core, directory, cluster=True))
            stack.callback(self.nodes[-1].close)
        addresses = [f"127.0.0.1:{node.port}" for node in self.nodes]
        create = ["redis-cli", "--cluster", "create", *addresses, "--cluster-replicas", "1", "--cluster-yes"]
        subprocess.run(create, check=True, stdout=subprocess.DEVNULL, timeout=60)
        self.wait_until_whole()
        self._killed: Server | None = None

    def choose(self, is_it: Callable[[Server], bool]) -> None:
        """Which master is to be killed."""
        self._killed = next(node for node in self.nodes if "role:master" in node.ask("INFO", "replication") and is_it(node))

    def kill(self) -> None:
        self._killed.kill()

    def kill_a_master(self) -> None:
        self.choose(lambda _: True)
        self.kill()

    def stall(self) -> None:
        self._killed.signal(signal.SIGSTOP)

    def wait_until_taken_over(self) -> None:
        others = [node for node in self.nodes if node is not self._killed]
        # Before the loss is noticed all is well as well, but for the number of masters.
        until("a replica has taken over", lambda: self._masters(others) == 3 and _is_well(others))

    def mend(self) -> None:
        """When a replica has taken over, what was killed or stalled becomes its replica."""
        self.wait_until_taken_over()
        self._killed.revive()
        self.wait_until_whole()

    def wait_until_whole(self) -> None:
        def is_whole() -> bool:
            following = sum("master_link_status:up" in node.ask("INFO", "replication") for node in self.nodes)
            return self._masters(self.nodes) == following == 3 and _is_well(self.nodes)
        until("the cluster is whole", is_whole)

    @staticmethod
    def _masters(nodes: list[Server]) -> int:
        return sum("role:master" in node.ask("INFO", "replication") for node in nodes)


def _is_well(nodes: list[Server]) -> bool:
    told = [node.ask("CLUSTER", "INFO") for node in nodes]
    return all("cluster_state:ok" in one and "cluster_slots_ok:16384" in one for one in told)


@dataclass(frozen=True)
class Outage:
    """What is done to Redis while visitors ask, when, and how all is well again."""

    acts: list[tuple[float, Callable[[], object]]]
    mend: Callable[[], object]
    before: Callable[[], object] = lambda: None
    # It comes back without what was purged, so that nothing in memory is given before it was asked for again.
    forgets: bool = False


def until(what: str, is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + RECOVERY_S
    while not is_so():
        if time.monotonic() > deadline:
            raise ProgramFailed(f"waited {RECOVERY_S} s in vain until {what}")
        time.sleep(0.05)

"""What visitors notice of hits from memory and of misses when Redis is away.

In every round each outage begins, and where that belongs to it ends, while visitors ask at a fixed rate, a third of what
they could ask for; before and after all outages they ask with Redis well. Writes outage.md.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from harness.generate import percentile
from harness.process import ProgramFailed, free_port

from .servers import Cluster, Outage, Server, preference, run, until
from .visitors import Visitors, quartiles

WELL = "Redis well"
DEADLINE_MS = 20
# For who is woken late on a machine with few cores, waits for its turn behind a request that waits, or connects anew.
ALLOWANCE_MS = 5
HITS_RATIO = 1.1
# To keep their moments costs visitors as much again as to ask.
SHARE_OF_MOST = 1 / 3
# So far into a sample an outage begins, or ends.
BEGIN, END = 0.2, 0.6
HIT_PAGES = 64
PATHS = {"hits": f"/hit/{{{HIT_PAGES}}}", "misses": "/miss/PREFIX-{}"}
# A gateway looks every second what was purged.
FORGETTING_S = 2.5


def measure(options: argparse.Namespace) -> bool:
    """Whether all was as it is wanted."""
    report, is_met = _measure(options).report(options)
    (options.out / "outage.md").write_text(report)
    print(report)
    return is_met


@dataclass(frozen=True)
class Sample:
    requests: int
    # Of pages in memory those that were asked of the application again.
    anew: int
    p50_us: float
    p99_us: float


@dataclass
class Fleet:
    """A gateway with its Redis."""

    title: str
    port: int
    admin: int
    outages: dict[str, Outage]
    control: int
    """The port of a gateway that has no Redis: what happens to hits there while the same is done to Redis is the machine's."""

    def wait_until_up(self) -> None:
        def is_up() -> bool:
            # Who asks for it has it tried sooner.
            _get(f"http://127.0.0.1:{self.port}/up/{random.random()}")
            return json.loads(_get(f"http://127.0.0.1:{self.admin}/health")[0])["redis"] == "up"
        until("the gateway has its Redis again", is_up)

    def wait_until_forgotten(self) -> None:
        """Until the pages in memory were given up, which may have been before, and are there again."""
        deadline = time.monotonic() + FORGETTING_S
        pages = [f"http://127.0.0.1:{self.port}/hit/{number}" for number in range(HIT_PAGES)]
        while _get(pages[0], host="bench.example")[1] == "HIT" and time.monotonic() < deadline:
            time.sleep(0.02)
        for page in pages:
            _get(page, host="bench.example")


@dataclass
class Run:
    rates: dict[str, float] = field(default_factory=dict)
    # By kind, fleet and outage, one of each round.
    samples: dict[tuple[str, str, str], list[Sample]] = field(default_factory=lambda: defaultdict(list))
    # The same of gateways without a Redis.
    controls: dict[tuple[str, str, str], list[Sample]] = field(default_factory=lambda: defaultdict(list))

    def report(self, options: argparse.Namespace) -> tuple[str, bool]:
        version = subprocess.run([options.tollgate, "version"], capture_output=True, text=True).stdout.split()
        requests = sum(sample.requests for samples in self.samples.values() for sample in samples)
        lines = [
            "# Hits and misses while Redis is away", "",
            f"{datetime.now(UTC):%Y-%m-%d %H:%M UTC}; Tollgate {version[-1] if version else '?'} on one core, visitors, origin "
            f"and Redis on another; `deadline` {DEADLINE_MS} ms; {self.rates['hits']:,.0f} hits or {self.rates['misses']:,.0f} "
            f"misses a second over {options.connections} connections, {'before other programs' if preference() else 'beside other programs'}; medians of {options.rounds} interleaved rounds with samples "
            f"of {options.seconds} s; load of the machine at the end {os.getloadavg()[0]:.1f}. Made by `bench/outage`.", "",
            f"All of {requests:,} requests were answered with 200.", "",
        ]
        is_met = True
        for kind in PATHS:
            header = "p99 to p99 of a gateway without Redis meanwhile (quartiles)" if kind == "hits" else "p99 more than well (quartiles)"
            anew = " asked anew |" if kind == "hits" else ""
            lines += [f"| {kind} | p50 | p99 | {header} | |{anew}", "|---|---:|---:|---:|---|" + "---:|" * bool(anew)]
            for (of_kind, fleet, outage), samples in self.samples.items():
                if of_kind == kind:
                    line, is_well = self._line(kind, fleet, outage, samples)
                    lines.append(line)
                    is_met &= is_well
            lines.append("")
        lines.append(f"Wanted: hits at most {HITS_RATIO} times, misses at most {DEADLINE_MS} ms, the deadline, and "
                     f"{ALLOWANCE_MS} ms for scheduling more: {'met' if is_met else 'missed'}.")
        return "\n".join(lines) + "\n", is_met

    def _line(self, kind: str, fleet: str, outage: str, samples: list[Sample]) -> tuple[str, bool]:
        p50 = statistics.median(sample.p50_us for sample in samples)
        p99 = statistics.median(sample.p99_us for sample in samples)
        start = f"| {fleet}: {outage} | {p50 / 1e3:.2f} ms | {p99 / 1e3:.2f} ms |"
        anew = f" {statistics.median(sample.anew for sample in samples):.0f} |" if kind == "hits" else ""
        if outage == WELL:
            return f"{start} | |{anew}", True
        # Two of each round, before and after.
        well = self.samples[kind, fleet, WELL]
        pairs = zip(samples, zip(well[::2], well[1::2], strict=True), strict=True)
        pairs = [(sample.p99_us, statistics.mean(one.p99_us for one in both)) for sample, both in pairs]
        if kind == "hits":
            controls = self.controls[kind, fleet, outage]
            both = zip(samples, controls, strict=True)
            low, middle, high = quartiles([sample.p99_us / control.p99_us for sample, control in both])
            is_well = middle <= HITS_RATIO
            told = f"{middle:.2f} ({low:.2f} to {high:.2f})"
        else:
            low, middle, high = quartiles([(sample - well) / 1e3 for sample, well in pairs])
            is_well = middle <= DEADLINE_MS + ALLOWANCE_MS
            told = f"{middle:+.1f} ms ({low:+.1f} to {high:+.1f})"
        return f"{start} {told} | {'met' if is_well else 'missed'} |{anew}", is_well


def _measure(options: argparse.Namespace) -> Run:
    cores = sorted(os.sched_getaffinity(0))
    load_core, gateway_core = cores[0], cores[-1]
    measured, order = Run(), random.Random(options.seed)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tollgate-outage-")))
        visitors = Visitors(directory, load_core, options.connections)
        origin_port = free_port()
        origin = [str(visitors.program), "origin", f"127.0.0.1:{origin_port}"]
        tree = run(stack, "origin", origin, load_core, directory / "origin.log")
        tree.wait_until_listening(origin_port)
        single = Server("redis", load_core, directory)
        stack.callback(single.close)
        cluster = Cluster(load_core, directory, stack)
        fleets = []
        for title, ports, outages in (
            ("one server", [single.port], _outages_of(single)),
            ("cluster", [node.port for node in cluster.nodes],
             {"a master killed, its replica takes over": Outage([(BEGIN, cluster.kill_a_master)], cluster.mend)}),
        ):
            outages = {name: outage for name, outage in outages.items() if options.only in name}
            if not outages:
                continue
            fleet = Fleet(title, free_port(), free_port(), outages, free_port())
            for port, admin, nodes in ((fleet.port, fleet.admin, ports), (fleet.control, free_port(), [])):
                config = directory / f"{port}.toml"
                config.write_text(_config(port, admin, origin_port, nodes))
                command = [str(options.tollgate.resolve()), "run", "--config", str(config)]
                tree = run(stack, f"tollgate, {title}", command, gateway_core, directory / f"{port}.log")
                tree.wait_until_listening(port, admin)
            fleet.wait_until_up()
            fleets.append(fleet)
        visit = _Visits(visitors, options.seconds)
        for kind in PATHS:
            visit(kind, fleets[0].port, 0, [])
            measured.rates[kind] = visit(kind, fleets[0].port, 0, []).requests / options.seconds * SHARE_OF_MOST
        for port in [fleet.control for fleet in fleets] + [fleet.port for fleet in fleets[1:]]:
            visit("hits", port, 0, [])
        for number in range(options.rounds):
            for fleet in order.sample(fleets, len(fleets)):
                steps = [(kind, outage) for kind in PATHS for outage in fleet.outages]
                well = [(kind, WELL) for kind in PATHS]
                for kind, outage in well + order.sample(steps, len(steps)) + well:
                    acts = fleet.outages[outage].acts if outage != WELL else []
                    visited = [(measured.samples, fleet.port)]
                    if kind == "hits" and outage != WELL:
                        visited.append((measured.controls, fleet.control))
                    for samples, port in order.sample(visited, len(visited)):
                        sample = visit(kind, port, measured.rates[kind], acts)
                        samples[kind, fleet.title, outage].append(sample)
                        if outage != WELL:
                            fleet.outages[outage].mend()
                            fleet.wait_until_up()
                            if fleet.outages[outage].forgets:
                                fleet.wait_until_forgotten()
                        of = "" if port == fleet.port else " (control)"
                        print(f"{number + 1}: {kind}, {fleet.title}, {outage}{of}: p99 {sample.p99_us / 1e3:.2f} ms", file=sys.stderr)
    return measured


def _outages_of(redis: Server) -> dict[str, Outage]:
    def fill() -> None:
        redis.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
        redis.ask("CONFIG", "SET", "maxmemory", "1")

    def empty() -> None:
        redis.ask("CONFIG", "SET", "maxmemory", "64mb")
        redis.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")

    def flush() -> None:
        redis.ask("FLUSHALL")

    return {
        "refused": Outage([(BEGIN, redis.kill)], redis.start, forgets=True),
        "stalled": Outage([(BEGIN, lambda: redis.signal(signal.SIGSTOP))], lambda: redis.signal(signal.SIGCONT)),
        "killed and restarted": Outage([(BEGIN, redis.kill), (END, redis.start)], lambda: None, forgets=True),
        "FLUSHALL, twice": Outage([(BEGIN, flush), (END, flush)], lambda: None),
        "maxmemory reached": Outage([(BEGIN, fill)], empty),
    }


class _Visits:
    """Samples, of pages that nobody has asked for before."""

    def __init__(self, visitors: Visitors, seconds: float) -> None:
        self._visitors, self._seconds = visitors, seconds
        self._count = 0

    def __call__(self, kind: str, port: int, rate: float, acts: list[tuple[float, Callable[[], object]]]) -> Sample:
        self._count += 1
        path = PATHS[kind].replace("PREFIX", str(self._count))
        answers = self._visitors.visit(port, [path], rate, self._seconds, acts).answers
        if wrong := [answer.status for answer in answers if answer.status != 200]:
            raise ProgramFailed(f"{kind}, port {port}: of {len(answers)} requests {len(wrong)} had another status than 200, "
                                f"{wrong.count(0)} of them no answer")
        hits = sorted(answer.latency for answer in answers if answer.is_hit)
        others = sorted(answer.latency for answer in answers if not answer.is_hit)
        counted, anew = (hits, len(others)) if kind == "hits" else (others, 0)
        if not counted:
            raise ProgramFailed(f"port {port}: none of {len(answers)} requests was of the {kind}")
        return Sample(len(answers), anew, percentile(counted, 50), percentile(counted, 99))


def _config(port: int, admin: int, origin_port: int, redis_ports: list[int]) -> str:
    nodes = ", ".join(f'"redis://127.0.0.1:{port}"' for port in redis_ports)
    redis = f'[redis]\nnodes = [{nodes}]\ndeadline = "{DEADLINE_MS}ms"' if nodes else ""
    return f"""
[server]
workers = 1
listen = ["127.0.0.1:{port}"]
[admin]
listen = "127.0.0.1:{admin}"
token = "a-token-of-the-bench"
{redis}
[upstream.app]
backends = ["127.0.0.1:{origin_port}"]
[cache.policy.pages]
[[route]]
upstream = "app"
cache = "pages"
"""


def _get(url: str, host: str = "localhost") -> tuple[bytes, str | None]:
    """The body, and what became of it in the cache."""
    request = urllib.request.Request(url, headers={"Host": host})
    with urllib.request.urlopen(request, timeout=5) as answer:
        return answer.read(), answer.headers["X-Cache"]

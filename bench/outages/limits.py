"""What clients notice of shared limits: beside the same limits of one gateway, with Redis well and through every outage.

There are two gateways that share a Redis, so that a fair share is half of a quota, and one alone, the control, with the
same limits to itself: to its visitors the same happens. Writes limits-shared.md.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from harness.generate import percentile
from harness.process import ProgramFailed, free_port

from .servers import Cluster, Outage, Server, preference, run, until
from .visitors import Answer, Visit, Visitors, quartiles

WELL = "Redis well"
DEADLINE_MS = 20
# What is asked for in a second, by all clients together.
RATE = 6000
WELL_S = 4.0
# Of these not: whoever comes first must ask.
FIRST_S = 0.5
# Of a cluster the servers are asked one after the other: the gateways find out sooner.
FOUND_OUT_S = 0.5
# After an outage, until nothing is left of it.
SETTLED_S = 1.5
OUTAGE_S = 6.0
# So far into a sample an outage begins, and ends.
BEGIN, END = 0.1, 0.45
RATIO = 1.05
ALLOWANCE_MS = 5
NOTICED_S = 1.0
# A request that was as slow has waited for Redis; or something else has held up the machine, which the control shows.
WAITED_US = DEADLINE_MS * 750
TOKEN = "a-token-of-the-bench-0123456789"
GATEWAYS = 2
# The key by whose slot in a cluster a gateway finds out whether Redis is there.
HEARTBEATS = "tollgate:{limit}:gateways"
MEASURABLE_US = 500_000

AMPLE = "6000 per second, burst 12000"
TIGHT_PER_S = 300
QUOTAS = {
    "fair": ("fair-share", AMPLE),
    "open": ("open", AMPLE),
    "closed": ("closed", AMPLE),
    "tight": ("fair-share", f"{TIGHT_PER_S} per second, burst {TIGHT_PER_S}"),
    "few": ("fair-share", "10 per second, burst 20"),
    "empty": ("open", "1 per hour"),
}
HEAVY, SMALL, NEW = "key=heavy", "key={100}", "key=PREFIX-{}"
LOADS = {
    "one heavy client and a hundred small ones, all let in": [f"/fair?{HEAVY}", f"/fair?{SMALL}"],
    "the same, most of them refused": [f"/tight?{HEAVY}", f"/few?{SMALL}"],
    "clients of whom nobody has heard, all let in": [f"/fair?{NEW}"],
}
# Each request asks Redis there: what that takes is told, and not judged.
TOLD_ONLY = "clients of whom nobody has heard, all let in"
DURING = [f"/fair?{HEAVY}", f"/fair?{SMALL}", f"/fair?{NEW}", f"/open?{HEAVY}", f"/open?{SMALL}", f"/closed?{HEAVY}",
          f"/closed?{SMALL}", f"/empty?{HEAVY}", f"/tight?{HEAVY}"]
CLOSED = [number for number, path in enumerate(DURING) if path.startswith("/closed")]
EMPTY = [number for number, path in enumerate(DURING) if path.startswith("/empty")]
ALL = list(range(len(DURING)))
TIGHT = [number for number, path in enumerate(DURING) if path.startswith("/tight")]


@dataclass(frozen=True)
class Case:
    """An outage, and at which of its acts Redis goes and is back."""

    outage: Outage
    # `None`: it is away from the beginning.
    goes: int | None
    is_back: int
    # Redis is back when that act has ended, not when it begins.
    takes_over: bool = False
    # Of all limits: not of those alone whose buckets lie on the server that was lost, and whose leases are spent.
    is_of_all: bool = True


@dataclass(frozen=True)
class Sample:
    """Times in milliseconds."""

    statuses: Counter
    p50: float
    p99: float
    longest: float = 0.0
    # From the fault until the last request that waited for Redis.
    waited: float = 0.0
    # From the fault: the first request that was decided by the policy, the last that was not.
    closed: tuple[float | None, float] | None = None
    opened: tuple[float | None, float] | None = None
    # From the fault until Redis was back.
    away: float = 0.0
    # From its return until the last request that was decided without it.
    left: float = 0.0
    # Of its quota, what a client was let in who asks for more: without Redis, and after.
    share: float | None = None
    share_after: float | None = None


@dataclass
class Fleet:
    """A gateway with shared limits, and one with its own."""

    title: str
    shared: int
    control: int
    admins: list[int]
    cases: dict[str, Case]

    def wait_until_up(self) -> None:
        until("all gateways have their Redis again", lambda: all(
            _metric(admin, "tollgate_limit_store_away") == 0 and _metric(admin, "tollgate_limit_gateways") == GATEWAYS
            for admin in self.admins))

    def wait_until_away(self) -> None:
        until("all gateways do without Redis", lambda: all(
            _metric(admin, "tollgate_limit_store_away") == 1 for admin in self.admins))


@dataclass
class Run:
    # By what is asked for, of both gateways in each round.
    well: dict[str, list[tuple[Sample, Sample]]] = field(default_factory=lambda: defaultdict(list))
    # By fleet and outage.
    away: dict[tuple[str, str], list[tuple[Sample, Sample]]] = field(default_factory=lambda: defaultdict(list))
    # Without any request, in milliseconds: until a stalled Redis is taken for away, and until it is back.
    idle: list[tuple[float, float]] = field(default_factory=list)

    def report(self, options: argparse.Namespace) -> tuple[str, bool]:
        version = subprocess.run([options.tollgate, "version"], capture_output=True, text=True).stdout.split()
        pairs = [pair for pairs in (*self.well.values(), *self.away.values()) for pair in pairs]
        statuses = sum((sample.statuses for pair in pairs for sample in pair), Counter())
        told = ", ".join(f"{count:,} with {status}" for status, count in sorted(statuses.items()))
        verdicts = [set(statuses) <= {200, 429}]
        lines = [
            "# Shared limits beside local ones, and while Redis is away", "",
            f"{datetime.now(UTC):%Y-%m-%d %H:%M UTC}; Tollgate {version[-1] if version else '?'}: gateways on one core, visitors "
            f"and Redis on another; `deadline` {DEADLINE_MS} ms, the default; {RATE:,} requests a second over "
            f"{options.connections} connections, with Redis well half of them of each gateway at the same time, {'before' if preference() else 'beside'} other programs; {options.rounds} "
            f"interleaved rounds; load of the machine at the end {os.getloadavg()[0]:.1f}. Made by `bench/outage limits`.", "",
            f"Of {sum(statuses.values()):,} requests {told} were answered{'' if verdicts[0] else ': missed'}.", "",
        ]
        if self.well:
            lines += [f"| {WELL} | p50 local | p50 shared | p99 local | p99 shared | p99 shared to local (quartiles) | |",
                      "|---|---:|---:|---:|---:|---:|---|"]
            for load, pairs in self.well.items():
                medians = [statistics.median(getattr(pair[which], what) for pair in pairs)
                           for what in ("p50", "p99") for which in (1, 0)]
                ratios = quartiles([shared.p99 / local.p99 for shared, local in pairs])
                verdict = "told only" if load == TOLD_ONLY else self._judge(verdicts, ratios[1] <= RATIO)
                cells = " | ".join(f"{value:.2f} ms" for value in medians)
                lines.append(f"| {load} | {cells} | {ratios[1]:.2f} ({ratios[0]:.2f} to {ratios[2]:.2f}) | {verdict} |")
            lines.append("")
        if self.away:
            lines += self._of_outages(verdicts)
        if self.idle:
            noticed, back = (max(times) for times in zip(*self.idle, strict=True))
            verdict = self._judge(verdicts, max(noticed, back) <= NOTICED_S * 1e3)
            lines += ["", f"Without any request a stalled Redis was taken for away after {noticed:.0f} ms at most, and for back "
                      f"after {back:.0f} ms: {verdict}."]
        is_met = all(verdicts)
        lines += ["", f"Wanted: with Redis well a p99 of at most {RATIO} times that of the local limit; no other status than 200 and 429; "
                  f"from the fault on, less than {ALLOWANCE_MS} ms more; the policy observed within {NOTICED_S:.0f} s, and left "
                  f"within {NOTICED_S:.0f} s: {'met' if is_met else 'missed'}."]
        return "\n".join(lines) + "\n", is_met

    def _of_outages(self, verdicts: list[bool]) -> list[str]:
        lines = ["| from the fault on | p50 | p99 | p99 of the control | more (quartiles) | | longest | waited until |",
                 "|---|---:|---:|---:|---:|---|---:|---:|"]
        for (fleet, name), pairs in self.away.items():
            shared = [pair[0] for pair in pairs]
            more = quartiles([one.p99 - control.p99 for one, control in pairs])
            control = statistics.median(control.p99 for _, control in pairs)
            waited = statistics.median(one.waited for one in shared)
            verdict = self._judge(verdicts, more[1] < ALLOWANCE_MS and waited <= NOTICED_S * 1e3)
            p50, p99, longest = (statistics.median(getattr(one, what) for one in shared) for what in ("p50", "p99", "longest"))
            lines.append(f"| {fleet}: {name} | {p50:.2f} ms | {p99:.2f} ms | {control:.2f} ms | {more[1]:+.2f} ms "
                         f"({more[0]:+.2f} to {more[2]:+.2f}) | {verdict} | {longest:.0f} ms | {waited:.0f} ms |")
        lines += ["", "| the longest of all rounds | `closed` from | until all were | `open` from | until all were | Redis away for "
                  "| left after | | `fair-share` lets in | after |", "|---|---:|---:|---:|---:|---:|---:|---|---:|---:|"]
        for (fleet, name), pairs in self.away.items():
            case = [pair[0] for pair in pairs]
            times = [time for which in ("closed", "opened") for time in _longest(case, which)]
            left = max(one.left for one in case)
            verdict = self._judge(verdicts, all(time <= NOTICED_S * 1e3 for time in [*filter(None, times), left]))
            shares = [_median(getattr(one, what) for one in case) for what in ("share", "share_after")]
            away = statistics.median(one.away for one in case)
            cells = [*(f"{time:.0f} ms" if time is not None else "" for time in times), f"{away:.0f} ms", f"{left:.0f} ms",
                     verdict, *(f"{share:.0%}" if share is not None else "" for share in shares)]
            lines.append(f"| {fleet}: {name} | " + " | ".join(cells) + " |")
        return lines

    @staticmethod
    def _judge(verdicts: list[bool], is_met: bool) -> str:
        verdicts.append(is_met)
        return "met" if is_met else "missed"


def measure(options: argparse.Namespace) -> bool:
    """Whether all was as it is wanted."""
    report, is_met = _measure(options).report(options)
    (options.out / "limits-shared.md").write_text(report)
    print(report)
    return is_met


def _measure(options: argparse.Namespace) -> Run:
    cores = sorted(os.sched_getaffinity(0))
    load_core, gateway_core = cores[0], cores[-1]
    measured, order = Run(), random.Random(options.seed)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tollgate-limits-")))
        visits = _Visits(Visitors(directory, load_core, options.connections))
        single, cluster = Server("redis", load_core, directory), Cluster(load_core, directory, stack)
        stack.callback(single.close)
        fleets = []
        for title, nodes, cases in (("one server", [single], _cases_of(single)),
                                    ("cluster", cluster.nodes, _cases_of_cluster(cluster))):
            cases = {name: case for name, case in cases.items() if options.only in name}
            if not cases and fleets:
                continue
            start = _Start(stack, options.tollgate.resolve(), gateway_core, directory)
            gateways = [start(f"tollgate, {title}", [node.port for node in nodes]) for _ in range(GATEWAYS)]
            control, _ = start("tollgate, the control", [])
            fleets.append(Fleet(title, gateways[0][0], control, [admin for _, admin in gateways], cases))
            fleets[-1].wait_until_up()
        for number in range(options.rounds):
            if options.only in WELL:
                measured.idle.append(_idle(single, fleets[0]))
                for load in order.sample(sorted(LOADS), len(LOADS)):
                    pair = visits.well(fleets[0], LOADS[load])
                    measured.well[load].append(pair)
                    print(f"{number + 1}: {load}: p99 {pair[0].p99:.2f}, local {pair[1].p99:.2f} ms", file=sys.stderr)
            for fleet in fleets:
                for name in order.sample(sorted(fleet.cases), len(fleet.cases)):
                    pair = _pair(order, fleet, lambda port: visits.away(port, fleet, fleet.cases[name]))
                    measured.away[fleet.title, name].append(pair)
                    print(f"{number + 1}: {fleet.title}, {name}: {pair[0]}; control: p99 {pair[1].p99:.2f} ms", file=sys.stderr)
    return measured


def _pair(order: random.Random, fleet: Fleet, sample: Callable[[int], Sample]) -> tuple[Sample, Sample]:
    """Of the shared limits and of the control, whichever comes first."""
    ports = [fleet.shared, fleet.control]
    samples = {port: sample(port) for port in order.sample(ports, len(ports))}
    return samples[fleet.shared], samples[fleet.control]


def _cases_of(redis: Server) -> dict[str, Case]:
    def stall() -> None:
        redis.signal(signal.SIGSTOP)

    def resume() -> None:
        redis.signal(signal.SIGCONT)

    def nothing() -> None:
        pass

    return {
        "refused from the beginning": Case(Outage([(END, redis.start)], nothing, before=redis.kill), None, 0),
        "stalled": Case(Outage([(BEGIN, stall), (END, resume)], nothing), 0, 1),
        "killed, and started later": Case(Outage([(BEGIN, redis.kill), (END, redis.start)], nothing), 0, 1),
        "killed and started at once": Case(Outage([(BEGIN, redis.kill), (BEGIN, redis.start)], nothing), 0, 1),
    }


def _cases_of_cluster(cluster: Cluster) -> dict[str, Case]:
    def case(act: Callable[[], object], has_heartbeats: bool) -> Case:
        def choose() -> None:
            cluster.choose(lambda node: node.serves(HEARTBEATS) == has_heartbeats)

        acts = [(BEGIN, act), (BEGIN, cluster.wait_until_taken_over)]
        return Case(Outage(acts, cluster.mend, before=choose), 0, 1, takes_over=True, is_of_all=has_heartbeats)

    return {
        "the master of the heartbeats killed, its replica takes over": case(cluster.kill, True),
        "another master killed, its replica takes over": case(cluster.kill, False),
        "another master stalled, its replica takes over": case(cluster.stall, False),
    }


class _Visits:
    """Samples, in each of which unknown clients are others than before."""

    def __init__(self, visitors: Visitors) -> None:
        self._visitors = visitors
        self._count = 0

    def well(self, fleet: Fleet, load: list[str]) -> tuple[Sample, Sample]:
        """Of both gateways at the same time, each with half of the requests: what disturbs one disturbs the other."""
        with ThreadPoolExecutor() as pool:
            both = pool.map(lambda port: self._visit(port, load, RATE / 2, WELL_S, []).answers, [fleet.shared, fleet.control])
            shared, control = (_sample([answer for answer in answers if answer.at >= FIRST_S * 1e6], answers) for answers in both)
        return shared, control

    def away(self, port: int, fleet: Fleet, case: Case) -> Sample:
        case.outage.before()
        if case.goes is None:
            fleet.wait_until_away()
        visit = self._visit(port, DURING, RATE, OUTAGE_S, case.outage.acts)
        case.outage.mend()
        fleet.wait_until_up()
        time.sleep(SETTLED_S)
        return _sample_of_outage(visit, case)

    def _visit(self, port: int, load: list[str], rate: float, seconds: float,
               acts: list[tuple[float, Callable[[], object]]]) -> Visit:
        self._count += 1
        paths = [path.replace("PREFIX", str(self._count)) for path in load]
        return self._visitors.visit(port, paths, rate, seconds, acts)


def _sample(counted: list[Answer], answers: list[Answer]) -> Sample:
    latencies = sorted(answer.latency for answer in counted)
    p50, p99, longest = (percentile(latencies, percent) / 1e3 for percent in (50, 99, 100))
    return Sample(Counter(answer.status for answer in answers), p50, p99, longest)


def _sample_of_outage(visit: Visit, case: Case) -> Sample:
    fault = 0 if case.goes is None else visit.acts[case.goes].began
    act = visit.acts[case.is_back]
    back = act.ended if case.takes_over else act.began
    sample = _sample([answer for answer in visit.answers if answer.at >= fault], visit.answers)

    def during(paths: list[int], begin: float, end: float = float("inf")) -> list[Answer]:
        return [answer for answer in visit.answers if answer.path in paths and begin <= answer.at < end]

    def turned(paths: list[int], status: int) -> tuple[float | None, float] | None:
        """From the fault: when the first had this status, and the last another."""
        if case.goes is None or not case.is_of_all:
            return None
        seen = during(paths, fault, back - case.takes_over * FOUND_OUT_S * 1e6)
        first = min((answer.at + answer.latency for answer in seen if answer.status == status), default=None)
        last = max((answer.at + answer.latency for answer in seen if answer.status != status), default=fault)
        return (None if first is None else (first - fault) / 1e3, (last - fault) / 1e3)

    def let_in(begin: float, end: float) -> float | None:
        """Of its quota, where that is long enough to be told."""
        if end - begin < MEASURABLE_US or not case.is_of_all:
            return None
        admitted = sum(answer.status == 200 for answer in during(TIGHT, begin, end))
        return admitted / (TIGHT_PER_S * (end - begin) / 1e6)

    waited = [answer.at + answer.latency for answer in during(ALL, fault, back) if answer.latency >= WAITED_US]
    late = [answer.at for answer in during(CLOSED, back) if answer.status == 429]
    late += [answer.at for answer in during(EMPTY, back) if answer.status == 200]
    return replace(
        sample,
        waited=(max(waited, default=fault) - fault) / 1e3,
        closed=turned(CLOSED, 429),
        opened=turned(EMPTY, 200),
        away=(back - fault) / 1e3,
        left=(max(late, default=back) - back) / 1e3,
        share=let_in(fault + NOTICED_S * 1e6, back),
        share_after=let_in(back + NOTICED_S * 1e6, OUTAGE_S * 1e6),
    )


def _idle(redis: Server, fleet: Fleet) -> tuple[float, float]:
    began = time.monotonic()
    redis.signal(signal.SIGSTOP)
    fleet.wait_until_away()
    noticed = time.monotonic()
    redis.signal(signal.SIGCONT)
    resumed = time.monotonic()
    fleet.wait_until_up()
    return (noticed - began) * 1e3, (time.monotonic() - resumed) * 1e3


class _Start:
    """Starts gateways on one core."""

    def __init__(self, stack: ExitStack, program: Path, core: int, directory: Path) -> None:
        self._stack, self._program, self._core, self._directory = stack, program, core, directory

    def __call__(self, name: str, redis_ports: list[int]) -> tuple[int, int]:
        """The port, and that of the administration; without a Redis limits are its own."""
        port, admin = free_port(), free_port()
        config = self._directory / f"{port}.toml"
        config.write_text(_config(port, admin, redis_ports))
        command = [str(self._program), "run", "--config", str(config)]
        tree = run(self._stack, name, command, self._core, self._directory / f"{port}.log")
        tree.wait_until_listening(port, admin)
        return port, admin


def _config(port: int, admin: int, redis_ports: list[int]) -> str:
    nodes = ", ".join(f'"redis://127.0.0.1:{port}"' for port in redis_ports)
    limits = [f"""
[limit.{name}]
quota = "{quota}"
key = "query:key"
{f'share = "all-gateways"{chr(10)}when_store_is_away = "{when_away}"' if nodes else ''}
[[route]]
path = "/{name}"
respond = {{ body = "ok" }}
limit = ["{name}"]
""" for name, (when_away, quota) in QUOTAS.items()]
    return f"""
[server]
workers = 1
listen = ["127.0.0.1:{port}"]
[admin]
listen = "127.0.0.1:{admin}"
token = "{TOKEN}"
{f'[redis]{chr(10)}nodes = [{nodes}]' if nodes else ''}
[limits]
secret = "a-secret-of-the-bench-0123456789"
{''.join(limits)}"""


def _metric(admin: int, name: str) -> int:
    request = urllib.request.Request(f"http://127.0.0.1:{admin}/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    with urllib.request.urlopen(request, timeout=5) as answer:
        text = answer.read().decode()
    return int(re.search(rf"^{name} (\d+)$", text, re.MULTILINE)[1])


def _longest(samples: list[Sample], which: str) -> list[float | None]:
    """Of the first by the policy, and of the last that was not."""
    both = [getattr(sample, which) or (None, None) for sample in samples]
    return [max((time for time in times if time is not None), default=None) for times in zip(*both, strict=True)]


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None

"""One measurement: a fresh proxy, one case, one sample."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from . import client, generate, redis, syscalls, tollgate
from .cases import SMALL, Cache, Case, Idle, Load
from .process import Cpu, ProgramFailed, Tree, core_cpu, free_port, started
from .proxies import Proxy
from .site import Programs, Site

WARM_UP_S = 1
# A warm-up that has not been enough is followed by another one, at most this often.
WARM_UPS = 8
# In the last of them each URL is asked for so often.
ASKED = 2
# RSS is read again until two readings agree, at most this often.
SETTLE_READINGS = 10
SETTLE_PAUSE_S = 0.2


@dataclass(frozen=True)
class Bench:
    """What stays the same for all samples of a run."""

    programs: Programs
    directory: Path
    memory: Path
    origin: str
    origin_tree: Tree
    certificate: Path
    key: Path
    proxy_core: int
    load_core: int
    seconds: int
    connections: int
    rates: dict[str, float] = field(default_factory=dict)
    """A second, of the cases whose load is open."""


@dataclass(frozen=True)
class RedisUse:
    """Of a sample of hits in Redis."""

    cpu_us: float
    """CPU µs per request of Redis itself."""
    part: float
    """Of all answers, those that came from it."""


@dataclass(frozen=True)
class LoadSample:
    cpu_us: float
    """CPU µs per request of the proxy's process tree, user and system."""
    system_us: float
    """The part of `cpu_us` spent in the kernel."""
    per_second: float
    p50_us: float
    p99_us: float
    rss_mib: float
    """RSS of the tree at the end of the run."""
    busy: float
    """Share of its core that the proxy used: below 1 the load side was the limit."""
    foreign: float
    """Share of the proxy's core used by anything else: noise."""
    tls: str
    redis: RedisUse | None


@dataclass(frozen=True)
class IdleSample:
    kib_each: float
    """(RSS with the connections − RSS before) / connections."""
    base_mib: float
    held_mib: float


Sample = LoadSample | IdleSample


def take(bench: Bench, proxy: Proxy, case: Case) -> Sample:
    match case:
        case Load():
            return _take_load(bench, proxy, case)
        case Idle():
            return _take_idle(bench, proxy, case)


def saturation(bench: Bench, proxy: Proxy, case: Load) -> float:
    """How many of the requests of an open load the proxy answers a second, when each answer is followed by another."""
    closed = replace(case, pace=None, name=f"{case.name}, closed")
    return _take_load(bench, proxy, closed).per_second


def count_syscalls(bench: Bench, proxy: Proxy, case: Load, seconds: int) -> dict[str, float]:
    with running(bench, proxy, case) as (tree, site), _asked(bench, case, site):
        report = site.directory / "strace.txt"
        return syscalls.count(tree, report, lambda: _load(bench, case, site, seconds).requests)


def _take_load(bench: Bench, proxy: Proxy, case: Load) -> LoadSample:
    with running(bench, proxy, case) as (tree, site), _asked(bench, case, site) as tls:
        tiers_before = _Tiers.of(site)
        core_before, tree_before, clock_before = core_cpu(bench.proxy_core), tree.cpu(), time.monotonic()
        load = _load(bench, case, site, bench.seconds)
        cpu = tree.cpu() - tree_before
        core = core_cpu(bench.proxy_core) - core_before
        elapsed = time.monotonic() - clock_before
        tree.check_alive()
        tiers = _Tiers.of(site)
        return LoadSample(
            cpu_us=cpu.total / load.requests * 1e6,
            system_us=cpu.system / load.requests * 1e6,
            per_second=load.per_second,
            p50_us=load.p50_us,
            p99_us=load.p99_us,
            rss_mib=tree.resident_bytes() / 2**20,
            busy=cpu.total / elapsed,
            foreign=max(0.0, (core.total - cpu.total) / elapsed),
            tls=tls,
            redis=tiers and tiers.since(tiers_before, load.requests),
        )


def _take_idle(bench: Bench, proxy: Proxy, case: Idle) -> IdleSample:
    path, body_bytes = SMALL
    with running(bench, proxy, case) as (tree, site):
        # What the first of all costs is none of the connections' own.
        with client.idle(site.plain_port, path, body_bytes, connections=1):
            pass
        before = _settled_bytes(tree)
        with client.idle(site.plain_port, path, body_bytes, case.connections):
            held = _settled_bytes(tree)
        tree.check_alive()
    return IdleSample(
        kib_each=(held - before) / 1024 / case.connections,
        base_mib=before / 2**20,
        held_mib=held / 2**20,
    )


@contextmanager
def _asked(bench: Bench, case: Load, site: Site) -> Iterator[str]:
    """A proxy that has answered rightly and is warm; gives TLS version and cipher.

    In a case of hits or refusals the origin stands still meanwhile: a proxy that asked it would have no answers.
    """
    port = site.tls_port if case.tls else site.plain_port
    if case.is_refused:
        tls = client.check_refused(port, case.path, case.tls)
    else:
        tls = client.check(port, case)
    _warm_up(bench, case, site)
    if case.asks_origin:
        yield tls
    else:
        with bench.origin_tree.paused():
            yield tls


def _warm_up(bench: Bench, case: Load, site: Site) -> None:
    """Until each URL has been asked for often enough and all that is to be in Redis is there."""
    seconds = WARM_UP_S
    for _ in range(WARM_UPS):
        before = site.redis and tollgate.answers(site)
        if _load(bench, case, site, seconds).requests < ASKED * case.urls + bench.connections:
            seconds *= 2
        elif before is None or tollgate.answers(site).origin == before.origin:
            return
    raise ProgramFailed(f"after {WARM_UPS} warm-ups the origin is still asked")


def _load(bench: Bench, case: Load, site: Site, seconds: int) -> generate.Throughput:
    rate = bench.rates.get(case.name, 0.0)
    return generate.generate(bench.programs, case, site, rate, seconds, bench.connections, bench.load_core)


def _settled_bytes(tree: Tree) -> int:
    reading = tree.resident_bytes()
    for _ in range(SETTLE_READINGS):
        time.sleep(SETTLE_PAUSE_S)
        earlier, reading = reading, tree.resident_bytes()
        if reading == earlier:
            break
    return reading


@dataclass(frozen=True)
class _Tiers:
    """How far Tollgate and its Redis have come."""

    answers: tollgate.Answers
    redis_cpu: Cpu

    @classmethod
    def of(cls, site: Site) -> _Tiers | None:
        return site.redis and cls(tollgate.answers(site), site.redis.tree.cpu())

    def since(self, earlier: _Tiers, requests: int) -> RedisUse:
        cpu = self.redis_cpu - earlier.redis_cpu
        return RedisUse(cpu.total / requests * 1e6, self.answers.from_redis_since(earlier.answers))


@contextmanager
def running(bench: Bench, proxy: Proxy, case: Case) -> Iterator[tuple[Tree, Site]]:
    """A proxy that has been started for the case, and what it was given."""
    with (
        tempfile.TemporaryDirectory(prefix=f"{proxy.name}-", dir=bench.directory) as directory,
        tempfile.TemporaryDirectory(prefix=f"{proxy.name}-", dir=bench.memory) as memory,
        _redis(bench, proxy, case, Path(directory)) as its_redis,
    ):
        site = Site(
            directory=Path(directory),
            memory=Path(memory),
            origin=bench.origin,
            plain_port=free_port(),
            tls_port=free_port(),
            certificate=bench.certificate,
            key=bench.key,
            case=case,
            admin_port=free_port(),
            redis=its_redis,
        )
        command = proxy.command(bench.programs, site)
        log = site.directory / "output.log"
        with started(proxy.label, command, bench.proxy_core, log) as tree:
            tree.wait_until_listening(*proxy.ports(site))
            yield tree, site


def _redis(bench: Bench, proxy: Proxy, case: Case, directory: Path) -> AbstractContextManager[redis.Redis | None]:
    wanted = proxy.has_redis and case.cache is Cache.REDIS
    return redis.running(directory, bench.load_core) if wanted else nullcontext()


@contextmanager
def prepared(programs: Programs, directory: Path, origin_core: int) -> Iterator[tuple[str, Tree, Path, Path]]:
    """A running origin, and a certificate and key made for this run alone."""
    certificate, key = directory / "bench.crt", directory / "bench.key"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", str(key), "-out", str(certificate)],
        capture_output=True, text=True,
    )
    if made.returncode != 0:
        raise ProgramFailed(f"openssl made no certificate: {made.stderr}")
    port = free_port()
    address = f"127.0.0.1:{port}"
    command = [str(programs.origin), address]
    with started("origin", command, origin_core, directory / "origin.log") as origin:
        origin.wait_until_listening(port)
        yield address, origin, certificate, key

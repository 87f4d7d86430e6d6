"""Arguments, rounds, results."""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

from . import measure, report, setup
from .bounds import held
from .cases import CASES, Load
from .process import ProgramFailed, raise_descriptor_limit
from .proxies import BASELINE, PROXIES, REFERENCE
from .publish import RESULTS, publish
from .site import DESCRIPTORS, Programs

SYSCALL_SECONDS = 2


def main() -> int:
    options = _options()
    # As an exit, so that everything started is stopped and the key is removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        plotting = None if options.no_plot else setup.plotting_python()
        results = _measure(options)
    except (ProgramFailed, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    publish(options.out, plotting)
    print((options.out / "load.md").read_text())
    bounds = held(results)
    for bound in bounds:
        print(f"bench: {bound}", file=sys.stderr)
    # A figure that is missing must not look like a finished run.
    return 0 if not results["failures"] and all(bound.is_met for bound in bounds) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/load/run", description="Measures reverse proxies side by side.")
    parser.add_argument("--rounds", type=_positive, default=5, help="interleaved rounds (default 5)")
    parser.add_argument("--seconds", type=_positive, default=5, help="seconds of load per sample (default 5)")
    parser.add_argument("--connections", type=_positive, default=64, help="keep-alive connections (default 64)")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="CASE",
                        help=f"of: {', '.join(CASES)}")
    parser.add_argument("--proxies", nargs="+", choices=PROXIES, default=list(PROXIES), metavar="PROXY",
                        help=f"of: {', '.join(PROXIES)}")
    parser.add_argument("--tollgate", type=Path, help="binary to measure (default: built from this tree)")
    parser.add_argument("--proxy-core", type=int, default=None, help="core of the proxy (default: the last)")
    parser.add_argument("--load-core", type=int, default=None, help="core of origin and load (default: the first)")
    parser.add_argument("--seed", type=int, default=1, help="of the order of proxies within a round")
    parser.add_argument("--out", type=Path, default=RESULTS,
                        help="directory of the results; the README is renewed for the default one")
    parser.add_argument("--no-syscalls", action="store_true", help="leave out the strace runs")
    parser.add_argument("--no-plot", action="store_true", help="leave out the plot, and matplotlib with it")
    options = parser.parse_args()

    cores = sorted(os.sched_getaffinity(0))
    options.proxy_core = cores[-1] if options.proxy_core is None else options.proxy_core
    options.load_core = cores[0] if options.load_core is None else options.load_core
    if options.proxy_core == options.load_core or not {options.proxy_core, options.load_core} <= set(cores):
        parser.error(f"the proxy and the load need a core each; usable: {cores}")
    if BASELINE not in options.proxies:
        print(f"bench: without {BASELINE!r} there are no ratios to it", file=sys.stderr)
    return options


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{number} is not positive")
    return number


def _measure(options: argparse.Namespace) -> dict:
    setup.install_packages()
    programs = setup.build(options.tollgate, any(name.startswith("tollgate") for name in options.proxies))
    # The harness's own clients belong to the load side; everything it starts is pinned by name.
    os.sched_setaffinity(0, {options.load_core})
    raise_descriptor_limit(DESCRIPTORS)

    samples: list[dict] = []
    calls: list[dict] = []
    failures: list[dict] = []
    shared = Path("/dev/shm")
    with (
        tempfile.TemporaryDirectory(prefix="tollgate-bench-") as temporary,
        tempfile.TemporaryDirectory(prefix="tollgate-bench-", dir=shared if shared.is_dir() else None) as in_memory,
    ):
        directory = Path(temporary)
        memory = Path(in_memory)
        with measure.prepared(programs, directory, options.load_core) as (origin, origin_tree, certificate, key):
            bench = measure.Bench(
                programs, directory, memory, origin, origin_tree, certificate, key,
                options.proxy_core, options.load_core, options.seconds, options.connections,
            )
            bench = replace(bench, rates=_rates(bench, options))
            for place in _rounds(options):
                with _recorded(failures, place):
                    sample = measure.take(bench, PROXIES[place["proxy"]], CASES[place["case"]])
                    samples.append({**place, **asdict(sample)})
                    _progress(place, report.brief(sample))
            for place, case in _traces(options):
                with _recorded(failures, place):
                    counts = measure.count_syscalls(bench, PROXIES[place["proxy"]], case, SYSCALL_SECONDS)
                    calls.append({**place, "per_request": counts})
                    _progress(place, f"{sum(counts.values()):.2f} system calls per request")
    return {
        "about": {**_about(options, programs), "rates": bench.rates},
        "samples": samples,
        "syscalls": calls,
        "failures": failures,
    }


def _rates(bench: measure.Bench, options: argparse.Namespace) -> dict[str, float]:
    """Of the cases whose load is open: the same for every proxy, so that their latencies are of the same work."""
    rates = {}
    for name in options.cases:
        case = CASES[name]
        if isinstance(case, Load) and case.pace is not None:
            rates[name] = case.pace * measure.saturation(bench, PROXIES[REFERENCE], case)
    return rates


def _rounds(options: argparse.Namespace) -> Iterator[dict]:
    """All proxies of a case run next to each other, for neighbours in time share the machine's mood;
    the order is drawn anew each time, so that none always follows the same one."""
    order = random.Random(options.seed)
    for number in range(1, options.rounds + 1):
        for case in options.cases:
            for proxy in order.sample(options.proxies, len(options.proxies)):
                if PROXIES[proxy].serves(CASES[case]):
                    yield {"round": number, "case": case, "proxy": proxy}


def _traces(options: argparse.Namespace) -> Iterator[tuple[dict, Load]]:
    if options.no_syscalls:
        return
    for name in options.cases:
        case = CASES[name]
        if isinstance(case, Load) and case.pace is None:
            for proxy in options.proxies:
                if PROXIES[proxy].serves(case):
                    yield {"round": "strace", "case": name, "proxy": proxy}, case


@contextmanager
def _recorded(failures: list[dict], place: dict) -> Iterator[None]:
    """A failed sample is reported and leaves its gap; the others are still worth having."""
    try:
        yield
    except (ProgramFailed, OSError) as error:
        failures.append({**place, "error": str(error)})
        _progress(place, f"FAILED: {error}")


def _progress(place: dict, text: str) -> None:
    print(f"{place['round']:<7} {place['case']:<14} {place['proxy']:<21} {text}", file=sys.stderr, flush=True)


def _about(options: argparse.Namespace, programs: Programs) -> dict:
    versions = {
        "nginx": _first_line("nginx", "-v"),
        "haproxy": _first_line("haproxy", "-v"),
        "varnish": _first_line("varnishd", "-V"),
        "redis": _first_line("redis-server", "--version"),
        "wrk": _first_line("wrk", "-v"),
        "h2load": _first_line("h2load", "--version"),
    }
    if any(name.startswith("tollgate") for name in options.proxies):
        commit = _first_line("git", "-C", str(setup.ROOT), "describe", "--always", "--dirty")
        versions["tollgate"] = f"{_first_line(str(programs.tollgate), 'version')} (tree {commit})"
    models = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
              if line.startswith("model name")]
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": f"{len(models)} × {models[0]}" if models else platform.machine(),
        "kernel": platform.release(),
        "versions": versions,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "connections": options.connections,
        "seed": options.seed,
        "cases": options.cases,
        "proxies": options.proxies,
    }


def _first_line(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0].strip() if lines else "unknown"

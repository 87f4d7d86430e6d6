"""Load generators: wrk for HTTP/1.1, h2load for HTTP/2, our own visitors for what these two cannot ask.

Runs them and reads what they print.
"""

from __future__ import annotations

import json
import math
import re
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from .cases import Ask, Load
from .process import ProgramFailed, pinned
from .site import Programs, Site

# Asks for several URLs, if a case has them.
URLS = Path(__file__).with_name("urls.lua")
# Beyond the seconds of the run itself: connecting, handshakes, printing, reading the log.
GRACE_S = 30
LEAST_REFUSED = 0.999


@dataclass(frozen=True)
class Throughput:
    requests: int
    seconds: float
    p50_us: float
    p99_us: float

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


def generate(programs: Programs, case: Load, site: Site, rate: float, seconds: int, connections: int,
             core: int) -> Throughput:
    """One bounded run against the proxy at `site`; any failed request fails the run.

    `rate` is that of an open load, a second; 0 of a closed one.
    """
    if rate or case.ask is not Ask.PAGE:
        command = visitors(programs, case, site, rate, seconds, connections)
        return parse_visitors(_run(command, core, seconds), case.ask.status)
    port = site.tls_port if case.tls else site.plain_port
    url = f"{'https' if case.tls else 'http'}://127.0.0.1:{port}{case.path}"
    if not case.h2:
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "5s", "--latency"]
        in_turn = ["-s", str(URLS), url, "--", str(case.urls)] if case.urls > 1 else [url]
        return parse_wrk(_run(command + in_turn, core, seconds), case.is_refused)
    log = site.directory / "h2load.tsv"
    log.unlink(missing_ok=True)
    command = ["h2load", "-t1", f"-c{connections}", "-m1", f"-D{seconds}", f"--log-file={log}", url]
    output = _run(command, core, seconds)
    return parse_h2load(output, log.read_text(), seconds, case.is_refused)


def visitors(programs: Programs, case: Load, site: Site, rate: float, seconds: int, connections: int) -> list[str]:
    """Their command, in plaintext; `rate` as above."""
    command = [str(programs.visitors), f"127.0.0.1:{site.plain_port}", str(connections), str(seconds), str(rate),
               case.ask.method, case.path]
    return command + [case.ask.field] * bool(case.ask.field)


def _run(command: list[str], core: int, seconds: int) -> str:
    try:
        done = subprocess.run(pinned(command, core), capture_output=True, text=True, timeout=seconds + GRACE_S)
    except subprocess.TimeoutExpired as error:
        raise ProgramFailed(f"{command[0]} did not end within {error.timeout:.0f} s") from error
    if done.returncode != 0:
        raise ProgramFailed(f"{command[0]} ended with code {done.returncode}: {done.stderr or done.stdout}")
    return done.stdout


def parse_wrk(output: str, refused: bool = False) -> Throughput:
    """`refused`: nearly every answer is to be an error, or else none."""
    if found := re.search(r"Socket errors: .*", output):
        raise ProgramFailed(f"wrk: {found[0]}")
    errors = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    if errors and not refused:
        raise ProgramFailed(f"wrk: {errors[0]}")
    total = re.search(r"(\d+) requests in ([\d.]+)(ms|s|m)", output)
    half = re.search(r"^\s*50%\s+([\d.]+)(us|ms|s|m) *$", output, re.MULTILINE)
    most = re.search(r"^\s*99%\s+([\d.]+)(us|ms|s|m) *$", output, re.MULTILINE)
    if not (total and half and most) or total[1] == "0":
        raise ProgramFailed(f"wrk: cannot read its output:\n{output}")
    if refused:
        _check_refused(int(errors[1]) if errors else 0, int(total[1]))
    return Throughput(
        requests=int(total[1]),
        seconds=_microseconds(total[2], total[3]) / 1e6,
        p50_us=_microseconds(half[1], half[2]),
        p99_us=_microseconds(most[1], most[2]),
    )


def parse_h2load(output: str, log: str, seconds: int, refused: bool = False) -> Throughput:
    """`log` has a line per request: start in µs since the epoch, status, µs until the answer's end."""
    if "Application protocol: h2" not in output:
        raise ProgramFailed(f"h2load: HTTP/2 was not negotiated:\n{output}")
    counts = re.search(r"(\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", output)
    if not counts or counts[1] == "0":
        raise ProgramFailed(f"h2load: cannot read its output:\n{output}")
    done, succeeded, failed, _errored, timed_out = (int(count) for count in counts.groups())
    statuses = Counter(line.split("\t")[1] for line in log.splitlines())
    if refused and not timed_out:
        _check_refused(statuses["429"], done)
    elif failed or timed_out or succeeded != done or set(statuses) != {"200"}:
        raise ProgramFailed(f"h2load: {counts[0]}; statuses {sorted(statuses)}")
    latencies = sorted(int(line.split("\t")[2]) for line in log.splitlines())
    return Throughput(done, float(seconds), percentile(latencies, 50), percentile(latencies, 99))


def parse_visitors(output: str, status: int) -> Throughput:
    """`status` is the one that every answer is to have."""
    found = json.loads(output)
    if set(found["statuses"]) != {str(status)}:
        raise ProgramFailed(f"visitors: expected {status} alone, got {found['statuses']}")
    return Throughput(found["requests"], found["seconds"], float(found["p50_us"]), float(found["p99_us"]))


def _check_refused(refused: int, requests: int) -> None:
    # A long run lets one through each minute.
    if refused < LEAST_REFUSED * requests:
        raise ProgramFailed(f"only {refused} of {requests} requests were refused")


def percentile(ordered: list[int], percent: float) -> float:
    """Nearest rank: the smallest value that at least `percent` of all values do not exceed."""
    return float(ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)])


def _microseconds(number: str, unit: str) -> float:
    return float(number) * {"us": 1, "ms": 1e3, "s": 1e6, "m": 60e6}[unit]

"""Tollgate as one of the proxies under test: its configuration, and what it says of its answers."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from urllib.request import Request, urlopen

from .process import ProgramFailed
from .site import AMPLE, CONNECTIONS, Programs, Site

TOKEN = "of-a-bench-on-loopback"
TIMEOUT_S = 10
# Of the answers in a case of hits in Redis; the others are from what its memory has room for.
LEAST_FROM_REDIS = 0.95


@dataclass(frozen=True)
class Answers:
    """How many there were since the start, by where they came from."""

    redis: int
    origin: int
    all: int

    def from_redis_since(self, earlier: Answers) -> float:
        """The part of those since then; a program that has failed, if it is too small."""
        part = (self.redis - earlier.redis) / max(1, self.all - earlier.all)
        if part < LEAST_FROM_REDIS:
            raise ProgramFailed(f"only {part:.1%} of the answers came from Redis")
        return part


def answers(site: Site) -> Answers:
    url = f"http://127.0.0.1:{site.admin_port}/metrics"
    with urlopen(Request(url, headers={"Authorization": f"Bearer {TOKEN}"}), timeout=TIMEOUT_S) as response:
        return parse_metrics(response.read().decode())


def parse_metrics(page: str) -> Answers:
    """Of a gateway with one route: how often it answered, by tier and outcome."""
    found = re.findall(r'^tollgate_cache_requests_total\{.*tier="(\w+)",outcome="(\w+)"\} (\d+)$', page, re.MULTILINE)
    return Answers(
        redis=sum(int(count) for tier, outcome, count in found if (tier, outcome) == ("redis", "hit")),
        origin=sum(int(count) for tier, _, count in found if tier == "origin"),
        all=sum(int(count) for _, _, count in found),
    )


def proxy(headers: str) -> Callable[[Programs, Site], list[str]]:
    def command(programs: Programs, site: Site) -> list[str]:
        certificates = site.directory / "certs"
        certificates.mkdir()
        shutil.copy(site.certificate, certificates / "bench.crt")
        shutil.copy(site.key, certificates / "bench.key")
        path = site.write(
            "gateway.toml",
            f"""\
[server]
workers = 1
listen = [
    "127.0.0.1:{site.plain_port}",
    {{ address = "127.0.0.1:{site.tls_port}", tls = "certs/", min_tls = "1.3" }},
]
max_connections = {CONNECTIONS}
max_connections_per_client = {CONNECTIONS}
keepalive_requests = 1_000_000_000
watch = false

[log]
access = "{"off" if site.refuses else "errors"}"

[upstream.origin]
backends = ["{site.origin}"]

[[route]]
upstream = "origin"
headers = "{headers}"
{'limit = ["bench"]' if site.limits else ""}
{_cache(site) if site.caches else ""}{_limit(site) if site.limits else ""}""",
        )
        return [str(programs.tollgate), "run", "--config", str(path)]

    return command


def _limit(site: Site) -> str:
    quota = "1 per minute" if site.refuses else f"{AMPLE} per second"
    return f'\n[limit.bench]\nquota = "{quota}"\nkey = "client-ip"\n'


def _cache(site: Site) -> str:
    """The rest is what a policy is by default."""
    policy = 'cache = "pages"\n\n[cache.policy.pages]\n'
    if site.redis is None:
        return f'{policy}\n[cache]\nmemory = "{site.cache_mib} MiB"\n'
    # Redis shares its core with the load, and nobody else answers while the origin stands still: hence the deadline.
    # The bodies of the bench would shrink to nothing: hence compress_above.
    return f"""\
{policy}
[cache]
memory = "1 MiB"
compress_above = "1 GiB"

[redis]
nodes = ["redis://127.0.0.1:{site.redis.port}/0"]
deadline = "2s"

[admin]
listen = "127.0.0.1:{site.admin_port}"
token = "{TOKEN}"
"""

"""Tollgate as one of the proxies under test."""

from __future__ import annotations

import shutil
from collections.abc import Callable

from .site import CACHE_MIB, CONNECTIONS, Programs, Site

# The rest is what a policy is by default.
_CACHE = f"""\
cache = "pages"

[cache]
memory = "{CACHE_MIB} MiB"

[cache.policy.pages]
"""


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
access = "errors"

[upstream.origin]
backends = ["{site.origin}"]

[[route]]
upstream = "origin"
headers = "{headers}"
{_CACHE if site.caches else ""}""",
        )
        return [str(programs.tollgate), "run", "--config", str(path)]

    return command

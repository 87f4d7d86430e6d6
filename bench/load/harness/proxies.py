"""The proxies under test: each written the same task in its own configuration language.

Equal for all: one worker or thread, no access log of successes, keep-alive to clients without an
end, pooled keep-alive to one origin, TLS 1.3 with the same P-256 certificate, h2 by ALPN. In the cases
of hits each has its cache in memory, as large as the others'; where hits are from Redis, Tollgate's is too
small for them. A limit counts addresses of clients, and a refusal is a 429 with Retry-After that is not logged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import tollgate
from .cases import Ask, Cache, Case, Limit, Load
from .site import AMPLE, CONNECTIONS, DESCRIPTORS, Programs, Site


@dataclass(frozen=True)
class Proxy:
    name: str
    label: str
    command: Callable[[Programs, Site], list[str]]
    only_plain_hits: bool = False
    """It speaks no TLS, and is there for what it has in memory."""
    has_redis: bool = False
    """Its cache has a tier in Redis."""
    has_limits: bool = True
    is_conditional: bool = True
    """It tells who has the page already that it is unchanged."""

    def serves(self, case: Case) -> bool:
        if isinstance(case, Load) and case.ask is Ask.IF_CHANGED and not self.is_conditional:
            return False
        return not self.only_plain_hits or (
            isinstance(case, Load) and case.cache is not Cache.OFF and not case.tls
            and (self.has_limits or case.limit is Limit.OFF)
        )

    def ports(self, site: Site) -> list[int]:
        return [site.plain_port] if self.only_plain_hits else [site.plain_port, site.tls_port]


def _bare(programs: Programs, site: Site) -> list[str]:
    plain, tls = f"127.0.0.1:{site.plain_port}", f"127.0.0.1:{site.tls_port}"
    arguments = [site.origin, plain, tls, str(site.certificate), str(site.key)]
    if site.limits:
        return [str(programs.bare_limit), str(1 if site.refuses else 60 * AMPLE), *arguments]
    return [str(programs.bare_hit if site.caches else programs.bare), *arguments]


# Files in memory, opened once: what nginx has in place of a cache in memory.
_NGINX_CACHE = """\
    proxy_cache_path {directory} keys_zone=bench:4m max_size={size}m inactive=1h use_temp_path=off;
    open_file_cache max={files} inactive=1h;
    open_file_cache_valid 1h;
    sendfile on;
"""

# A bucket takes one request at a time where no burst is named; a refusal would be logged as an error.
_NGINX_ZONE = """\
    limit_req_zone $binary_remote_addr zone=clients:10m rate={rate};
    limit_req_status 429;
    limit_req_log_level info;
    map $limit_req_status $retry_after {{ REJECTED 60; default ""; }}
"""
_NGINX_LIMIT = """\
            limit_req zone=clients {burst};
            add_header Retry-After $retry_after always;
"""

# What Tollgate's "basic" headers and forwarding fields ask of it, said to nginx.
_NGINX_SAME_HEADERS = """\
        proxy_set_header Host $http_host;
        proxy_set_header X-Forwarded-For $remote_addr;
        proxy_set_header X-Forwarded-Proto $scheme;
        proxy_set_header X-Forwarded-Host $http_host;
        proxy_set_header X-Forwarded-Port $server_port;
        proxy_set_header X-Real-IP $remote_addr;
        proxy_set_header X-Request-ID $request_id;
        add_header X-Request-ID $request_id always;
        add_header X-Request-Time $request_time always;
        add_header Server-Timing "upstream;dur=$upstream_response_time" always;
        add_header X-Content-Type-Options nosniff always;
        add_header X-Frame-Options SAMEORIGIN always;
        add_header Referrer-Policy strict-origin-when-cross-origin always;
"""


def _nginx(extra: str) -> Callable[[Programs, Site], list[str]]:
    def command(_: Programs, site: Site) -> list[str]:
        for name in ("body", "proxy", "fastcgi", "uwsgi", "scgi"):
            (site.directory / name).mkdir()
        cache = ""
        if site.caches:
            files = site.case.urls + 100
            cache = _NGINX_CACHE.format(directory=_in_memory(site), size=site.cache_mib, files=files)
        zone = _NGINX_ZONE.format(rate="1r/m" if site.refuses else f"{AMPLE}r/s") if site.limits else ""
        limit = _NGINX_LIMIT.format(burst="" if site.refuses else f"burst={AMPLE} nodelay") if site.limits else ""
        path = site.write(
            "nginx.conf",
            f"""\
daemon off;
user root;
worker_processes 1;
worker_rlimit_nofile {DESCRIPTORS};
pid {site.directory}/nginx.pid;
error_log stderr error;
events {{ worker_connections {CONNECTIONS}; }}
http {{
    access_log off;
    client_body_temp_path {site.directory}/body;
    proxy_temp_path {site.directory}/proxy;
    fastcgi_temp_path {site.directory}/fastcgi;
    uwsgi_temp_path {site.directory}/uwsgi;
    scgi_temp_path {site.directory}/scgi;
    keepalive_requests 1000000000;
    tcp_nodelay on;
{cache}{zone}    upstream origin {{
        server {site.origin};
        keepalive 64;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{site.plain_port};
        listen 127.0.0.1:{site.tls_port} ssl http2;
        ssl_certificate {site.certificate};
        ssl_certificate_key {site.key};
        ssl_protocols TLSv1.3;
        location / {{
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
{"            proxy_cache bench;" if site.caches else ""}
{limit}{extra}        }}
    }}
}}
""",
        )
        return ["nginx", "-e", "stderr", "-p", str(site.directory), "-c", str(path)]

    return command


def _in_memory(site: Site) -> Path:
    """A directory whose files are in memory."""
    directory = site.memory / "nginx-cache"
    directory.mkdir()
    return directory


def _haproxy(_: Programs, site: Site) -> list[str]:
    both = site.write("bench.pem", site.certificate.read_text() + site.key.read_text())
    path = site.write(
        "haproxy.cfg",
        f"""\
global
    nbthread 1
    maxconn {CONNECTIONS}
    # HAProxy reckons with two descriptors per client and refuses to start with fewer.
    no strict-limits
defaults
    mode http
    option http-keep-alive
    http-reuse always
    timeout connect 3s
    timeout client 75s
    timeout server 60s
    timeout http-keep-alive 75s
{_HAPROXY_CACHE.format(size=site.cache_mib) if site.caches else ""}frontend bench
    bind 127.0.0.1:{site.plain_port}
    bind 127.0.0.1:{site.tls_port} ssl crt {both} alpn h2,http/1.1 ssl-min-ver TLSv1.3
{_HAPROXY_LIMIT.format(most=1 if site.refuses else 60 * AMPLE) if site.limits else ""}    default_backend origin
backend origin
{_HAPROXY_USE if site.caches else ""}    server origin {site.origin}
""",
    )
    return ["haproxy", "-db", "-f", str(path)]


_HAPROXY_CACHE = f"""\
cache bench
    total-max-size {{size}}
    max-object-size {2**20}
    max-age 3600
"""
_HAPROXY_LIMIT = """\
    stick-table type ip size 100k expire 1m store http_req_rate(1m)
    http-request track-sc0 src
    http-request deny deny_status 429 content-type text/plain string "too many requests" hdr Retry-After 60 if {{ sc_http_req_rate(0) gt {most} }}
"""
_HAPROXY_USE = """\
    http-request cache-use bench
    http-response cache-store bench
"""


def _varnish(_: Programs, site: Site) -> list[str]:
    host, port = site.origin.split(":")
    vcl = site.write("bench.vcl", f'vcl 4.1;\nbackend origin {{ .host = "{host}"; .port = "{port}"; }}\n')
    return [
        "varnishd", "-F", "-j", "none", "-n", str(site.directory / "varnish"), "-T", "none",
        "-a", f"127.0.0.1:{site.plain_port}", "-f", str(vcl), "-s", f"malloc,{site.cache_mib}m",
        "-p", "thread_pools=1",
    ]


def _floor(programs: Programs, site: Site) -> list[str]:
    unchanged = isinstance(site.case, Load) and site.case.ask is Ask.IF_CHANGED
    return [str(programs.origin), f"127.0.0.1:{site.plain_port}", *["unchanged"] * unchanged]


SUBJECT = "tollgate"
BASELINE = "bare"
REFERENCE = "nginx"
# What the figures of a table are divided by.
COMPARED = {BASELINE: "bare", REFERENCE: "nginx", "nginx-headers": "nginx, same headers", "floor": "floor"}

PROXIES = {
    proxy.name: proxy
    for proxy in (
        Proxy("bare", "bare pingora", _bare, is_conditional=False),
        Proxy("tollgate", "Tollgate", tollgate.proxy("basic"), has_redis=True),
        Proxy("tollgate-headers-off", "Tollgate, headers off", tollgate.proxy("off"), has_redis=True),
        Proxy("nginx", "nginx", _nginx("")),
        Proxy("nginx-headers", "nginx, same headers", _nginx(_NGINX_SAME_HEADERS)),
        Proxy("haproxy", "HAProxy", _haproxy),
        Proxy("varnish", "Varnish", _varnish, only_plain_hits=True, has_limits=False),
        Proxy("floor", "floor", _floor, only_plain_hits=True),
    )
}

"""What a run needs and a clean machine lacks: Debian packages, our own programs, matplotlib."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .process import ProgramFailed
from .site import Programs

ROOT = Path(__file__).resolve().parents[3]
LOAD = ROOT / "bench" / "load"
VENV = ROOT / "target" / "bench-venv"
TOLLGATE = ROOT / "target" / "release" / "tollgate"
PEERS_TARGET = ROOT / "target" / "bench-peers"

# Program → the Debian package that brings it.
PACKAGES = {
    "nginx": "nginx-light",
    "haproxy": "haproxy",
    "varnishd": "varnish",
    "redis-server": "redis-server",
    "wrk": "wrk",
    "h2load": "nghttp2-client",
    "strace": "strace",
    "openssl": "openssl",
    "taskset": "util-linux",
    "setpriv": "util-linux",
}


def install_packages() -> None:
    missing = sorted({package for program, package in PACKAGES.items() if not shutil.which(program)})
    if not missing:
        return
    if os.geteuid() != 0:
        raise ProgramFailed(f"missing packages; run: apt-get install -y {' '.join(missing)}")
    _say(f"installing {', '.join(missing)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with _no_services_started():
        _call(["apt-get", "update", "-qq"], environment)
        _call(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], environment)


@contextmanager
def _no_services_started() -> Iterator[None]:
    """nginx, HAProxy and Varnish come as services; Debian asks this file before it starts one.

    A file that is already there is the machine's own policy and stays as it is.
    """
    policy = Path("/usr/sbin/policy-rc.d")
    try:
        descriptor = os.open(policy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o755)
    except FileExistsError:
        yield
        return
    with os.fdopen(descriptor, "w") as file:
        file.write("#!/bin/sh\nexit 101\n")
    try:
        yield
    finally:
        policy.unlink()


def build(tollgate: Path | None, wanted: bool) -> Programs:
    """Release builds of the peers and, when it is `wanted` and no path names one, of Tollgate.

    Cargo decides whether there is anything to do: a binary left from an older tree is never measured.
    """
    peers = {**os.environ, "CARGO_TARGET_DIR": str(PEERS_TARGET)}
    _build(LOAD / "peers" / "Cargo.toml", peers)
    if tollgate is None:
        tollgate = build_tollgate() if wanted else TOLLGATE
    elif wanted and not tollgate.is_file():
        raise ProgramFailed(f"no Tollgate at {tollgate}")
    release = PEERS_TARGET / "release"
    return Programs(
        tollgate=tollgate.resolve(),
        bare=release / "bare",
        bare_hit=release / "bare_hit",
        bare_limit=release / "bare_limit",
        origin=release / "origin",
        visitors=release / "visitors",
    )


def build_tollgate() -> Path:
    """The release build of this tree."""
    _build(ROOT / "Cargo.toml", {**os.environ, "CARGO_TARGET_DIR": str(ROOT / "target")})
    return TOLLGATE


def _build(manifest: Path, environment: dict[str, str]) -> None:
    _say(f"building {manifest.relative_to(ROOT)}")
    command = ["cargo", "build", "--release", "--locked", "--quiet", "--manifest-path", str(manifest)]
    _call(command, environment)


def plotting_python() -> Path:
    """The interpreter of a virtual environment that has matplotlib."""
    python = VENV / "bin" / "python"
    if not (VENV / "ready").exists():
        _say("installing matplotlib into target/bench-venv")
        _call([sys.executable, "-m", "venv", "--clear", str(VENV)])
        _call([str(python), "-m", "pip", "install", "--quiet", "-r", str(LOAD / "requirements.txt")])
        (VENV / "ready").touch()
    return python


def _call(command: list[str], environment: dict[str, str] | None = None) -> None:
    code = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL).returncode
    if code != 0:
        raise ProgramFailed(f"{' '.join(command)} ended with code {code}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)

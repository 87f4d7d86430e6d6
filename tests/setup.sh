#!/usr/bin/env bash
# Prepares what the integration tests need beside Rust: Debian packages, and a Python environment in target/venv with
# tests/apps/requirements.txt. Does nothing when these are already there.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=target/venv
requirements=(tests/apps/requirements.txt tests/apps/django_site/requirements.txt)
stamp=$venv/requirements.sha256

install_packages() {
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        as_root=(sudo)
    fi
    echo "setup: installing Debian packages: $*"
    "${as_root[@]}" apt-get update -qq
    # Debian starts the service of a package that it installs, unless this file forbids it. The tests start their own.
    local policy=/usr/sbin/policy-rc.d ours=
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
        "${as_root[@]}" chmod 755 "$policy"
        ours=yes
    fi
    local outcome=0
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "$@" || outcome=$?
    if [ -n "$ours" ]; then
        "${as_root[@]}" rm -f "$policy"
    fi
    return "$outcome"
}

missing=()
command -v cc >/dev/null || missing+=(gcc libc6-dev)
command -v python3 >/dev/null || missing+=(python3)
# Debian ships venv apart from Python, and ensurepip is the part that is then missing.
python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
command -v curl >/dev/null || missing+=(curl)
command -v redis-server >/dev/null || missing+=(redis-server)
# Gives one process another time than the rest of the machine.
compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null || missing+=(libfaketime)
# Counts instructions for bench/instructions.
command -v valgrind >/dev/null || missing+=(valgrind)
if [ "${#missing[@]}" -gt 0 ]; then
    install_packages "${missing[@]}"
fi

# The programs name their environment by its full path: a copied folder has the stamp and no Python.
if sha256sum --check --status "$stamp" 2>/dev/null && "$venv/bin/gunicorn" --version >/dev/null 2>&1; then
    echo "setup: $venv is up to date"
    exit 0
fi
echo "setup: making $venv"
rm -rf "$venv"
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check -r "${requirements[0]}"
# Last, so that an interrupted installation is made anew.
sha256sum "${requirements[@]}" >"$stamp"

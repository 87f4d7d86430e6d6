"""Instructions per request: reckoned from counts, kept in a file, compared with what is kept there."""

from __future__ import annotations

import json
import platform
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

# Of what is kept. Between two runs of the same program lies less than a hundredth.
TOLERANCE = 0.1


@dataclass(frozen=True)
class Count:
    requests: int
    instructions: int


def per_request(few: Count, many: Count) -> float:
    """What counting costs besides requests is in both, and falls out."""
    return (many.instructions - few.instructions) / (many.requests - few.requests)


@dataclass(frozen=True)
class Figures:
    """Of one architecture, by kind of request, and the compiler that they hold for."""

    compiler: str
    per_request: dict[str, int]


def every(path: Path) -> dict[str, Figures]:
    """What is kept, by architecture."""
    found = json.loads(path.read_text()) if path.exists() else {}
    return {architecture: Figures(**figures) for architecture, figures in found.items()}


def kept(path: Path) -> Figures | None:
    """Of this machine's architecture."""
    return every(path).get(platform.machine())


def keep(path: Path, figures: Figures) -> None:
    kept_now = {**every(path), platform.machine(): figures}
    written = {architecture: asdict(figures) for architecture, figures in kept_now.items()}
    path.write_text(json.dumps(written, indent=2) + "\n")


def compiler() -> str:
    return subprocess.run(["rustc", "--version"], check=True, capture_output=True, text=True).stdout.strip()


def complaints(before: Figures | None, now: Figures) -> list[str]:
    """A sentence for each kind of request that takes more than is allowed, or for which nothing is kept."""
    if before is None:
        return [f"no figures are kept for {platform.machine()}"]
    found = []
    for kind, count in now.per_request.items():
        if kind not in before.per_request:
            found.append(f"{kind}: {count:,} instructions per request, and no figure is kept")
        elif count > before.per_request[kind] * (1 + TOLERANCE):
            found.append(f"{_compared(kind, before, now)}; at most {TOLERANCE:.0%} more are allowed")
    if found and before.compiler != now.compiler:
        found.append(f"what is kept is of {before.compiler}, this is {now.compiler}")
    return found


def gains(before: Figures | None, now: Figures) -> list[str]:
    """A sentence for each kind of request that takes so much less that the figure kept no longer guards it."""
    return [
        f"{_compared(kind, before, now)}; the figure that is kept no longer guards it"
        for kind, count in now.per_request.items()
        if before and count < before.per_request.get(kind, 0) * (1 - TOLERANCE)
    ]


def _compared(kind: str, before: Figures, now: Figures) -> str:
    was, count = before.per_request[kind], now.per_request[kind]
    return f"{kind}: {count:,} instructions per request, {was:,} before ({count / was - 1:+.1%})"

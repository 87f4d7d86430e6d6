"""The section of the README that is made of results: the main cases, and Tollgate's figure beside each other program's."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

from .process import ProgramFailed
from .proxies import PROXIES, SUBJECT
from .report import IDLE_FIGURE, LOAD_FIGURE, PACED_FIGURE, counted, ratio, row, spread

BEGIN = "<!-- Made by bench/load/report of bench/results/results.json: what is changed here is lost. -->"
END = "<!-- Here ends what bench/load/report made. -->"


@dataclass(frozen=True)
class Line:
    title: str
    case: str
    figure: str
    digits: int = 1


LINES = (
    Line("hit, 1 KiB", "hit-1k", LOAD_FIGURE),
    Line("hit, 1 KiB, under a limit", "limited-hit-1k", LOAD_FIGURE),
    Line("hit, 64 KiB", "hit-64k", LOAD_FIGURE),
    Line("hit, HEAD", "hit-head", LOAD_FIGURE),
    Line("hit, 304", "hit-unchanged", LOAD_FIGURE),
    Line("hit, 1 KiB, TLS 1.3, HTTP/1.1", "tls-h1-hit-1k", LOAD_FIGURE),
    Line("hit, 1 KiB, TLS 1.3, HTTP/2", "tls-h2-hit-1k", LOAD_FIGURE),
    Line("429", "refused", LOAD_FIGURE),
    Line("proxied, 1 KiB", "proxied-1k", LOAD_FIGURE),
    Line("proxied, 64 KiB", "proxied-64k", LOAD_FIGURE),
    Line("proxied, 1 KiB, TLS 1.3, HTTP/1.1", "tls-h1-1k", LOAD_FIGURE),
    Line("proxied, 1 KiB, TLS 1.3, HTTP/2", "tls-h2-1k", LOAD_FIGURE),
    Line("p99 of hits under a limit at half of what nginx does at most, µs", "paced-hit-1k", PACED_FIGURE, digits=0),
    Line("KiB per idle connection, of 10,000", "idle-10000", IDLE_FIGURE),
)
OTHERS = ("nginx", "nginx-headers", "haproxy", "varnish", "bare", "floor")


def section(results: dict) -> str:
    """Cases and programs that were not measured are not in it."""
    about, samples = results["about"], results["samples"]
    others = [other for other in OTHERS if other in about["proxies"]]
    lines = [
        BEGIN,
        "",
        _wrapped(
            "CPU µs per request of Tollgate's process tree where nothing else is said, with its default headers; beside it, its "
            "quotients with other programs: below 1.00 Tollgate takes less. One core, "
            f"{counted(about['connections'], 'connection')}; medians of {counted(about['rounds'], 'interleaved round')}, and of the quotients within "
            f"them. {about['date'].split()[0]}, {about['cpu']}, {', '.join(_versions(about))}."
        ),
        "",
        row("case", "Tollgate", *(f"× {PROXIES[other].label}" for other in others)),
        row("---", *["---:"] * (1 + len(others))),
    ]
    for line in LINES:
        if ours := spread(samples, line.case, SUBJECT, line.figure):
            quotients = (ratio(samples, line.case, SUBJECT, other, line.figure) for other in others)
            lines.append(row(line.title, f"{ours.middle:,.{line.digits}f}",
                             *(f"{quotient.middle:.2f}" if quotient else "–" for quotient in quotients)))
    lines += [
        "",
        _wrapped("`bench/load/run` measures all this and makes this section, the whole [table](bench/results/load.md) and a "
                 "[plot](bench/results/load.png). How: [bench/README.md](bench/README.md)."),
        "",
        END,
    ]
    return "\n".join(lines)


def renewed(page: str, results: dict) -> str:
    """The page with the section of these results in the place of the one it has."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ProgramFailed(f"the README lacks the marks of its section: {BEGIN} and {END}")
    return before + section(results) + after


def renew(path: Path, results: dict) -> None:
    path.write_text(renewed(path.read_text(), results))


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 140, break_on_hyphens=False)


def _versions(about: dict) -> list[str]:
    """Of the programs that were measured; pingora's is that of Tollgate's own."""
    return [f"{PROXIES[name].label} {found[0]}" for name, said in about["versions"].items()
            if name in about["proxies"] and name != SUBJECT and (found := re.search(r"\d+(\.\d+)+", said))]

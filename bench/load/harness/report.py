"""From samples to figures: medians with their range, ratios paired by round, one table per case."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from statistics import median

from .cases import CASES, Idle
from .measure import IdleSample, LoadSample, Sample
from .proxies import COMPARED, PROXIES

# What the ratios are taken of.
LOAD_FIGURE = "cpu_us"
PACED_FIGURE = "p99_us"
IDLE_FIGURE = "kib_each"


@dataclass(frozen=True)
class Spread:
    """Median over rounds with the smallest and largest value."""

    middle: float
    least: float
    most: float

    @classmethod
    def of(cls, values: list[float]) -> Spread | None:
        return cls(median(values), min(values), max(values)) if values else None


def spread(samples: list[dict], case: str, proxy: str, figure: str) -> Spread | None:
    return Spread.of([s[figure] for s in samples if s["case"] == case and s["proxy"] == proxy])


def ratio(samples: list[dict], case: str, proxy: str, other: str, figure: str) -> Spread | None:
    """Each round's own quotient, then the median: what a round suffers, both its samples suffer.

    A round in which either failed has no quotient.
    """
    def by_round(name: str) -> dict[int, float]:
        return {s["round"]: s[figure] for s in samples if s["case"] == case and s["proxy"] == name}

    ours, theirs = by_round(proxy), by_round(other)
    return Spread.of([ours[r] / theirs[r] for r in ours if theirs.get(r)])


def brief(sample: Sample) -> str:
    match sample:
        case LoadSample():
            return (f"{sample.cpu_us:6.2f} µs/request  {sample.per_second:8.0f}/s  core {sample.busy:4.0%}"
                    f"  foreign {sample.foreign:4.0%}")
        case IdleSample():
            return f"{sample.kib_each:6.2f} KiB each"


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def markdown(results: dict) -> str:
    about = results["about"]
    lines = [
        "# Load",
        "",
        f"{about['date']}, {about['cpu']}, Linux {about['kernel']}. {counted(about['rounds'], 'round')}, "
        f"{about['seconds']} s of load each, {about['connections']} connections; one core for the proxy, "
        "one for load and origin. Median (least–most). What each column means: [README](../README.md).",
        "",
        "; ".join(about["versions"].values()) + ".",
        "",
    ]
    if results["failures"]:
        lines += ["**Incomplete: some runs failed.**", ""]
        lines += [f"- {_round(f['round'])}, {f['case']}, {f['proxy']}: {f['error'].splitlines()[0]}"
                  for f in results["failures"]]
        lines.append("")
    for case in about["cases"]:
        table = _idle_table if isinstance(CASES[case], Idle) else _load_table
        lines += [f"## {CASES[case].title}", "", *table(results, case), ""]
        if rate := about.get("rates", {}).get(case):
            lines += [f"Asked for at {rate:,.0f} requests/s.", ""]
    lines += _noise(results["samples"])
    return "\n".join(lines) + "\n"


def _load_table(results: dict, case: str) -> list[str]:
    # At a rate that all keep up with latencies tell them apart.
    figure, prefix = (LOAD_FIGURE, "") if CASES[case].pace is None else (PACED_FIGURE, "p99 ")
    compared = _compared(results, case, prefix)
    rows = _header("proxy", "CPU µs/request", "of it kernel", *compared.values(), "requests/s", "p50 µs",
                   "p99 µs", "RSS MiB", "syscalls/request", "core busy")
    samples = results["samples"]
    for proxy in _serving(results, case):
        of = partial(spread, samples, case, proxy)
        rows.append(row(
            PROXIES[proxy].label,
            _ranged(of("cpu_us"), 1),
            _plain(of("system_us"), 1),
            *(_ranged(ratio(samples, case, proxy, other, figure), 2) for other in compared),
            _ranged(of("per_second"), 0),
            _plain(of("p50_us"), 0),
            _plain(of("p99_us"), 0),
            _plain(of("rss_mib"), 1),
            _syscalls(results["syscalls"], case, proxy),
            _percent(of("busy")),
        ))
    negotiated = sorted({s["tls"] for s in samples if s["case"] == case and s["tls"]})
    if negotiated:
        rows += ["", f"Negotiated: {'; '.join(negotiated)}."]
    for proxy in _serving(results, case):
        rows += _redis(samples, case, proxy)
    return rows


def _redis(samples: list[dict], case: str, proxy: str) -> list[str]:
    uses = [s["redis"] for s in samples if s["case"] == case and s["proxy"] == proxy and s["redis"]]
    if not uses:
        return []
    part, cpu = (Spread.of([use[figure] for use in uses]) for figure in ("part", "cpu_us"))
    return ["", f"{PROXIES[proxy].label}: {_percent(part)} of the answers came from Redis, which itself used "
                f"{_ranged(cpu, 1)} µs/request, on the core of the load."]


def _idle_table(results: dict, case: str) -> list[str]:
    compared = _compared(results, case)
    rows = _header("proxy", "KiB per connection", *compared.values(), "RSS before MiB", "RSS with them MiB")
    samples = results["samples"]
    for proxy in _serving(results, case):
        rows.append(row(
            PROXIES[proxy].label,
            _ranged(spread(samples, case, proxy, "kib_each"), 1),
            *(_ranged(ratio(samples, case, proxy, other, IDLE_FIGURE), 2) for other in compared),
            _plain(spread(samples, case, proxy, "base_mib"), 1),
            _plain(spread(samples, case, proxy, "held_mib"), 1),
        ))
    return rows


def _serving(results: dict, case: str) -> list[str]:
    return [proxy for proxy in results["about"]["proxies"] if PROXIES[proxy].serves(CASES[case])]


def _compared(results: dict, case: str, prefix: str = "") -> dict[str, str]:
    """By name of a proxy, the heading of a column of quotients."""
    return {proxy: f"{prefix}× {COMPARED[proxy]}" for proxy in COMPARED if proxy in _serving(results, case)}


def _noise(samples: list[dict]) -> list[str]:
    foreign = Spread.of([s["foreign"] for s in samples if "foreign" in s])
    if foreign is None:
        return []
    return [f"Noise: other work on the proxy's core took {foreign.middle:.1%} of it "
            f"(median; at most {foreign.most:.1%})."]


def _round(name: int | str) -> str:
    return f"round {name}" if isinstance(name, int) else name


def _syscalls(calls: list[dict], case: str, proxy: str) -> str:
    for entry in calls:
        if (entry["case"], entry["proxy"]) == (case, proxy):
            return f"{sum(entry['per_request'].values()):.1f}"
    return "–"


def _header(*names: str) -> list[str]:
    return [row(*names), row("---", *["---:"] * (len(names) - 1))]


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _ranged(value: Spread | None, digits: int) -> str:
    if value is None:
        return "–"
    return f"{value.middle:,.{digits}f} ({value.least:,.{digits}f}–{value.most:,.{digits}f})"


def _plain(value: Spread | None, digits: int) -> str:
    return "–" if value is None else f"{value.middle:,.{digits}f}"


def _percent(value: Spread | None) -> str:
    return "–" if value is None else f"{value.middle:.0%}"

"""results.json → one picture: CPU per request of every load case, memory of the idle connections.

Run by the interpreter of the bench's virtual environment: `plot.py RESULTS.json PICTURE.png`.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.patches import Patch  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.cases import CASES, Cache, Idle, Limit  # noqa: E402
from harness.proxies import PROXIES  # noqa: E402
from harness.report import IDLE_FIGURE, LOAD_FIGURE, PACED_FIGURE, counted, spread  # noqa: E402

# One colour per program, a lighter shade for its variant.
COLOURS = {
    "bare": "#8c8c8c",
    "tollgate": "#d1495b",
    "tollgate-headers-off": "#eaa8b1",
    "nginx": "#1b6ca8",
    "nginx-headers": "#8fbcdd",
    "haproxy": "#e0a030",
    "varnish": "#5a9367",
    "floor": "#c9c9c9",
}
SHORT = {
    "proxied-1k": "1 KiB",
    "proxied-64k": "64 KiB",
    "tls-h1-1k": "TLS HTTP/1.1\n1 KiB",
    "tls-h2-1k": "TLS HTTP/2\n1 KiB",
    "hit-1k": "1 KiB",
    "hit-64k": "64 KiB",
    "hit-head": "HEAD",
    "hit-unchanged": "304",
    "tls-h1-hit-1k": "TLS HTTP/1.1\n1 KiB",
    "tls-h2-hit-1k": "TLS HTTP/2\n1 KiB",
    "redis-hit-1k": "1 KiB\n(others: in memory)",
    "redis-hit-64k": "64 KiB\n(others: in memory)",
    "refused": "refused",
    "tls-h2-refused": "TLS HTTP/2\nrefused",
    "limited-hit-1k": "hit in memory\n1 KiB",
    "paced-hit-1k": "hit in memory\n1 KiB",
    "idle-1000": "1,000\nconnections",
    "idle-10000": "10,000\nconnections",
}
IN_A_ROW = 3


@dataclass(frozen=True)
class Panel:
    cases: list[str]
    figure: str
    title: str
    unit: str


def draw(results: dict, picture: Path) -> None:
    about = results["about"]
    load = [case for case in about["cases"] if not isinstance(CASES[case], Idle) and CASES[case].pace is None]
    paced = [case for case in about["cases"] if not isinstance(CASES[case], Idle) and CASES[case].pace is not None]
    limited = [case for case in load if CASES[case].limit is not Limit.OFF]
    from_cache = {cache: [case for case in load if CASES[case].cache is cache and case not in limited]
                  for cache in Cache}
    idle = [case for case in about["cases"] if isinstance(CASES[case], Idle)]
    panels = [panel for panel in (
        Panel(from_cache[Cache.OFF], LOAD_FIGURE, "CPU per proxied request", "µs, user + kernel"),
        Panel(from_cache[Cache.MEMORY], LOAD_FIGURE, "CPU per hit in memory", "µs, user + kernel"),
        Panel(from_cache[Cache.REDIS], LOAD_FIGURE, "CPU per hit in Redis", "µs, user + kernel, without Redis itself"),
        Panel(limited, LOAD_FIGURE, "CPU per request under a limit", "µs, user + kernel"),
        Panel(paced, PACED_FIGURE, "p99 at half of what nginx does at most", "µs"),
        Panel(idle, IDLE_FIGURE, "Memory of an idle connection", "KiB of RSS above the base"),
    ) if panel.cases]
    rows = [panels[at:at + IN_A_ROW] for at in range(0, len(panels), IN_A_ROW)]
    figure = plt.figure(figsize=(6.5 * len(rows[0]) + 2, 5 * len(rows) + 0.6), layout="constrained")
    for row, part in zip(rows, figure.subfigures(len(rows), 1, squeeze=False)[:, 0], strict=True):
        widths = [max(2, len(panel.cases)) for panel in row]
        axes = part.subplots(1, len(row), squeeze=False, width_ratios=widths)[0]
        for axis, panel in zip(axes, row, strict=True):
            _bars(axis, results, panel)
            axis.set_title(panel.title, loc="left", fontweight="bold")
            axis.set_ylabel(panel.unit)
    legend = [Patch(color=COLOURS[proxy], label=PROXIES[proxy].label) for proxy in about["proxies"]]
    figure.legend(handles=legend, loc="outside lower center", ncols=len(legend), frameon=False)
    figure.suptitle(
        f"{about['cpu']}, one core for the proxy, {about['connections']} connections; medians of "
        f"{counted(about['rounds'], 'interleaved round')}, lines from least to most; lower is better",
        fontsize=9, color="#555555",
    )
    figure.savefig(picture, dpi=150)


def _bars(axis: Axes, results: dict, panel: Panel) -> None:
    proxies = results["about"]["proxies"]
    width = 0.84 / len(proxies)
    for index, proxy in enumerate(proxies):
        offset = (index - (len(proxies) - 1) / 2) * width
        found = [(at, s) for at, case in enumerate(panel.cases)
                 if (s := spread(results["samples"], case, proxy, panel.figure))]
        bars = axis.bar(
            [at + offset for at, _ in found], [s.middle for _, s in found], width * 0.92,
            yerr=[[s.middle - s.least for _, s in found], [s.most - s.middle for _, s in found]],
            error_kw={"elinewidth": 1, "ecolor": "#333333"},
            color=COLOURS[proxy],
        )
        axis.bar_label(bars, [f"{s.middle:.1f}" for _, s in found], padding=2, fontsize=7.5)
    axis.set_xticks(range(len(panel.cases)), [SHORT[case] for case in panel.cases])
    axis.set_ylim(bottom=0)
    axis.margins(y=0.12)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", linewidth=0.5, alpha=0.4)
    axis.set_axisbelow(True)
    axis.tick_params(axis="x", length=0)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))

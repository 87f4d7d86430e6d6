"""What is made of results: the table, the plot and the section of the README."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from . import readme, report, setup

RESULTS = setup.ROOT / "bench" / "results"


def publish(directory: Path, plotting: Path | None) -> None:
    """Of `results.json` there; `plotting` is an interpreter with matplotlib. The README tells of the committed results alone."""
    raw = directory / "results.json"
    results = json.loads(raw.read_text())
    (directory / "load.md").write_text(report.markdown(results))
    if plotting:
        plot = setup.LOAD / "harness" / "plot.py"
        subprocess.run([plotting, plot, raw, directory / "load.png"], check=True)
    if directory.resolve() == RESULTS:
        readme.renew(setup.ROOT / "README.md", results)

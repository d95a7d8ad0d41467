"""The plots of docs/performance.md: `.venv/bench/bin/python bench/plots.py RESULTS.json DIRECTORY`, PNG and SVG each.

A script of the bench's own environment, the only one that has matplotlib. Each picture carries the SHA-256 of the
figures that it was drawn from, so that a test sees an old one.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402 - the backend comes first
from matplotlib.figure import Figure  # noqa: E402

OURS, OTHERS, CLIENT, SERVER = "#4338ca", "#94a3b8", "#4338ca", "#f59e0b"
DPI = 120
# the same figures must give the same bytes
mpl.rcParams.update({"svg.hashsalt": "bench", "svg.fonttype": "none", "font.size": 10, "font.family": "DejaVu Sans"})


def main() -> None:
    source, folder = Path(sys.argv[1]), Path(sys.argv[2])
    text = source.read_bytes()
    series = json.loads(text)["series"]
    stamp = f"{source.name} sha256:{hashlib.sha256(text).hexdigest()}"
    for name, figure in (("bench-rate", rates(series)), ("bench-cpu", cpu(series))):
        figure.savefig(folder / f"{name}.png", dpi=DPI, metadata={"Description": stamp, "Software": None})
        figure.savefig(folder / f"{name}.svg", metadata={"Description": stamp, "Date": None})
        plt.close(figure)


def rates(series: list[dict[str, Any]]) -> Figure:
    """Rows per second of the copy: the median as a bar, the smallest and the largest as a line."""
    figure, panels = _panels(series)
    for (table, mine), axes in zip(_tables(series).items(), panels, strict=True):
        for place, one in enumerate(mine):
            speeds = [one["rows"] / run["copy_s"] / 1e6 for run in one["runs"]]
            axes.barh(place, median(speeds), color=OURS if one["name"] == "offload" else OTHERS)
            axes.plot([min(speeds), max(speeds)], [place, place], color="black", linewidth=1)
            axes.text(max(speeds), place, f" {median(speeds):.2f}", va="center")
        _finish(axes, mine, f"{table}: million rows per second of the copy")
    return figure


def cpu(series: list[dict[str, Any]]) -> Figure:
    """CPU seconds per million rows, medians: of the client, and on top of them of ClickHouse."""
    figure, panels = _panels(series)
    for (table, mine), axes in zip(_tables(series).items(), panels, strict=True):
        for place, one in enumerate(mine):
            client, server = (
                median(run[key] for run in one["runs"]) / one["rows"] * 1e6 for key in ("client_cpu_s", "server_cpu_s")
            )
            axes.barh(place, client, color=CLIENT, label="client" if place == 0 else None)
            axes.barh(place, server, left=client, color=SERVER, label="ClickHouse" if place == 0 else None)
            axes.text(client + server, place, f" {client + server:.1f}", va="center")
        axes.legend(loc="lower right", frameon=False)
        _finish(axes, mine, f"{table}: CPU seconds per million rows")
    return figure


def _tables(series: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for one in series:
        found.setdefault(one.get("table", "bronze_trades"), []).append(one)
    return found


def _panels(series: list[dict[str, Any]]) -> tuple[Figure, list[Any]]:
    heights = [0.6 + 0.38 * len(mine) for mine in _tables(series).values()]
    figure, panels = plt.subplots(
        len(heights), 1, figsize=(9, sum(heights) + 0.6), height_ratios=heights, layout="constrained", squeeze=False
    )
    return figure, [row[0] for row in panels]


def _finish(axes: Any, mine: list[dict[str, Any]], title: str) -> None:
    axes.set_yticks(range(len(mine)), [f"{one['name']}, {one['rows'] / 1e6:g} M rows" for one in mine])
    axes.invert_yaxis()
    axes.set_title(title, loc="left", fontsize=10)
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()

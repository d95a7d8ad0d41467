"""The gate of `make bench-quick`: the ratios of a small bench against recorded ones.

Seconds say nothing on a machine that other work shares; ratios of neighbours in time still do. Each is written so that
more is better for this project.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.goals import OURS
from bench.results import Results, ratio, speed_up
from local.paths import ROOT

RECORDED = ROOT / "bench" / "quick.json"
TOLERANCE = 0.30
"""A ratio that is lower than the recorded one by a larger share than this has regressed."""
RECORD_COMMAND = "make bench-quick ARGS=--record"


@dataclass(frozen=True, slots=True)
class Judged:
    """One ratio: what was recorded (None: nothing), what was found (None: its contender has no figures)."""

    name: str
    recorded: float | None
    found: float | None

    @property
    def regressed(self) -> bool:
        if self.recorded is None:
            return False
        return self.found is None or self.found < self.recorded * (1 - TOLERANCE)

    def __str__(self) -> str:
        found = "no figure" if self.found is None else f"{self.found:.2f}×"
        if self.recorded is None:
            return f"not recorded: {self.name}: {found}"
        verdict = f"REGRESSED by more than {TOLERANCE:.0%}" if self.regressed else "held"
        return f"{verdict}: {self.name}: {found} (recorded {self.recorded:.2f}×)"


def ratios(results: Results) -> dict[str, float]:
    """What is compared, by name: the median of the rounds."""
    found: dict[str, float] = {}
    ours = results.of(OURS)
    for other in results.series:
        if other.name == OURS:
            continue
        figures = {"rows/s of the copy": speed_up(ours, other)}
        if any(run.bytes for run in other.runs):
            figures |= {
                "rows/s of the whole process": ratio(ours, other, lambda r: r.process_s),
                "CPU, client and ClickHouse": ratio(ours, other, lambda r: r.client_cpu_s + r.server_cpu_s),
                "CPU of ClickHouse": ratio(ours, other, lambda r: r.server_cpu_s),
                "bytes written": ratio(ours, other, lambda r: r.bytes),
            }
        found |= {f"{what}, against {other.name}": round(spread.median, 3) for what, spread in figures.items()}
    return found


def compare(recorded: Mapping[str, float], found: Mapping[str, float]) -> list[Judged]:
    """Every ratio that was recorded or found."""
    return [Judged(name, recorded.get(name), found.get(name)) for name in dict.fromkeys([*recorded, *found])]


def record(results: Results, path: Path = RECORDED) -> None:
    """Write the ratios of these results: what later benches are held to."""
    document = {"made": results.made, "commit": results.commit, "rows": results.rows, "ratios": ratios(results)}
    path.write_text(json.dumps(document, indent=2) + "\n")


def judge(results: Results, path: Path = RECORDED) -> tuple[int, list[str]]:
    """An exit code, 1 for any regression, and a line for each ratio. Without a record every bench fails."""
    if not path.exists():
        return 1, [f"{path.name} is missing: {RECORD_COMMAND} writes it"]
    judged = compare(json.loads(path.read_text())["ratios"], ratios(results))
    return int(any(one.regressed for one in judged)), [str(one) for one in judged]

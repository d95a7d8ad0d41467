"""docs/scaling.md: its figures are those of the bench, whether two workers were measured or not."""

from __future__ import annotations

import json
from pathlib import Path

from docs.scaling_page import RESULTS, page


def record(folder: Path) -> Path:
    """Two rounds of 1,200 rows: 12 and 15 s on one worker, 6 s on two."""
    runs = [(1, 1, 12.0), (2, 1, 6.0), (1, 2, 15.0), (2, 2, 6.0)]
    file = folder / "scaling.json"
    figures = [
        {"workers": w, "round": n, "seconds": s, "clickhouse_cpu_s": 0.6, "slices": 13, "load": 1.5} for w, n, s in runs
    ]
    link = {"latency_ms": 20.0, "mb_per_s": 4.0}
    head = {"made": "2026-11-23T12:00:00Z", "commit": "c", "rows": 1_200, "rounds": 2, "cores": 2, "slices": 13}
    file.write_text(json.dumps({**head, "link": link, "runs": figures}))
    return file


def test_the_ratio_is_that_of_each_round(tmp_path: Path) -> None:
    text = page("by a test", record(tmp_path))
    assert "| rows/s | 90 (80–100) | 200 (200–200) |" in text
    assert "| of the same round | | 2.25× (2.00×–2.50×) |" in text
    assert "| cores that ClickHouse kept busy | | 0.10 (0.10–0.10) |" in text


def test_the_cores_for_a_night_made_good_come_from_the_measurement(tmp_path: Path) -> None:
    """8 hours of 11,574 rows/s within an hour, and what comes meanwhile: 104,167 rows/s, at 100 rows/s a core."""
    assert "| 1042 cores of workers, `slice.concurrency: 1042`" in page("by a test", record(tmp_path))


def test_without_a_measurement_the_page_says_so_and_computes_from_the_bench(tmp_path: Path) -> None:
    text = page("by a test", tmp_path / "none.json", RESULTS)
    assert "Not measured yet" in text
    assert "cores of workers" not in text
    assert "rows/s: " in text

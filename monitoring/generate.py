"""Write Prometheus' rules and the dashboards: `python -m monitoring.generate`.

`--check` writes nothing and exits 1 when a file is stale.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import yaml

from monitoring.alerts import alerts
from monitoring.dashboards import build
from monitoring.records import Record, records
from monitoring.values import PROFILES, Values, load

RULES = Path(__file__).parent / "prometheus" / "rules"
HEADER = "# Made by `python -m monitoring.generate` from monitoring/values.yaml; do not edit.\n"


def records_file(v: Values) -> str:
    """The recording rules of a profile: the quick group at the global interval, the long windows seldom."""
    quick = [_record(one) for one in records(v) if not one.slow]
    slow = [_record(one) for one in records(v) if one.slow]
    return _yaml(
        [
            {"name": "offload-records", "rules": quick},
            {"name": "offload-objectives", "interval": v.text("slow_interval"), "rules": slow},
        ]
    )


def _record(one: Record) -> dict[str, object]:
    return {"record": one.name, "expr": one.expr} | ({"labels": one.labels} if one.labels else {})


def alerts_file(v: Values) -> str:
    """The alerts of a profile."""
    return _yaml([{"name": "offload-alerts", "rules": [one.rule(v) for one in alerts(v)]}])


def _yaml(groups: list[dict[str, object]]) -> str:
    return HEADER + yaml.safe_dump({"groups": groups}, sort_keys=False, width=110, allow_unicode=True)


def files() -> dict[Path, str]:
    """Every file of rules with its text."""
    out = {}
    for profile in PROFILES:
        v = load(profile)
        out[RULES / profile / "records.yaml"] = records_file(v)
        out[RULES / profile / "alerts.yaml"] = alerts_file(v)
    return out


def main() -> int:
    """Write or check all files; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file is stale")
    check = parser.parse_args().check
    wanted = files() | build.files()
    stale = [p for p, text in wanted.items() if not p.exists() or p.read_text(encoding="utf-8") != text]
    for path in stale:
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[path], encoding="utf-8")
        name = path.relative_to(RULES.parents[2])
        sys.stdout.write(f"{name} {'is stale: run `make docs`' if check else 'written'}\n")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())

"""Write the generated pages: `python docs/generate.py`. With `--check` nothing is written; exit 1 when one is stale.

The sources are the command line itself, `errors.py`, `error_notes.py` and `metrics.py` of `include/offload`,
the rules and the dashboards of `monitoring/`, the tested cases of `docs/type_cases.py`, the figures of `bench/`, and
the records of `make torture` and `make test-runbooks`, each a `record.json` in its folder of `tests/`. The page of the
table specs has its own generator, `python -m include.offload.spec.schema`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from docs import cli_page, reliability_page, runbooks_page, scaling_page  # noqa: E402
from docs.type_cases import types_page  # noqa: E402
from include.offload import errors, metrics  # noqa: E402
from include.offload.error_notes import NOTES  # noqa: E402
from monitoring import alerts, records, values  # noqa: E402
from monitoring.dashboards import build  # noqa: E402

HEADER = "<!-- Made by `python docs/generate.py`; do not edit. -->"
GROUPS = {
    "1": "The spec and the settings",
    "2": "The source, ClickHouse",
    "3": "The target, Iceberg and its catalog",
    "4": "The protocol",
    "5": "The ledger and the machine",
    "6": "Maintenance",
}
"""By the first digit of an id."""


def errors_page() -> str:
    """docs/errors.md."""
    parts = [
        "# Error ids\n",
        HEADER + "\n",
        "Every refusal has an id, names its table and its cause, and ends with the next thing to type. The last lines"
        " of a failed task's log have all of it; `bin/offload errors ID` prints one entry of this page.\n",
        "**Retry** says whether the same task may succeed when it is simply run again. Airflow retries those by itself"
        " and fails the others at once. No refusal leaves half a commit: a plan is in the Iceberg table as a whole, or"
        " not at all ([exactly-once.md](exactly-once.md)).\n",
        "| id | what happened | retry | next |",
        "| --- | --- | --- | --- |",
        *(
            f"| [{k.id}](#{k.id.lower()}) | {k.title} | {'yes' if k.retry else ''} | {_next(k)} |"
            for k in errors.REGISTRY.values()
        ),
    ]
    group = ""
    for kind in errors.REGISTRY.values():
        digit = kind.id.removeprefix("OFL-")[0]
        if digit != group:
            group = digit
            parts.append(f"\n## {GROUPS[digit]}")
        parts.append(f"\n### {kind.id}\n\n**{kind.title[0].upper()}{kind.title[1:]}.**\n")
        if kind.id in NOTES:
            parts.append(" ".join(NOTES[kind.id].split()) + "\n")
        again = "yes, Airflow does it by itself" if kind.retry else "no, running it again changes nothing"
        parts.append(f"- Next: {_next(kind)}\n- Retry: {again}")
    return "\n".join(parts) + "\n"


def _next(kind: errors.ErrorKind) -> str:
    """What to do next as Markdown: a command as code, words as they are."""
    step = kind.next_step.replace("{table}", "TABLE")
    command = kind.command_for(None)
    return step if command is None else step.replace(command, f"`{command}`", 1)


FLEET = 1_000
"""The number of tables that the docs state the number of series for."""


def metrics_page() -> str:
    """docs/metrics.md."""
    v = values.load("production")
    recorded = records.records(v)
    own = sum(metrics.series(m, FLEET) for m in metrics.REGISTRY.values())
    by_rules = FLEET * sum(one.each for one in recorded if not one.labels) + sum(bool(one.labels) for one in recorded)
    return "\n".join(
        [
            "# Metrics\n",
            HEADER + "\n",
            "What the pipeline says of itself, sent over StatsD and served to Prometheus by `statsd_exporter` with"
            " [`monitoring/statsd-mapping.yaml`](../monitoring/statsd-mapping.yaml). Ages, lag and rates are not sent:"
            " a gauge that holds an age freezes when its sender dies. Instants are sent, ages computed from them.\n",
            metrics.markdown(),
            "## Recording rules\n",
            "What Prometheus computes from them, by `table` alone"
            " ([`monitoring/records.py`](../monitoring/records.py)).\n",
            "| series | meaning |\n| --- | --- |",
            *(f"| `{_labelled(one)}` | {one.meaning} |" for one in recorded),
            "\n## How many series\n",
            f"For {FLEET:,} tables: {own:,} series of our own (no label but `table` grows; a histogram has"
            f" {len(metrics.DURATION_BUCKETS) + 3} series a table) and at most {by_rules:,} by recording rules. Of"
            " Airflow's metrics, three histograms and two counters have a `dag_id`, two of the histograms also a"
            " `run_type`, and two more histograms and a counter a `task_id`:"
            f" {FLEET * _airflow_series():,} series more at most, with three tasks a table and runs on"
            " schedule, by hand, of a catch-up and of a backfill. No run, plan or host is a label.\n",
        ]
    )


def _labelled(one: records.Record) -> str:
    return one.name + "".join(f'{{{k}="{x}"}}' for k, x in one.labels.items())


def _airflow_series() -> int:
    """A table's series of Airflow: durations of runs by end and run type, their delay, tasks' times and end states."""
    histogram, tasks, states, ends, run_types, missed = len(metrics.DURATION_BUCKETS) + 3, 3, 7, 2, 4, 1
    return (ends * run_types + 1) * histogram + tasks * (2 * histogram + states) + missed


def alerts_page() -> str:
    """docs/alerts.md."""
    v = values.load("production")
    return "\n".join(
        [
            "# Alerts\n",
            HEADER + "\n",
            "Thresholds and durations are in [`monitoring/values.yaml`](../monitoring/values.yaml), for production and,"
            " shorter, for tests; `make docs` writes the rules from them. A table's own limits are in its spec:"
            " `alerts: {lag: 1h, cycle: 20m, ttl_headroom: 2d}`. Lag is a sawtooth: LagCritical, LagElevated and"
            " FallingBehind look at its trough, WatermarkStale and the freshness budget at more than an hour or a share"
            " of it, and none fires on one failed run. A table of which nothing new has settled has no lag while its"
            " runs succeed: each of them moves the watermark over empty windows. When runs fail, the lag grows, rows or"
            " not.\n",
            "TTL limits are 6 hours and a day whatever the TTL is: no metric carries it. A table whose rows live less"
            " than about two days needs `alerts.ttl_headroom` in its spec, at most a sixth of what is left of the TTL"
            " after window, settle and schedule; the warning comes at four times it. Without, it warns while all is"
            " well; `bin/offload spec check --source` and `spec new` say what to write.\n",
            "The durations are those of a run every 15 minutes. A longer schedule moves the default lag limit by twice"
            " the difference, counted by the longest pause between two runs: 30 minutes become two hours for a run an"
            " hour, two days for a run a day, and five days where the weekend is a pause; `alerts.lag` in the spec says"
            " it better. LagElevated and FallingBehind look at the least lag of two intervals, and not at all at"
            " schedules of more than a day. The rates of success want 5 runs within 6 hours. RowsMismatch waits 16"
            " minutes: two looks with a run every 15 minutes, one with a longer schedule.\n",
            "RowsMismatch is critical, for windows that differ and for rows that came after the horizon alike: no run"
            " ships them by itself, and a TTL may delete them.\n",
            "While Airflow's scheduler is down, alerts with the symptoms lag, failures and speed are silent. `data`"
            " alerts, rows in danger, are never silenced. Routes and receivers:"
            " [`monitoring/alertmanager/alertmanager.yml`](../monitoring/alertmanager/alertmanager.yml). Every alert is"
            " proved at production durations by"
            " [`monitoring/prometheus/tests/`](../monitoring/prometheus/tests/lag.yaml). An alert's link opens the"
            " panel that shows what it looks at ([dashboards.md](dashboards.md)).\n",
            "On one machine `bin/offload stack start` starts Prometheus and Alertmanager with everything else"
            " (`monitoring` alone starts the two and the exporter). `OFFLOAD_ALERT_WEBHOOK=URL` makes every receiver"
            " post there, `OFFLOAD_ALERT_PROFILE=fast` takes the rules with short durations.\n",
            f"A restart of statsd_exporter resolves nothing: for {v.text('memory')} Prometheus remembers what a table"
            " last said, of its maintenance without an end, whether or not it runs, its spec is valid or the scheduler"
            " is up. After the exporter was away"
            f" for half of {v.text('memory_scraped')} no lag is computed from that, since runs may have landed unheard;"
            " the TTL headroom is. So a table that is taken out of the specs keeps its alerts:"
            " `bin/offload metrics --retire DB.TABLE` ends them, and is refused while its spec file is there.\n",
            "| alert | severity | symptom | when | runbook |",
            "| --- | --- | --- | --- | --- |",
            *(
                f"| `{a.name}` | {a.severity} | {a.symptom} | {a.when} | `{alerts.RUNBOOKS[a.name]}` |"
                for a in alerts.alerts(v)
            ),
            "",
        ]
    )


DASHBOARDS = """\
Three Grafana dashboards. Each asks in the same order: is every row safe, how far behind, what broke, what does it cost.
The first row answers in words; no answer is red, never green.

**Queried, not rendered.** No Grafana was at hand where they were written. Every query of every panel and variable is
asked of a real Prometheus, after a run that ends well and one that fails
([`tests/integration/test_dashboards.py`](../tests/integration/test_dashboards.py)), and the JSON follows the schema of
Grafana 11.6 ([`tests/integrity/test_dashboards.py`](../tests/integrity/test_dashboards.py)), the newest that
`grafana-foundation-sdk` has; the Grafana 12.4 of `docker-compose.yaml` should read it. How they look, and what a click
does, nobody has seen.

- The JSON in `monitoring/grafana/dashboards/` is made by [`monitoring/dashboards/`](../monitoring/dashboards/build.py):
  `make docs` writes it, `make lint` says when it is stale.
- Limits are those of the [alerts](alerts.md): where an alert fires on a condition, its panel counts by the same words,
  and every colour's limit is from [`monitoring/values.yaml`](../monitoring/values.yaml). The page of one table uses the
  table's own limits for lag and cycle time, where its spec sets them.
- An alert's link opens the panel that shows what it looks at; its corner links to the runbook. Runbooks, Grafana
  and Airflow are found at the addresses in `monitoring/values.yaml`: set yours, then `make docs`. Until `runbooks` is a
  web address, a runbook's link names its file and leads nowhere.
- With Docker Compose: [howto-docker-compose.md](howto-docker-compose.md#monitoring). In your own Grafana: import the
  three files and choose your Prometheus at the top.
- Cost is job time by the clock, and bytes of Parquet, for a million rows. CPU time and ClickHouse's own cost are not
  measured.
- Prometheus counts from the second time it sees a series: after a start of statsd_exporter the first run of a table is
  in no rate.
"""


def dashboards_page() -> str:
    """docs/dashboards.md."""
    found = build.pages(values.load("production"))
    parts = ["# Dashboards\n", HEADER + "\n", DASHBOARDS]
    for page in found:
        parts.append(f"## {page.title}\n\n`{page.uid}`. {page.description}\n")
        for row in page.rows:
            parts.append(f"### {row.title.replace('$table', 'the table')}\n")
            parts.append("| panel | what it says | next | no data while all is well |\n| --- | --- | --- | --- |")
            for panel in row.panels:
                says, _, step = panel.description.partition("Next: ")
                quiet = "; ".join(sorted({query.quiet for query in panel.queries if query.quiet}))
                parts.append(f"| {panel.title} | {says.strip()} | {step[0].upper()}{step[1:]} | {quiet} |")
            parts.append("")
    return "\n".join(parts)


PAGES = {
    "docs/cli.md": lambda: cli_page.page(HEADER),
    "docs/errors.md": errors_page,
    "docs/metrics.md": metrics_page,
    "docs/reliability.md": lambda: reliability_page.page(HEADER),
    "docs/alerts.md": alerts_page,
    "docs/dashboards.md": dashboards_page,
    "docs/operations/runbooks/REPORT.md": lambda: runbooks_page.page(HEADER),
    "docs/scaling.md": lambda: scaling_page.page(HEADER),
    "docs/types.md": lambda: types_page(HEADER),
}


def main() -> int:
    """Write or check all pages; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a page is stale")
    check = parser.parse_args().check
    stale = []
    for name, make in PAGES.items():
        path, text = ROOT / name, make()
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not check:
            path.write_text(text, encoding="utf-8")
    for name in stale:
        sys.stdout.write(f"{name} {'is stale: run `python docs/generate.py`' if check else 'written'}\n")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())

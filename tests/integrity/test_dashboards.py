"""The dashboards as files: Grafana's schema, thresholds, links, words. tests/integration asks their queries."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from include.offload.metrics import REGISTRY
from monitoring import values
from monitoring.alerts import alerts
from monitoring.dashboards.build import FOLDER, files, pages
from monitoring.dashboards.parts import NEVER_S
from monitoring.generate import RULES, alerts_file, records_file
from monitoring.panels import OVERVIEW, PIPELINE, TABLE, Overview, Pipeline, Table
from monitoring.records import REMEMBERED, records

ROOT = Path(__file__).resolve().parents[2]
PRODUCTION = values.load("production")
ALERTS = {one.name: one for one in alerts(PRODUCTION)}
IDS = {OVERVIEW: Overview, TABLE: Table, PIPELINE: Pipeline}
PAGES = {page.uid: page for page in pages(PRODUCTION)}
WRITTEN: dict[str, dict[str, Any]] = {uid: json.loads((FOLDER / f"{uid}.json").read_text("utf-8")) for uid in IDS}


def panels(uid: str) -> dict[int, dict[str, Any]]:
    """The panels of a written dashboard by id, without its rows."""
    return {p["id"]: p for p in WRITTEN[uid]["panels"] if p["type"] != "row"}


EVERY = [pytest.param(uid, p, id=f"{uid}-{p['id']}") for uid in IDS for p in panels(uid).values()]


@cache
def schema(name: str) -> dict[str, Any]:
    path = ROOT / "tests/support/schemas/grafana" / f"{name}.jsonschema.json"
    found: dict[str, Any] = _mended(json.loads(path.read_text(encoding="utf-8")))
    if name == "dashboard":
        known = found["definitions"]
        bounds = known["RangeMap"]["properties"]["options"]["properties"]
        for holder, field in ((known["Threshold"]["properties"], "value"), (bounds, "from"), (bounds, "to")):
            holder[field] = {"type": ["number", "null"]}
    return found


def _mended(part: Any) -> Any:
    """The schemas are written from CUE by a tool that has no word for "anything"; above, none for null."""
    if isinstance(part, list):
        return [_mended(one) for one in part]
    if not isinstance(part, dict):
        return part
    if part.get("type") == "object" and part.get("additionalProperties") == {}:
        return {}
    return {key: _mended(one) for key, one in part.items()}


def wrong(document: object, name: str, definition: str) -> list[str]:
    """Where a document breaks a definition of one of Grafana's schemas."""
    whole = {**schema(name), "$ref": f"#/definitions/{definition}"}
    validator = jsonschema.validators.validator_for(whole)(whole)
    return [f"{'/'.join(map(str, e.absolute_path))}: {e.message}" for e in validator.iter_errors(document)]


def test_the_written_dashboards_are_the_generated_ones() -> None:
    assert {p: p.read_text(encoding="utf-8") for p in files()} == files()
    assert set(FOLDER.iterdir()) == set(files())


# ----- as Grafana reads them


@pytest.mark.parametrize("uid", IDS)
def test_a_dashboard_follows_grafanas_schema(uid: str) -> None:
    assert not wrong(WRITTEN[uid], "dashboard", "Dashboard")
    assert wrong(WRITTEN[uid] | {"panles": []}, "dashboard", "Dashboard"), "the schema refuses nothing"
    assert wrong(WRITTEN[uid] | {"refresh": 60}, "dashboard", "Dashboard"), "the schema refuses nothing"


@pytest.mark.parametrize(("uid", "panel"), EVERY)
def test_a_panel_follows_the_schema_of_its_kind(uid: str, panel: dict[str, Any]) -> None:
    kind = panel["type"]
    assert not wrong(panel, "dashboard", "Panel")
    assert not wrong(panel.get("options", {}), kind, "Options")
    if kind in {"table", "timeseries"}:
        assert not wrong(panel["fieldConfig"]["defaults"].get("custom", {}), kind, "FieldConfig")
    for target in panel["targets"]:
        assert not wrong(target, "prometheus", "dataquery")


@pytest.mark.parametrize("uid", IDS)
def test_the_sdk_reads_what_it_wrote(uid: str) -> None:
    register_default_plugins()
    again = json.dumps(Dashboard.from_json(WRITTEN[uid]), cls=JSONEncoder)
    assert json.loads(again) == WRITTEN[uid]


@pytest.mark.parametrize("uid", IDS)
def test_panels_have_their_stable_ids_and_do_not_overlap(uid: str) -> None:
    found = WRITTEN[uid]["panels"]
    assert WRITTEN[uid]["uid"] == uid
    ids = [p["id"] for p in found]
    assert len(ids) == len(set(ids))
    assert set(panels(uid)) == {int(one) for one in IDS[uid]}
    cells = [
        (x, y)
        for p in found
        for x in range(p["gridPos"]["x"], p["gridPos"]["x"] + p["gridPos"]["w"])
        for y in range(p["gridPos"]["y"], p["gridPos"]["y"] + p["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells)), "two panels lie on one another"
    assert max(x for x, _ in cells) == 23
    height = max(y for _, y in cells) + 1
    assert len(cells) == 24 * height, "a hole in the page"


def test_each_page_asks_safety_first_then_lag_then_faults_then_cost() -> None:
    for uid in (OVERVIEW, TABLE):
        rows = [p["title"] for p in WRITTEN[uid]["panels"] if p["type"] == "row"]
        words = ("safe?", "How far behind", "What broke", "cost?")
        assert len(rows) == len(words)
        assert all(word in row for word, row in zip(words, rows, strict=True))
    for uid in IDS:
        rows_at = [i for i, p in enumerate(WRITTEN[uid]["panels"]) if p["type"] == "row"]
        first = WRITTEN[uid]["panels"][1 : rows_at[1]]
        assert {p["type"] for p in first} == {"stat"}, "the first row answers in words"


@pytest.mark.parametrize(("uid", "panel"), EVERY)
def test_a_panel_says_what_a_bad_value_means_and_what_to_do(uid: str, panel: dict[str, Any]) -> None:
    assert panel["title"]
    meaning, _, step = panel["description"].partition("Next: ")
    assert len(meaning) > 20
    assert len(step) > 10
    assert panel["targets"]
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert all(t["datasource"]["uid"] == "${datasource}" for t in panel["targets"])
    assert panel["type"] == "table" or panel["fieldConfig"]["defaults"]["unit"]
    assert panel["fieldConfig"]["defaults"]["noValue"] or panel["id"] == Overview.WORST


@pytest.mark.parametrize(("uid", "panel"), [e for e in EVERY if e.values[1]["type"] == "stat"])  # type: ignore[index]
def test_no_answer_is_never_green(uid: str, panel: dict[str, Any]) -> None:
    special = [m for m in panel["fieldConfig"]["defaults"]["mappings"] if m["type"] == "special"]
    assert [(m["options"]["match"], m["options"]["result"]["color"]) for m in special] == [("null", "red")]


# ----- thresholds


def bounds(page: dict[str, Any]) -> dict[int, list[float]]:
    """The limits of each panel of a dashboard: its thresholds but the lowest, which has no bound."""
    found = {p["id"]: p["fieldConfig"]["defaults"].get("thresholds", {}) for p in page["panels"] if p["type"] != "row"}
    return {id: [step["value"] for step in steps.get("steps", [])[1:]] for id, steps in found.items()}


LIMITS = {
    "lag_critical": "47m",
    "lag_elevated": "11m",
    "ttl_headroom_critical": "7h",
    "ttl_headroom_warning": "31h",
    "freshness_objective": 0.987,
    "success_rate": 0.87,
    "throughput": 43210,
    "throughput_least_rows": 1234567,
    "failures": 4,
    "watermark_stale": "3h",
    "scheduler_heartbeat": "4m",
    "dag_processor_heartbeat": "9m",
    "cycle_slow": "4m",
}


@pytest.mark.parametrize("other", [{}, LIMITS], ids=["as written", "all changed"])
def test_thresholds_are_those_of_values_yaml(other: dict[str, Any]) -> None:
    """Read from the file itself, in the units of the panels; and a limit that is changed is changed everywhere."""
    raw = yaml.safe_load((ROOT / "monitoring/values.yaml").read_text(encoding="utf-8"))["production"] | other
    changed = replace(PRODUCTION, all=raw)
    found = {p.uid: bounds(json.loads(json.dumps(p.built, cls=JSONEncoder))) for p in pages(changed)}
    if not other:
        assert found == {uid: bounds(page) for uid, page in WRITTEN.items()}
    second = {name: values.seconds(raw[name]) for name in raw if re.fullmatch(r"\d+[smhd]", str(raw[name]))}
    lag = [second["lag_elevated"] / 60, second["lag_critical"] / 60]
    ttl = [second["ttl_headroom_critical"], second["ttl_headroom_warning"]]
    wanted = {
        (OVERVIEW, Overview.TROUGH): lag,
        (OVERVIEW, Overview.LAG): lag,
        (OVERVIEW, Overview.EXPIRES): ttl,
        (TABLE, Table.EXPIRES): ttl,
        (TABLE, Table.TROUGH): [round(lag[0] / lag[1], 4), 1],
        (OVERVIEW, Overview.FRESH): [raw["freshness_objective"]],
        (TABLE, Table.FRESH): [raw["freshness_objective"]],
        (OVERVIEW, Overview.SUCCESS): [raw["success_rate"]],
        (TABLE, Table.SUCCESS): [raw["success_rate"]],
        (TABLE, Table.SPEED): [raw["throughput"]],
    }
    assert {(uid, id): found[uid][int(id)] for uid, id in wanted} == wanted
    others = {(uid, id): own for uid in IDS for id, own in found[uid].items() if (uid, id) not in wanted}
    assert {at: own for at, own in others.items() if own not in ([], [1])} == {}, "limits of their own"


@pytest.mark.parametrize("name", LIMITS)
def test_a_changed_limit_moves_the_alerts_and_the_dashboards(name: str) -> None:
    changed = replace(PRODUCTION, all={**PRODUCTION.all, name: LIMITS[name]})
    assert alerts_file(changed) + records_file(changed) != alerts_file(PRODUCTION) + records_file(PRODUCTION)
    texts = [json.dumps(page.built, cls=JSONEncoder) for page in pages(changed)]
    assert texts != [json.dumps(page.built, cls=JSONEncoder) for page in PAGES.values()]


# ----- links


def series(text: str) -> set[str]:
    """The names of our and Airflow's series in an expression, recorded ones as what they are computed from too."""
    pattern = r"\b(?:offload_|offload:|airflow_|watermark_|up\b|prometheus_|alertmanager_|ALERTS\b|vector\b)[\w:]*"
    return set(re.findall(pattern, text))


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_leads_to_a_panel_that_shows_what_it_looks_at(name: str) -> None:
    one = ALERTS[name]
    annotations: Any = one.rule(PRODUCTION)["annotations"]
    url = urlsplit(annotations["dashboard_url"])
    uid = url.path.removeprefix("/d/")
    asked = parse_qs(url.query)
    panel = panels(uid)[int(asked["viewPanel"][0])]
    has_table = "table" in {v["name"] for v in WRITTEN[uid]["templating"]["list"]}
    if "var-table" in asked:
        assert has_table
        assert asked["var-table"] == ["{{ $labels.table }}"]
    else:
        assert uid != TABLE
    queries = " ".join(t["expr"] for t in panel["targets"])
    assert series(queries) & series(one.expr) or one.name in {"Watchdog"} | BURNS, "it shows something else"
    links = {link["url"] for link in panel["links"]}
    assert f"{PRODUCTION.text('runbooks')}/{one.anchor}" in links


BURNS = {f"IcebergOffload{what}Burn{pace}" for what in ("Freshness", "Success") for pace in ("Fast", "Slow")}
"""They look at windows of the objectives; their panels show the objective over the longest of them, or all runs."""


def test_every_alert_that_fires_is_listed_with_its_runbook() -> None:
    queries = {uid: " ".join(t["expr"] for t in panels(uid)[20]["targets"]) for uid in IDS}
    for one in ALERTS.values():
        if one.severity != "none":
            assert f'alertname="{one.name}"' in queries[OVERVIEW]
            assert f'"runbook", "{one.anchor}"' in queries[OVERVIEW]
            assert (f'alertname="{one.name}"' in queries[TABLE]) == (one.dashboard == TABLE)


def test_every_variable_in_a_link_a_title_or_a_query_exists() -> None:
    built_in = {"__range", "__interval", "__data", "__url_time_range", "1", "2"}
    for uid, page in WRITTEN.items():
        known = {v["name"] for v in page["templating"]["list"]}
        used = {
            a or b for a, b in re.findall(r"\$(?:\{(\w+)[^}]*\}|(\w+))", json.dumps(page["panels"] + page["links"]))
        }
        assert used - built_in <= known, uid
        assert {"datasource"} <= known
    assert {"table", "dag"} <= {v["name"] for v in WRITTEN[TABLE]["templating"]["list"]}
    assert "table" in {v["name"] for v in WRITTEN[OVERVIEW]["templating"]["list"]}


def test_links_to_dashboards_name_real_ones_and_the_dag_is_linked() -> None:
    for page in WRITTEN.values():
        for uid in re.findall(r'"/d/([^"?]+)', json.dumps(page)):
            assert uid in IDS
    airflow = PRODUCTION.text("airflow")
    assert f"{airflow}/dags/${{dag}}" in {link["url"] for link in WRITTEN[TABLE]["links"]}
    assert f"{airflow}/dags/${{__data.fields.dag}}" in json.dumps(panels(OVERVIEW)[Overview.WORST])


# ----- queries


def test_every_series_of_a_query_is_sent_or_recorded() -> None:
    mapping = yaml.safe_load((ROOT / "monitoring/statsd-mapping.yaml").read_text(encoding="utf-8"))["mappings"]
    sent = {m["name"] for m in mapping} | set(REGISTRY)
    known = (
        {r.name for r in records(PRODUCTION)}
        | sent
        | {f"{n}{end}" for n in sent for end in ("_sum", "_count", "_bucket")}
    )
    text = " ".join(t["expr"] for uid in IDS for p in panels(uid).values() for t in p["targets"])
    text = re.sub(r'"[^"]*"', "", text)
    used = set(re.findall(r"\b(?:offload_|offload:|airflow_|watermark_)[\w:]+", text))
    assert used
    assert not used - known


def test_only_queries_that_say_why_may_have_no_data() -> None:
    quiet = [q for page in PAGES.values() for panel in page.panels() for q in panel.queries if q.quiet]
    assert all(len(q.quiet) > 10 for q in quiet)
    safe = [p for page in PAGES.values() for p in page.rows[0].panels for q in p.queries if q.quiet]
    assert [p.id for p in safe] == [Table.WATERMARK], "a first answer may not be silent"


# ----- what a table is said to be of which nothing is known


ANSWERS = (
    (OVERVIEW, Overview.SAFE),
    (OVERVIEW, Overview.EXPIRES),
    (OVERVIEW, Overview.LATE),
    (OVERVIEW, Overview.STANDS),
)
ONE_TABLE = ((TABLE, Table.SAFE), (TABLE, Table.EXPIRES), (TABLE, Table.STANDS), (TABLE, Table.BACK))
KNOWN = {
    "offload_expiry_timestamp_seconds": 0,
    "offload_settle_seconds": 120,
    "offload_window_seconds": 300,
    "watermark_timestamp_seconds": 1500,
}
"""Looked at and on time, half an hour after 1970 began; nothing of it expires."""


@pytest.mark.parametrize(
    ("known", "overview", "table"),
    [
        ((), (2, None, None, None), (1, None, None, None)),
        (("k2.a", "k2.b"), (0, NEVER_S, 0, 0), (0, NEVER_S, 0, 0)),
        (("k2.a",), (1, None, 0, 0), (0, NEVER_S, 0, 0)),
        (("k2.b",), (1, None, 0, 0), (1, None, None, None)),
    ],
    ids=["nothing is known", "both are healthy", "the other is unknown", "this one is unknown"],
)
def test_a_table_of_which_nothing_is_known_is_not_safe(
    tmp_path: Path,
    known: tuple[str, ...],
    overview: tuple[float | None, ...],
    table: tuple[float | None, ...],
) -> None:
    """Prometheus itself answers; None: no answer, which the panels show in red. The page of one table asks for k2.a."""
    given = {f'offload_cycles_total{{table="{one}",status="success"}}': "0x60" for one in ("k2.a", "k2.b")}
    given |= {f'{name}{{table="{one}"}}': f"{value}x60" for one in known for name, value in KNOWN.items()}
    asked = [*zip(ANSWERS, overview, strict=True), *zip(ONE_TABLE, table, strict=True)]
    checks = []
    for (uid, id), value in asked:
        (target,) = panels(uid)[int(id)]["targets"]
        expr = target["expr"].replace("$table", "k2.a" if uid == TABLE else ".+")
        samples = [] if value is None else [{"labels": "{}", "value": value}]
        checks.append({"expr": f"sum({expr})", "eval_time": "30m", "exp_samples": samples})
    case = {"interval": "1m", "input_series": [{"series": k, "values": x} for k, x in given.items()]}
    text = {
        "rule_files": [str(RULES / "production" / "records.yaml")],
        "tests": [case | {"promql_expr_test": checks}],
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(text), encoding="utf-8")
    command = [str(ROOT / ".venv/tools/bin/promtool"), "test", "rules", str(tmp_path / "test.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "metric",
    [one for one in REMEMBERED if re.match(r"offload_(mismatched|verify|windows_expired|late|ttl_guard)_", one)],
)
def test_a_panel_forgets_with_statsd_exporter_no_more_than_its_alert(metric: str) -> None:
    asked = [
        target["expr"]
        for uid in (OVERVIEW, TABLE)
        for panel in panels(uid).values()
        for target in panel.get("targets", ())
        if re.search(rf"\b{metric}\b", target["expr"])
    ]
    assert asked
    for expr in asked:
        raw = len(re.findall(rf"\b{metric}(?=[{{)])", expr))
        assert raw == len(re.findall(rf'offload:remembered{{metric="{metric}"', expr)), expr

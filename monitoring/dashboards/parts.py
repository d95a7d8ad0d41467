"""What the dashboards are made of: queries, panels that answer in words, thresholds, links."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from grafana_foundation_sdk.builders import bargauge, common, dashboard, stat, table, timeseries
from grafana_foundation_sdk.builders import prometheus as prometheus_builder
from grafana_foundation_sdk.models import common as common_model
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from monitoring.alerts import Alert, alerts
from monitoring.dashboards.expressions import DAG_OF_TABLE
from monitoring.panels import OVERVIEW, PIPELINE, TABLE
from monitoring.values import Values

DATASOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
GREEN, ORANGE, RED, BLUE = "green", "orange", "red", "blue"
UNKNOWN = "Unknown: no metrics"
NEVER_S = 1e10
"""Stands for "never" where a time is shown: 317 years, seconds. A gap would look like missing metrics."""
NEXT = "Next: "
BAR = "15m"
"""The least time that a bar stands for: one interval of the default schedule."""

Steps = Sequence[tuple[float | None, str]]
"""Lower bounds with their colours; the first bound is None."""
Typed = stat.Panel | timeseries.Panel | table.Panel | bargauge.Panel


@dataclass(frozen=True, slots=True)
class Query:
    """One query. `quiet`: why it may have no data while all is well; empty: it always has data."""

    expr: str
    legend: str = ""
    quiet: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel and its queries. `id` is in links, so it is stable; `built`: what the SDK makes of it."""

    id: IntEnum
    title: str
    description: str
    queries: tuple[Query, ...]
    built: Typed


@dataclass(frozen=True, slots=True)
class Row:
    """A question, as the title of a row, and the panels that answer it."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable. `query` is in Grafana's words for Prometheus, `regex` picks the value; empty: not asked."""

    name: str
    builder: dashboard.QueryVariable | dashboard.DatasourceVariable
    query: str = ""
    regex: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """A dashboard with what tests and docs need to know of it."""

    uid: str
    title: str
    description: str
    variables: tuple[Variable, ...]
    rows: tuple[Row, ...]
    built: model.Dashboard

    def panels(self) -> tuple[Panel, ...]:
        return tuple(panel for row in self.rows for panel in row.panels)


class Maker:
    """Makes the panels of one dashboard; knows the values and which alerts lead to which panel."""

    def __init__(self, v: Values, uid: str) -> None:
        self.v = v
        self._alerts: dict[int, list[Alert]] = {}
        for one in alerts(v):
            if one.dashboard == uid:
                self._alerts.setdefault(int(one.panel), []).append(one)

    # ----- panels

    def words(
        self,
        id: IntEnum,
        title: str,
        width: int,
        query: Query,
        good: str,
        bad: str,
        description: str,
        height: int = 4,
    ) -> Panel:
        """0 is `good` in green, any more is the number and `bad` in red, no answer is not health but `UNKNOWN`."""
        built = _stat(f"suffix: {bad}", ((None, GREEN), (1, RED)), {0: (good, GREEN)}).decimals(0).no_value(UNKNOWN)
        built = built.color_mode(common_model.BigValueColorMode.BACKGROUND)
        return self._panel(id, title, width, height, description, (query,), built)

    def number(
        self,
        id: IntEnum,
        title: str,
        width: int,
        query: Query,
        unit: str,
        description: str,
        *,
        steps: Steps = ((None, BLUE),),
        named: Mapping[float, tuple[str, str]] | None = None,
        never: str = "",
        no_value: str = UNKNOWN,
        height: int = 4,
    ) -> Panel:
        """One number. `named`: values with words of their own; `never`: what `NEVER_S` is called."""
        built = _stat(unit, steps, named or {}, never).no_value(no_value)
        if steps[1:]:
            built = built.color_mode(common_model.BigValueColorMode.BACKGROUND)
        return self._panel(id, title, width, height, description, (query,), built)

    def graph(
        self,
        id: IntEnum,
        title: str,
        width: int,
        queries: tuple[Query, ...],
        unit: str,
        description: str,
        *,
        limits: Steps = (),
        bars: bool = False,
        height: int = 8,
    ) -> Panel:
        """Lines or bars over time. `limits`: thresholds drawn as dashed lines; a series called limit is dashed."""
        built = (
            timeseries.Panel()
            .unit(unit)
            .min(0)
            .no_value("none in this time")
            .fill_opacity(60 if bars else 5)
            .show_points(common_model.VisibilityMode.NEVER)
            .legend(common.VizLegendOptions().show_legend(True).placement(common_model.LegendPlacement.BOTTOM))
            .tooltip(common.VizTooltipOptions().mode(common_model.TooltipDisplayMode.MULTI))
        )
        if bars:
            built = (
                built.interval(BAR)
                .draw_style(common_model.GraphDrawStyle.BARS)
                .stacking(common.StackingConfig().mode(common_model.StackingMode.NORMAL))
            )
        if limits:
            built = built.thresholds(thresholds(limits)).thresholds_style(
                common.GraphThresholdsStyleConfig().mode(common_model.GraphThresholdsStyleMode.DASHED)
            )
        dashed = {"fill": "dash", "dash": [8, 6]}
        built = built.override_by_regexp(
            ".*limit.*",
            [
                model.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": RED}),
                model.DynamicConfigValue("custom.lineStyle", dashed),
                model.DynamicConfigValue("custom.fillOpacity", 0),
            ],
        )
        return self._panel(id, title, width, height, description, queries, built)

    def bars(self, id: IntEnum, title: str, width: int, query: Query, description: str, height: int = 8) -> Panel:
        """One bar a series, for now."""
        built = (
            bargauge.Panel()
            .unit("short")
            .decimals(0)
            .min(0)
            .no_value("none in this time")
            .orientation(common_model.VizOrientation.HORIZONTAL)
            .thresholds(thresholds(((None, ORANGE),)))
            .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        )
        return self._panel(id, title, width, height, description, (query,), built)

    def grid(
        self,
        id: IntEnum,
        title: str,
        width: int,
        columns: Mapping[str, Query],
        overrides: Mapping[str, Mapping[str, object]],
        description: str,
        *,
        hidden: tuple[str, ...] = (),
        sort: str = "",
        rows: int = 25,
        no_value: str = "none",
        height: int = 8,
    ) -> Panel:
        """A table, one query a column; `sort`: the column whose largest values come first, `rows` of them."""
        renamed = {f"Value #{chr(65 + i)}": name for i, name in enumerate(columns)}
        if len(columns) == 1:
            renamed["Value"] = next(iter(columns))
        excluded = dict.fromkeys(("Time", "__name__", "alertstate", "instance", "job", "symptom"), True)
        built = (
            table.Panel()
            .no_value(no_value)
            .frame_index(0)
            .show_header(True)
            .align(common_model.FieldTextAlignment.AUTO)
            .inspect(False)
            .with_transformation(model.DataTransformerConfig(id_val="merge", options={}))
            .with_transformation(
                model.DataTransformerConfig(
                    id_val="organize",
                    options={"excludeByName": excluded, "indexByName": {}, "renameByName": renamed},
                )
            )
        )
        if sort:
            built = built.with_transformation(
                model.DataTransformerConfig(
                    id_val="sortBy", options={"fields": {}, "sort": [{"field": sort, "desc": True}]}
                )
            ).with_transformation(model.DataTransformerConfig(id_val="limit", options={"limitField": rows}))
        for name, properties in overrides.items():
            built = built.override_by_name(name, [model.DynamicConfigValue(k, x) for k, x in properties.items()])
        for name in hidden:
            built = built.override_by_name(name, [model.DynamicConfigValue("custom.hidden", True)])
        return self._panel(id, title, width, height, description, tuple(columns.values()), built)

    def _panel(
        self,
        id: IntEnum,
        title: str,
        width: int,
        height: int,
        description: str,
        queries: tuple[Query, ...],
        built: Typed,
    ) -> Panel:
        built = built.id(int(id)).title(title).span(width).height(height).description(description)
        built = built.datasource(DATASOURCE).links([self._runbook(one) for one in self._alerts.get(int(id), [])])
        for letter, query in zip("ABCDEFGHIJ", queries, strict=False):
            target = prometheus_builder.Dataquery().expr(query.expr).ref_id(letter).datasource(DATASOURCE)
            if query.legend:
                target = target.legend_format(query.legend)
            target = target.range() if isinstance(built, timeseries.Panel) else target.instant()
            if isinstance(built, table.Panel):
                target = target.format(PromQueryFormat.TABLE)
            built = built.with_target(target)
        return Panel(id, title, description, queries, built)

    def _runbook(self, one: Alert) -> dashboard.DashboardLink:
        # the file's name is in the title, so that it helps also where the runbooks have no web address
        return link(f"{one.name}: {one.anchor.partition('#')[0]}", f"{self.v.text('runbooks')}/{one.anchor}")

    # ----- the whole

    def page(
        self, uid: str, title: str, description: str, variables: tuple[Variable, ...], rows: tuple[Row, ...]
    ) -> Page:
        """The dashboard: rows in order, links to the other two, to the runbooks and to Airflow."""
        whole = (
            dashboard.Dashboard(title)
            .uid(uid)
            .description(description)
            .tags(["offload"])
            .timezone("utc")
            .readonly()
            .refresh("1m")
            .time("now-24h", "now")
            .tooltip(model.DashboardCursorSync.CROSSHAIR)
            .links([*self._links(uid)])
        )
        for variable in (datasource(), *variables):
            whole = whole.with_variable(variable.builder)
        for number, row in enumerate(rows, start=1):
            whole = whole.with_row(dashboard.Row(row.title).id(1000 + number))
            for panel in row.panels:
                whole = whole.with_panel(panel.built)
        return Page(uid, title, description, variables, rows, whole.build())

    def _links(self, uid: str) -> list[dashboard.DashboardLink]:
        pages = {OVERVIEW: "All tables", TABLE: "One table", PIPELINE: "Airflow and metrics"}
        found = [
            link(name, f"/d/{other}?${{datasource:queryparam}}").keep_time(True)
            for other, name in pages.items()
            if other != uid
        ]
        airflow = self.v.text("airflow")
        dag = link("This DAG in Airflow", f"{airflow}/dags/${{dag}}")
        return [
            *found,
            dag if uid == TABLE else link("Airflow", f"{airflow}/dags"),
            link("Runbooks", f"{self.v.text('runbooks')}/README.md"),
        ]


def link(title: str, url: str) -> dashboard.DashboardLink:
    """A link to a page outside, or by a path to another dashboard."""
    blank = not url.startswith("/d/")
    return dashboard.DashboardLink(title).type(model.DashboardLinkType.LINK).url(url).target_blank(blank)


def thresholds(steps: Steps) -> dashboard.ThresholdsConfig:
    """Absolute thresholds."""
    found = [model.Threshold(bound, colour) for bound, colour in steps]
    return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(found)


def _stat(unit: str, steps: Steps, named: Mapping[float, tuple[str, str]], never: str = "") -> stat.Panel:
    mappings = _words(named, never)
    return (
        stat.Panel()
        .unit(unit)
        .thresholds(thresholds(steps))
        .mappings(mappings)
        .color_mode(common_model.BigValueColorMode.VALUE)
        .graph_mode(common_model.BigValueGraphMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )


def _words(named: Mapping[float, tuple[str, str]], never: str = "") -> list[model.ValueMapping]:
    values = {f"{value:g}": model.ValueMappingResult(text, colour, index=0) for value, (text, colour) in named.items()}
    found: list[model.ValueMapping] = [model.ValueMap(values)] if values else []
    unknown = model.DashboardSpecialValueMapOptions(
        match=model.SpecialValueMatch.NULL, result=model.ValueMappingResult(UNKNOWN, RED, index=1)
    )
    found.append(model.SpecialValueMap(unknown))
    if never:
        result = model.ValueMappingResult(never, GREEN, index=2)
        found.append(model.RangeMap(model.DashboardRangeMapOptions(from_val=NEVER_S / 10, to=None, result=result)))
    return found


# ----- variables


def datasource() -> Variable:
    """Which Prometheus."""
    return Variable("datasource", dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))


def tables(*, many: bool) -> Variable:
    """Every table that was declared; `many`: any number of them, at first all."""
    asked = "label_values(offload:tables, table)"
    builder = _asking("table", asked).label("Table").sort(model.VariableSort.ALPHABETICAL_ASC)
    if many:
        everything = model.VariableOption(selected=True, text=["All"], value=["$__all"])
        builder = builder.multi(True).include_all(True).all_value(".*").current(everything)
    return Variable("table", builder, asked)


def dag() -> Variable:
    """The id of the chosen table's DAG, for links."""
    inner = f'label_replace(offload:tables{{table="$table"}}, {DAG_OF_TABLE})'
    asked, regex = f"query_result({inner})", '/dag="([^"]+)"/'
    builder = _asking("dag", asked).regex(regex).hide(model.VariableHide.HIDE_VARIABLE)
    return Variable("dag", builder, asked, regex)


def _asking(name: str, asked: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .datasource(DATASOURCE)
        .query({"query": asked, "refId": f"Prometheus-{name}"})
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
    )

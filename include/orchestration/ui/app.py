"""The routes of the Offload page. Airflow's own checks guard each: anonymous gets 401, a user without the DAG 403."""

from __future__ import annotations

import re
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
from airflow.models.taskinstancekey import TaskInstanceKey
from fastapi import Depends, FastAPI, Request
from fastapi.responses import FileResponse, HTMLResponse
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup
from starlette.middleware.base import RequestResponseEndpoint
from starlette.responses import Response

from include.offload import advice, overview, sections
from include.offload.errors import REGISTRY, OffloadError
from include.offload.overview import Danger, lag_limits_us
from include.offload.timeline import Timeline, plan_line, timeline
from include.orchestration.event_log import log_of
from include.orchestration.links import DAGS, SHIP, application_of
from include.orchestration.ui import drawing, tree, words
from include.orchestration.ui.access import ledger_at_hand, one_dag, readable_dags

HERE = Path(__file__).parent
PREFIX = "/offload"
"""Where Airflow mounts the application."""
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " frame-ancestors 'self'; form-action 'none'; base-uri 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
OURS = "X-Offload"
"""In every answer, so that the page's script tells one of ours from what a proxy or a log-in page puts in its place."""
SHOWN_PLANS = 12
RUNS = Depends(requires_access_dag("GET", DagAccessEntity.RUN))
"""The page shows what runs did, and errors that they met: who may read the DAG but not its runs gets 403."""


def _templates() -> Environment:
    env = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.globals |= {"Danger": Danger}
    for name in ("number", "short", "duration", "instant", "iso", "day", "clock", "size"):
        env.filters[name] = getattr(words, name)
    env.filters["breakable"] = _breakable
    return env


def _breakable(name: str) -> Markup:
    """A name that a narrow column breaks after `.` and `_` only."""
    return Markup("<wbr>").join(re.split(r"(?<=[._])", name))


TEMPLATES = _templates()
MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")

app = FastAPI(title="Offload", docs_url=None, redoc_url=None, openapi_url=None)
app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")


@app.middleware("http")
async def _secure(request: Request, call_next: RequestResponseEndpoint) -> Response:
    """Headers of every answer, and how long the server took."""
    started = time.perf_counter()
    response = await call_next(request)
    for name, value in HEADERS.items():
        response.headers[name] = value
    if request.url.path.startswith(f"{request.scope.get('root_path', '')}/static/"):
        response.headers["Cache-Control"] = "no-cache"
    response.headers[OURS] = "1"
    response.headers["Server-Timing"] = f"app;dur={(time.perf_counter() - started) * 1000:.1f}"
    return response


@app.exception_handler(OffloadError)
async def _refused(request: Request, error: OffloadError) -> HTMLResponse:
    """The ledger is away, or older than this code: said with its id and the next command, not as a stack trace."""
    return _page(request, "refused.html", 503, error=error, part=_part(request))


def _part(request: Request) -> bool:
    """Whether the page's own script asks for the changing part alone."""
    return request.headers.get("X-Offload-Part") == "1"


def _page(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    root = str(request.scope.get("root_path", "")).rstrip("/")
    # root_path ends in the mount; what is before it is Airflow's own base path
    airflow = root.removesuffix(PREFIX)
    html = TEMPLATES.get_template(template).render(root=root, airflow=airflow, **values)
    return HTMLResponse(html, status)


@app.get("/", dependencies=[RUNS])
def all_tables(request: Request, user: GetUserDep) -> HTMLResponse:
    """Every table of which the user may read the runs, the most endangered first."""
    seen = overview.restrict(overview.board(ledger_at_hand.get()), readable_dags(user))
    tally = Counter(t.danger for t in seen.tables)
    return _page(request, "tables.html", seen=seen, tally=tally, part=_part(request))


@app.get("/dags/{dag_id}", dependencies=[RUNS])
def one_table(request: Request, dag_id: str, user: GetUserDep) -> HTMLResponse:
    """One table: its windows, how far behind it was, its plans, what to type next."""
    dag = one_dag(user, dag_id)
    if dag is None or not dag_id.startswith("offload__"):
        return _page(request, "elsewhere.html", 404, dag_id=dag_id)
    ledger = ledger_at_hand.get()
    now_us, seen = overview.one(ledger, dag_id)
    seen = overview.in_scheduler(seen or overview.unknown(dag_id), dag, now_us)
    shown: dict[str, Any] = {"heat": None, "lag": None, "rows": None, "line": None}
    if seen.width_us is not None:
        form = drawing.shape(seen.width_us)
        line = timeline(ledger, seen, now_us, form.span(now_us))
        limits = drawing.shades(line.cells)
        shown = {
            "line": line,
            "alike": form.alike,
            "heat": drawing.blocks(line.cells, form),
            "counts": drawing.counts(line.cells),
            "shades": [drawing.shade(c, limits) for c in line.cells],
            "facts": _facts(line),
            "lag": drawing.lag_chart(line.plans, seen.settle_us, now_us, seen.lag_us, lag_limits_us(seen)[0]),
            "rows": drawing.rows_chart(line.plans, now_us),
            "plans": line.plans[:SHOWN_PLANS],
        }
    return _page(
        request,
        "table.html",
        t=seen,
        now_us=now_us,
        dag_id=dag_id,
        commands=advice.next_commands(seen),
        part=_part(request),
        **shown,
    )


def _facts(line: Timeline) -> dict[str, Any]:
    """What the script reads out of a cell: numbers and short texts only, a list a window."""
    known: dict[uuid.UUID, int] = {}
    cells = []
    for c in line.cells:
        number = known.setdefault(c.plan_id, len(known)) if c.plan_id else None
        at = [us and us // 1000 for us in (c.recorded_us, c.verified_us)]
        cells.append([c.rows, c.was, c.source_rows, number, at[0], c.why, at[1]])
    shown = []
    for id in known:
        made = line.made.get(id)
        snapshot = None if made is None else made.snapshot_id
        # text: 64-bit numbers lose their last digits in a browser
        shown.append(
            {
                "id": str(id),
                "generation": made and made.generation,
                "snapshot": None if snapshot is None else str(snapshot),
            }
        )
    return {"start": line.span.lo // 1000, "width": line.width_us / 1000, "cells": cells, "plans": shown}


@app.get("/dags/{dag_id}/plans/{plan_id}", dependencies=[RUNS])
def one_plan(request: Request, dag_id: str, plan_id: uuid.UUID) -> HTMLResponse:
    """One plan, and how to read the snapshot that it made."""
    ledger = ledger_at_hand.get()
    _, seen = overview.one(ledger, dag_id)
    found = None if seen is None else plan_line(ledger, seen.table, plan_id)
    if seen is None or found is None:
        return _page(request, "elsewhere.html", 404, dag_id=dag_id)
    return _page(request, "plan.html", t=seen, p=found, dag_id=dag_id)


@app.get("/dags/{dag_id}/runs/{run_id}/events", dependencies=[RUNS])
def event_log(request: Request, dag_id: str, run_id: str) -> Response:
    """What Spark wrote about the job of a run: JSON, an event a line."""
    key = TaskInstanceKey(dag_id, SHIP, run_id, 1, -1)
    application = application_of(key) if dag_id.startswith(DAGS) else None
    path = None if application is None else log_of(application)
    if path is None:
        return _page(request, "elsewhere.html", 404, dag_id=dag_id)
    return FileResponse(path, media_type="text/plain; charset=utf-8")


@app.get("/errors/{error_id}")
def one_error(request: Request, error_id: str, user: GetUserDep) -> HTMLResponse:
    """What an error id means and the section of the runbook about it."""
    kind = REGISTRY.get(error_id.upper())
    if kind is None:
        return _page(request, "elsewhere.html", 404, dag_id=error_id)
    where = sections.section(kind.id)
    text = None if where is None else sections.markdown(where)
    return _page(request, "error.html", kind=kind, where=where, text=None if text is None else _rendered(text))


def _rendered(text: str) -> Markup:
    """Markdown as HTML. HTML inside it is shown as text; links that would leave the page lose their target."""
    tokens = MARKDOWN.parse(text)
    for token in tokens:
        for child in token.children or []:
            href = str(child.attrGet("href") or "") if child.type == "link_open" else ""
            found = sections.ERROR_ID.search(href.upper())
            if child.type == "link_open":
                child.attrs = {"href": found[0]} if found and found[0] in REGISTRY else {}
            elif child.type == "image":
                child.attrs = {}
    return Markup(MARKDOWN.renderer.render(tokens, MARKDOWN.options, {}))  # noqa: S704 - html=False escapes


tree.add(app, _page, _rendered)

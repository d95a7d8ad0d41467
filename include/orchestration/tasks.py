"""The two light tasks of a table's DAG: thin calls into the domain, with an opening and a closing log line.

The domain is imported inside the tasks: parsing ten DAGs must not load PyIceberg.
"""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from airflow.sdk import Asset, TriggerRule, get_current_context, task

from include.offload.errors import PLAN_UNKNOWN, OffloadError
from include.offload.slicing import place
from include.offload.spec.model import TableSpec
from include.offload.windows import Grid
from include.orchestration.assets import alias_of, announce, instant
from include.orchestration.bundle import to_announce
from include.orchestration.catchup import go_on, rest_of
from include.orchestration.context import bind_log, quiet_libraries, settings_for
from include.orchestration.failures import refusals
from include.orchestration.params import of_run, requested
from include.orchestration.turns import PATIENCE, wait_for_turn

if TYPE_CHECKING:
    from airflow.sdk.definitions.xcom_arg import XComArg

    from include.offload.model import Plan

CHECK = "check_extent"
SHIP = "offload"
WATERMARK = "update_watermark"
PLAN_KEY = "plan"
QUERIES_A_CHECK = 2
"""How many queries of a check read the table: the extent, and on a long backlog its size; bounded by the spec."""

log = logging.getLogger(__name__)


def _xcom(plan: Plan, driver_rows: int, rest: dict[str, Any] | None) -> dict[str, Any]:
    """What the next tasks and a reader of the XCom page need: the plan itself is in the ledger.

    driver_rows: the spec's.
    rest: the params of the run that goes on after this one; None: this one ships all that is settled.
    """
    grid, numbers = Grid(plan.width_us), [w.window for w in plan.windows]
    return {
        "plan_id": str(plan.plan_id),
        "touches_lake": plan.touches_lake,
        "generation": plan.generation,
        "rows": plan.rows,
        "windows": len(plan.windows),
        "slices": len(plan.slices),
        "place": place(plan.rows, driver_rows),
        "from": instant(grid.span(min(numbers)).lo if numbers else None),
        "to": instant(grid.span(max(numbers)).hi if numbers else None),
        "watermark_after": instant(plan.watermark_after),
        "rest": rest,
    }


def check_extent(spec: TableSpec) -> XComArg:
    """The task that freezes a plan. False, and so `offload` skipped, when the plan moves no rows.

    Only `offload` is skipped: trigger rules further down decide for themselves.
    """

    @task.short_circuit(
        task_id=CHECK,
        ignore_downstream_trigger_rules=False,
        execution_timeout=timedelta(seconds=spec.source.limits.timeout_s * QUERIES_A_CHECK) + PATIENCE,
        # of two that plan at once only one can land
        max_active_tis_per_dag=1,
        doc_md="Counts and hashes the settled windows in ClickHouse and freezes a plan in the ledger.",
    )
    def check() -> bool:
        context = get_current_context()
        run = str(context["run_id"])
        _open(spec, run)
        started = time.monotonic()
        with refusals():
            asked = requested(spec, of_run(context["dag_run"], context["params"]))
            for note in asked.notes:
                log.info("note: %s", note)
            settings = settings_for(spec)
            # PyIceberg reads its configuration when it is imported: only now is it known where that stands
            from include.offload.steps import RunRequest, open_context
            from include.offload.steps import check_extent as step

            ctx = open_context(settings)
            wait_for_turn(context, spec, ctx.ledger)
            specs, configured = to_announce(spec)
            ctx.metrics.announce(specs, configured=configured)
            result = step(
                ctx,
                spec,
                RunRequest(run_id=run, from_us=asked.from_us, to_us=asked.to_us, force=asked.force),
            )
        plan = result.plan
        bind_log(table=spec.identity, run=run, plan=str(plan.plan_id))
        _describe(plan)
        for note in result.notes:
            log.info("note: %s", note)
        context["ti"].xcom_push(key=PLAN_KEY, value=_xcom(plan, spec.plan.driver_rows, rest_of(result.cut_us, asked)))
        log.info("check_extent %s: done in %.1f s", spec.identity, time.monotonic() - started)
        return bool(plan.touches_lake)

    return check()


def _open(spec: TableSpec, run: str) -> None:
    quiet_libraries()
    bind_log(table=spec.identity, run=run)


def _describe(plan: Plan) -> None:
    log.info("plan %s: generation %s, after %s", plan.plan_id, plan.generation, plan.predecessor or "nothing")
    log.info("looked at: %s on %s", plan.scan, plan.replica)
    replaced = sum(1 for w in plan.windows if w.action == "replace")
    log.info(
        "to move: %s rows, %s windows to append, %s to replace, in %s slices",
        f"{plan.rows:,}",
        len(plan.windows) - replaced,
        replaced,
        len(plan.slices),
    )
    log.info(
        "watermark: %s -> %s", instant(plan.watermark_before) or "none yet", instant(plan.watermark_after) or "none yet"
    )


def update_watermark(spec: TableSpec, asset: Asset) -> XComArg:
    """The task that believes only Iceberg's marker, moves the watermark and announces the asset."""

    @task(
        task_id=WATERMARK,
        trigger_rule=TriggerRule.NONE_FAILED,
        outlets=[asset, alias_of(asset)],
        execution_timeout=timedelta(minutes=10),
        doc_md="Reads the commit marker from Iceberg, moves ledger and watermark, announces the asset.",
    )
    def update() -> dict[str, Any]:
        context = get_current_context()
        run = str(context["run_id"])
        _open(spec, run)
        started = time.monotonic()
        with refusals():
            plan = context["ti"].xcom_pull(task_ids=CHECK, key=PLAN_KEY)
            if not plan:
                raise OffloadError(PLAN_UNKNOWN, f"{CHECK} left no plan for this run", table=spec.identity)
            plan_id = str(plan["plan_id"])
            bind_log(table=spec.identity, run=run, plan=plan_id)
            settings = settings_for(spec)
            # as above: settings first
            from include.offload.steps import open_context
            from include.offload.steps import update_watermark as step

            servers = open_context(settings)
            result = step(servers, spec, UUID(plan_id))
            said, told = announce(context, asset, servers, result.plan_id)
        log.info(
            "update_watermark %s: %s rows, %s windows, %s left pending, snapshot %s, watermark %s, %.1f s",
            spec.identity,
            f"{said['rows']:,}",
            said["windows"],
            result.pending,
            said["snapshot_id"] or "unchanged",
            instant(result.watermark_us) or "none yet",
            time.monotonic() - started,
        )
        log.info("announced with this task's success: %s", ", ".join(told) or "nothing, it was announced before")
        if plan.get("rest") is not None and not result.pending:
            go_on(context, spec.dag_id, plan["rest"])
        return said

    return update()

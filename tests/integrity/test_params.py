"""What a person may type into the trigger form, and what becomes of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.offload.errors import OffloadError
from include.offload.spec.model import TableSpec
from include.offload.windows import from_us

SPEC = TableSpec.model_validate({"identity": "k2.trades", "cursor": "ts", "window": "5m"})
MINUTE = 60_000_000
NOON = 1_767_268_800_000_000  # 2026-01-01T12:00:00Z


def ask(**params: Any) -> Any:
    from include.orchestration.params import requested

    return requested(SPEC, {"from": None, "to": None, "force": False, **params})


def test_an_empty_form_means_from_the_watermark_to_the_settled_time() -> None:
    asked = ask()
    assert (asked.from_us, asked.to_us, asked.force, asked.notes) == (None, None, False, ())
    assert ask(**{"from": "", "to": ""}) == asked


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-01T12:00:00Z",
        "2026-01-01T12:00:00+00:00",
        "2026-01-01T13:00:00+01:00",
        "2026-01-01T12:00:00.000Z",
        "2026-01-01T12:00",
        "2026-01-01 12:00:00",
    ],
)
def test_instants_as_people_and_browsers_write_them(text: str) -> None:
    asked = ask(**{"from": text})
    assert asked.from_us == NOON
    assert asked.notes == ()


def test_a_range_is_rounded_outwards_and_says_so() -> None:
    asked = ask(**{"from": "2026-01-01T12:03:20Z", "to": "2026-01-01T12:06:00Z"})
    assert (asked.from_us, asked.to_us) == (NOON, NOON + 10 * MINUTE)
    assert len(asked.notes) == 2
    assert "2026-01-01T12:03:20Z to the window's start 2026-01-01T12:00:00Z" in asked.notes[0]


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"from": "yesterday"}, "no ISO instant"),
        ({"from": "2026-01-01T12:00:00Z", "to": "2026-01-01T12:00:00Z"}, "is not before"),
        ({"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"}, "swap or widen"),
        ({"to": "2026-01-01T00:00:00Z"}, "`to` is set but `from` is empty"),
        ({"force": True}, "`force` is set but `from` is empty"),
    ],
)
def test_what_makes_no_sense_is_refused(params: dict[str, Any], words: str) -> None:
    with pytest.raises(OffloadError, match="OFL-407") as caught:
        ask(**params)
    assert words in caught.value.cause
    assert caught.value.table == "k2.trades"
    assert not caught.value.kind.retry


@given(st.integers(0, 4_000_000_000), st.integers(1, 100_000_000))
def test_rounding_never_loses_an_instant(start: int, length: int) -> None:
    lo, hi = start * 1_000_000, (start + length) * 1_000_000
    asked = ask(**{"from": from_us(lo).isoformat(), "to": from_us(hi).isoformat()})
    assert asked.from_us <= lo < hi <= asked.to_us
    assert asked.from_us % SPEC.window_us == asked.to_us % SPEC.window_us == 0
    assert lo - asked.from_us < SPEC.window_us
    assert asked.to_us - hi < SPEC.window_us


def in_interval(run_type: str, **params: Any) -> Any:
    """What a run of this type with a data interval from 12:02 to 12:17 asks for."""
    from include.orchestration.params import of_run

    interval = {"data_interval_start": from_us(NOON + 2 * MINUTE), "data_interval_end": from_us(NOON + 17 * MINUTE)}
    run: Any = SimpleNamespace(run_type=run_type, **interval)
    return ask(**of_run(run, params))


def test_a_run_of_airflows_backfill_asks_for_its_data_interval_in_whole_windows() -> None:
    asked = in_interval("backfill")
    assert (asked.from_us, asked.to_us, asked.force) == (NOON, NOON + 20 * MINUTE, False)
    assert len(asked.notes) == 2
    assert in_interval("backfill", force=True).force, "a backfill may replace what did not change"


def test_every_other_run_and_a_range_that_is_named_are_left_as_they_are() -> None:
    assert in_interval("scheduled") == in_interval("manual") == ask()
    for named in ({"from": "2026-01-01T00:00:00Z"}, {"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"}):
        assert in_interval("backfill", **named) == ask(**named)
    with pytest.raises(OffloadError, match="OFL-407"):
        in_interval("backfill", to="2026-01-02T00:00:00Z")


# ---- the run that goes on --------------------------------------------------------------------------------------------


def test_the_rest_of_a_plan_that_was_cut() -> None:
    from include.orchestration.catchup import rest_of

    assert rest_of(None, ask()) is None
    assert rest_of(NOON, ask()) == {}, "the watermark says where to go on"
    open_end = ask(**{"from": "2026-01-01T00:00:00Z"})
    assert rest_of(NOON, open_end) == {"from": "2026-01-01T12:00:00.000000Z", "force": False}
    both = ask(**{"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z", "force": True})
    rest = rest_of(NOON, both)
    assert rest is not None
    again = ask(**rest)
    assert (again.from_us, again.to_us, again.force) == (NOON, both.to_us, True)


def test_a_run_has_one_successor_whose_id_says_whose() -> None:
    from include.orchestration.catchup import MAX_RUN_ID, successor

    first = "scheduled__2026-01-01T12:00:00+00:00"
    assert successor(first) == f"catchup__2__{first}"
    assert successor(f"catchup__9__{first}") == f"catchup__10__{first}"
    assert len(successor("x" * MAX_RUN_ID)) == MAX_RUN_ID

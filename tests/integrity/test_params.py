"""What a person may type into the trigger form, and what becomes of it."""

from __future__ import annotations

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

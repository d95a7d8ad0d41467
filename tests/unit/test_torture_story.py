"""The stories of `make torture`: the same for the same seed, and rich enough to be worth playing."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import pytest

from include.offload.crashpoint import POINTS
from include.offload.spec.load import load_spec
from tests.torture import report
from tests.torture.faults import BREAKS
from tests.torture.runner import Result, recall, remember
from tests.torture.story import (
    FAULTS,
    PARTITIONS,
    PAST_S,
    SPARK,
    SPARK_EVERY,
    SPARK_POINTS,
    Change,
    Fault,
    Rows,
    Run,
    Shape,
    Story,
    arrived,
    expected,
    tell,
)
from tests.torture.world import spec_of

STORIES = [tell(1, n) for n in range(200)]


def kinds(story: Story) -> list[str]:
    return [a.kind for a in story.acts if isinstance(a, Fault)]


def test_the_same_seed_tells_the_same_story_on_every_machine() -> None:
    assert tell(7, 3) == tell(7, 3)
    assert tell(7, 3).digest == "eeb8c64527a4"
    assert len({s.digest for s in STORIES} | {tell(2, n).digest for n in range(200)}) == 400


def test_every_kind_of_fault_is_told_and_can_be_done() -> None:
    told = Counter(k for s in STORIES for k in kinds(s))
    assert set(told) == set(FAULTS) == set(BREAKS)
    assert min(told.values()) >= 5, told


def test_every_crash_point_is_a_fault() -> None:
    in_spark = {p for p in SPARK_POINTS if p}
    assert {f"kill at {p}" for p in POINTS} - set(FAULTS) == {"kill at spark-started"}
    assert "spark-started" in in_spark <= set(POINTS)
    assert [n for n, s in enumerate(STORIES) if SPARK in kinds(s)] == list(range(SPARK_EVERY - 1, 200, SPARK_EVERY))


def test_shapes_and_rows_are_of_every_sort() -> None:
    assert {s.shape.partition for s in STORIES} == set(PARTITIONS)
    for name in ("final", "sequence", "follow", "sort", "ttl"):
        assert {getattr(s.shape, name) for s in STORIES} == {False, True}
    rows = [a for s in STORIES for a in s.acts if isinstance(a, Rows)]
    assert any(r.future for r in rows) and any(r.start_s < 0 for r in rows)
    changes = [a for s in STORIES for a in s.acts if isinstance(a, Change)]
    assert any(c.note is None for c in changes) and any(c.note for c in changes)


def test_rows_lie_where_they_are_settled_or_far_in_the_future_and_never_share_an_id() -> None:
    for story in STORIES:
        batches = [a if isinstance(a, Rows) else a.during for a in story.acts if isinstance(a, Rows | Fault)]
        ids = [i for b in batches for i in b.ids]
        assert len(ids) == len(set(ids)) == arrived(story)
        for batch in batches:
            last = batch.start_s + batch.count * batch.step_s
            assert (PAST_S[0] <= batch.start_s and last <= PAST_S[1]) or (batch.future and batch.start_s >= 9 * 3_600)


def test_every_fault_finds_rows_that_wait_for_a_run() -> None:
    """Else a kill would have nothing to kill."""
    for story in STORIES:
        for before, act in zip(story.acts, story.acts[1:], strict=False):
            if isinstance(act, Fault):
                assert isinstance(before, Rows | Change)


def test_the_model_holds_what_settled_with_its_last_content() -> None:
    shape = Shape(False, (), False, 300, True, 1_000, False, False)
    acts = (
        Rows(1, 4, 0, 1.0, "a"),
        Run(),
        Change(2, 0, "changed"),
        Rows(5, 2, 40_000, 1.0, "a", future=True),
        Fault("answer lost", Rows(7, 2, 0, 1.0, "b"), 0),
        Change(3, 1, None),
    )
    assert expected(Story(1, 1, shape, acts)) == {2: "changed", 3: "a", 8: "b"}
    assert arrived(Story(1, 1, shape, acts)) == 8


@pytest.mark.parametrize("number", range(5))
def test_a_shape_is_a_valid_spec(number: int, tmp_path: Path) -> None:
    shape = STORIES[number].shape
    (tmp_path / "dom").mkdir()
    (tmp_path / "dom" / "t.yaml").write_text(spec_of(shape))
    spec = load_spec("dom.t", tmp_path)
    assert (spec.window_us, spec.source.final, len(spec.target.partition)) == (
        shape.window_s * 1_000_000,
        shape.final,
        len(shape.partition),
    )


def test_a_log_is_taken_up_where_it_ended_and_the_last_try_of_a_round_counts(tmp_path: Path) -> None:
    log = tmp_path / "deep" / "torture.jsonl"
    assert recall(log) == []
    failed = Result(1, 0, "x", rows=5, lost=1, error="boom", faults={"rolled back": 1})
    remember(log, failed)
    remember(log, Result(1, 1, "y", ok=True, rows=2, lake_rows=2, faults={"rolled back": 1}))
    assert report.summary(recall(log))["failed"] == 1
    remember(log, dataclasses.replace(failed, ok=True, lost=0, lake_rows=5))
    figures = report.summary(recall(log))
    assert (figures["rounds"], figures["failed"], figures["lost"], figures["rows"]) == (2, 0, 0, 7)
    assert figures["seeds"] == {"1": "0-1"}
    assert figures["faults"] == {"rolled back": 2}

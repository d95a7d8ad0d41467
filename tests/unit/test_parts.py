"""Data blocks: what a merge carries on, what a dropped partition takes away, and what a mutation says it deletes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.offload.source.parts import Block, condition, lost

NOW = 1_000


def blocks(*pairs: tuple[int, int], partition: str = "p") -> tuple[Block, ...]:
    return tuple(Block(partition, lo, hi) for lo, hi in pairs)


def test_merged_blocks_are_still_there() -> None:
    assert lost(blocks((1, 1), (2, 2), (3, 3)), blocks((1, 3)), NOW) == ()


def test_blocks_in_no_part_are_lost() -> None:
    assert lost(blocks((1, 1), (2, 2), (3, 3)), blocks((1, 1), (3, 3)), NOW) == blocks((2, 2))


def test_a_block_of_the_same_number_in_another_partition_is_another_block() -> None:
    assert lost(blocks((1, 1)), blocks((1, 1), partition="q"), NOW) == blocks((1, 1))


def test_a_part_of_a_merge_is_not_the_merge() -> None:
    assert lost(blocks((1, 3)), blocks((1, 2)), NOW) == blocks((1, 3))


@pytest.mark.parametrize(("expired", "is_lost"), [(NOW, False), (NOW + 1, True), (None, True)])
def test_a_part_that_expired_as_a_whole_is_no_loss(expired: int | None, is_lost: bool) -> None:
    assert bool(lost([Block("p", 1, 1, expired)], (), NOW)) is is_lost


@given(st.lists(st.integers(1, 6), min_size=1, max_size=8), st.data())
def test_rule_18_whatever_is_merged_only_what_was_taken_away_is_lost(lengths: list[int], data: st.DataObject) -> None:
    """Parts of these lengths in a row; some runs of them merge, one merged part is dropped."""
    ends = [sum(lengths[: i + 1]) for i in range(len(lengths))]
    before = blocks(*((end - n + 1, end) for n, end in zip(lengths, ends, strict=True)))
    cuts = sorted({0, len(before), *data.draw(st.lists(st.integers(0, len(before)), max_size=4))})
    runs = [before[a:b] for a, b in zip(cuts, cuts[1:], strict=False)]
    gone = data.draw(st.integers(0, len(runs) - 1))
    now = [Block("p", r[0].lo, r[-1].hi) for i, r in enumerate(runs) if i != gone]
    assert lost(before, now, NOW) == runs[gone]


@pytest.mark.parametrize(
    ("command", "deleted"),
    [
        ("(DELETE WHERE id <= 4)", "id <= 4"),
        ("DELETE WHERE (id % 3) = 2", "(id % 3) = 2"),
        ("(UPDATE _row_exists = 0 WHERE id = 5)", "id = 5"),
        ("(UPDATE note = 'x' WHERE id = 5)", None),
        ("(DELETE IN PARTITION '1' WHERE id = 5)", None),
        ("(MATERIALIZE TTL)", None),
        ("(UPDATE _row_exists = 0, note = 'x' WHERE id = 5)", None),
    ],
)
def test_only_a_whole_delete_is_evidence(command: str, deleted: str | None) -> None:
    assert condition(command) == deleted

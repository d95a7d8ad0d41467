"""A key that stands twice in a map is found at any depth, in a slice, and in maps of many keys."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.offload.lake import fit

MAP = pa.map_(pa.string(), pa.int32())
few = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 9)), max_size=4)
many = st.integers(30, 50).flatmap(
    lambda n: st.lists(st.tuples(st.integers(0, 900).map(str), st.just(1)), min_size=n, max_size=n)
)


def twice(values: pa.Array) -> bool:
    try:
        fit.check("m", values)
    except fit.UnfitValueError as error:
        return error.what == fit.TWICE
    return False


@given(st.lists(st.none() | few | many, max_size=5))
def test_the_same_as_counting_in_python(rows: list[list[tuple[str, int]] | None]) -> None:
    wanted = any(len({k for k, _ in row}) < len(row) for row in rows if row)
    before = [[("a", 1), ("a", 2)]]
    assert twice(pa.array(before + rows, MAP)[1:]) == wanted


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (pa.list_(MAP), [[], [("a", 1), ("a", 2)]]),
        (pa.struct({"m": MAP}), {"m": [("a", 1), ("a", 1)]}),
        (pa.map_(pa.string(), MAP), [("x", [("b", 1), ("b", 2)])]),
        (pa.map_(pa.float64(), pa.int32()), [(0.0, 1), (-0.0, 2)]),
    ],
    ids=str,
)
def test_at_any_depth(kind: pa.DataType, value: object) -> None:
    assert twice(pa.array([None, value], kind))

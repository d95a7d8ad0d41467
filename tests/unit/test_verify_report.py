"""What a verify says of itself: each of the two readers alone is enough to make it red."""

from dataclasses import replace

import pytest

from include.offload.ledger.findings import Kind
from include.offload.model import WindowState
from include.offload.verify import ColumnSum, Difference, VerifyReport, compared_by, few
from include.offload.windows import ALL_TIME, Span

EQUAL = VerifyReport(
    table="k2.t",
    span=Span(0, 300_000_000),
    skipped_before_us=None,
    windows=1,
    source_rows=5,
    lake_rows=5,
    pyiceberg_rows=5,
    differences=(),
    sums=(ColumnSum("price", "12.5", "12.5", True),),
    snapshot_id=1,
    seconds=0.1,
)


def test_all_equal_is_ok_and_says_nothing() -> None:
    assert EQUAL.ok
    assert EQUAL.findings() == []


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (replace(EQUAL, pyiceberg_rows=0), "by PyIceberg 0"),
        (replace(EQUAL, lake_rows=6), "Iceberg read by ClickHouse 6"),
        (
            replace(EQUAL, sums=(ColumnSum("price", "12.5", "12.4", False),)),
            "sum of the values of price: ClickHouse 12.5, PyIceberg 12.4",
        ),  # noqa: E501
        (replace(EQUAL, lake_total=7, ledger_total=5), "whole table: Iceberg 7, shipped 5"),
    ],
)
def test_one_reader_that_disagrees_is_a_finding(wrong: VerifyReport, named: str) -> None:
    assert not wrong.ok
    assert [f for f in wrong.findings() if named in f]


ALL = {Kind.TOTAL: (ALL_TIME,)}
WINDOW = {Kind.VERIFY: (EQUAL.span,), Kind.RECONCILE: (EQUAL.span,)}
DIFFERENT = Difference(EQUAL.span, WindowState(0, 5, 0), WindowState(0, 4, 0))


@pytest.mark.parametrize(
    ("report", "looked_at", "found"),
    [
        (EQUAL, WINDOW, []),
        (replace(EQUAL, differences=(DIFFERENT,)), WINDOW, [(Kind.VERIFY, EQUAL.span)]),
        (replace(EQUAL, lake_rows=4), WINDOW, [(Kind.VERIFY, EQUAL.span)]),
        (replace(EQUAL, lake_total=5, ledger_total=5), WINDOW | ALL, []),
        (replace(EQUAL, lake_total=7, ledger_total=5), WINDOW | ALL, [(Kind.TOTAL, ALL_TIME)]),
        (replace(EQUAL, left_out=(EQUAL.span,)), dict.fromkeys(WINDOW, ()), []),
    ],
    ids=["equal", "a window", "only the sums", "and the whole", "rows of no window", "expired, and not compared"],
)
def test_what_was_looked_at_and_what_was_found_there(
    report: VerifyReport, looked_at: dict[Kind, tuple[Span, ...]], found: list[tuple[Kind, Span]]
) -> None:
    """The ledger forgets what was found before only where it was looked again."""
    compared, differs = compared_by(report)
    assert compared == looked_at
    assert [(f.kind, f.span, f.windows) for f in differs] == [(kind, span, 1) for kind, span in found]


def spans(*pairs: tuple[int, int]) -> tuple[Span, ...]:
    return tuple(Span(lo, hi) for lo, hi in pairs)


HOLES = spans((0, 1), (3, 4), (5, 6), (16, 17))


@pytest.mark.parametrize(
    ("wanted", "most", "left"),
    [
        ((), 4, HOLES),
        ((), 3, spans((0, 1), (3, 6), (16, 17))),
        ((4,), 3, spans((0, 4), (5, 6), (16, 17))),
        ((1, 4), 3, spans((0, 1), (3, 4), (5, 17))),
        ((1, 4, 7), 1, spans((0, 17))),
    ],
)
def test_few_pieces_spare_the_windows_that_can_be_compared(
    wanted: tuple[int, ...], most: int, left: tuple[Span, ...]
) -> None:
    assert few(HOLES, wanted, most) == left

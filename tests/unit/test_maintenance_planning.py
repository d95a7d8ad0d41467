"""Which files a maintenance takes, how large it makes them, and when it leaves a table alone."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.offload.maintenance.model import Bounds
from include.offload.maintenance.planning import MIN_FILES, choose, fitting, time_partition
from include.offload.maintenance.survey import FileFact, bounds
from include.offload.windows import Span, to_us

MIB = 2**20
HOUR_US = 3_600_000_000
SIZES = Bounds(most=140, target=100, small=75, large=180)
HOURLY = partial(time_partition, "hour")


def file(hour: int, size: int = 10, *, partition: str = "a", deletes: int = 0, hours: int = 1) -> FileFact:
    """A file of one hour's partition."""
    return FileFact(size, size, f"{hour} {partition}", hour * HOUR_US, (hour + hours) * HOUR_US - 1, deletes)


def small(hour: int, files: int = MIN_FILES, size: int = 10) -> list[FileFact]:
    return [file(hour, size)] * files


def hours(*of: int) -> tuple[Span, ...]:
    return tuple(Span(h * HOUR_US, (h + 1) * HOUR_US) for h in of)


# ---- which partitions ------------------------------------------------------------------------------------------------


def test_only_settled_partitions_with_enough_small_files() -> None:
    files = [*small(0), *small(1, MIN_FILES - 1), *small(2, size=80), *small(3), *small(4)]
    chosen = choose(files, SIZES, 4 * HOUR_US + 1, HOURLY, 1000)
    assert chosen is not None
    assert chosen.spans == hours(0, 3)
    assert (chosen.files, chosen.bytes, chosen.left_bytes, chosen.max_files) == (2 * MIN_FILES, 100, 0, None)


def test_a_partition_that_is_not_over_is_left_alone() -> None:
    assert choose(small(3), SIZES, 4 * HOUR_US - 1, HOURLY, 1000) is None
    assert choose(small(3), SIZES, 4 * HOUR_US, HOURLY, 1000) is not None


def test_small_files_are_counted_in_each_partition_of_its_own() -> None:
    files = [file(0, partition=p) for p in "abcdefgh"]
    assert choose(files, SIZES, 9 * HOUR_US, HOURLY, 1000) is None


def test_one_file_with_deletes_is_a_reason() -> None:
    """The offload refuses to replace it (OFL-308) until compaction has applied them."""
    chosen = choose([file(0, 100, deletes=1)], SIZES, HOUR_US, HOURLY, 1000)
    assert chosen is not None
    assert chosen.spans == hours(0)


def test_files_of_a_coarser_partition_and_without_statistics_are_left_alone() -> None:
    files = [file(0, hours=3)] * MIN_FILES + [FileFact(10, 1, "x", None, None, 0)] * MIN_FILES
    assert choose(files, SIZES, 9 * HOUR_US, HOURLY, 1000) is None


def test_a_table_without_a_partition_by_time_is_compacted_up_to_the_watermark() -> None:
    files = [file(h, partition="one") for h in range(MIN_FILES)] + [file(99)]
    same = [FileFact(f.bytes, f.rows, "one", f.lo_us, f.hi_us, 0) for f in files]
    chosen = choose(same, SIZES, MIN_FILES * HOUR_US, None, 1000)
    assert chosen is not None
    ((lo, hi),) = [(s.lo, s.hi) for s in chosen.spans]
    assert lo < -(2**60)
    assert hi == MIN_FILES * HOUR_US
    assert chosen.files == MIN_FILES


# ---- bytes a run -----------------------------------------------------------------------------------------------------


def test_the_oldest_come_first_until_the_bound_and_the_rest_is_said() -> None:
    files = [f for h in range(4) for f in small(h)]
    chosen = choose(files, SIZES, 9 * HOUR_US, HOURLY, 120)
    assert chosen is not None
    assert chosen.spans == hours(0, 1)
    assert (chosen.bytes, chosen.left_bytes) == (100, 100)


def test_one_partition_that_is_too_much_is_bounded_in_files() -> None:
    chosen = choose([file(0, n) for n in range(10, 60, 10)], SIZES, 9 * HOUR_US, HOURLY, 95)
    assert chosen is not None
    assert (chosen.max_files, chosen.bytes, chosen.left_bytes) == (2, 90, 60)


@given(st.lists(st.integers(1, 100), min_size=2, max_size=30), st.integers(1, 3000))
def test_as_many_files_as_fit_whichever_are_taken(sizes: list[int], most: int) -> None:
    ordered = sorted(sizes, reverse=True)
    count = fitting(ordered, most)
    assert 2 <= count <= len(sizes)
    assert sum(ordered[:count]) <= most or count == 2
    assert count == len(sizes) or sum(ordered[: count + 1]) > most


# ---- sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file_size", "slice_rows", "slice_bytes", "most"),
    [
        (512 * MIB, 10_000, 512 * MIB, 10_000 * 1024),
        (4 * MIB, 10**6, 512 * MIB, 4 * MIB),
        (512 * MIB, 10**6, 8 * MIB, 8 * MIB),
    ],
    ids=["rows", "file_size", "slice.bytes"],
)
def test_a_compacted_file_is_no_larger_than_a_slice(
    file_size: int, slice_rows: int, slice_bytes: int, most: int
) -> None:
    """Rule 20: a replace holds one file in memory. A row of this table takes a kibibyte."""
    found = bounds([FileFact(1024 * 1000, 1000, "a", 0, 1, 0)], file_size, slice_rows, slice_bytes)
    assert found.most == most
    assert found.small < found.target < found.most < found.large
    # Iceberg's writer closes a file half-way between target and the largest
    assert found.target + (found.large - found.target) / 2 <= found.most + 1


def test_a_file_as_large_as_a_slice_is_not_rewritten() -> None:
    found = bounds([FileFact(1024 * 1000, 1000, "a", 0, 1, 0)], 512 * MIB, 10_000, 512 * MIB)
    assert found.small < 10_000 * 1024 < found.large


# ---- calendar --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "lo", "hi"),
    [
        ("hour", datetime(2024, 2, 29, 23, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC)),
        ("day", datetime(2024, 2, 29, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC)),
        ("month", datetime(2024, 2, 1, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC)),
        ("year", datetime(2024, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC)),
    ],
)
def test_the_time_partition_around_an_instant(unit: str, lo: datetime, hi: datetime) -> None:
    moment = to_us(datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=UTC))
    assert time_partition(unit, moment) == Span(to_us(lo), to_us(hi))

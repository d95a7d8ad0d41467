"""The commit marker: what is written is what is read, and a mangled one is never taken for none."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.offload.errors import MARKER_NEWER, TARGET_WITHOUT_MARKER
from include.offload.lake.marker import PREFIX, VERSION, Marker, parse, unreadable

MARKERS = st.builds(
    Marker,
    pipeline=st.uuids(),
    source=st.text(),
    plan=st.uuids(),
    generation=st.integers(0, 2**62),
    attempt=st.uuids(),
    watermark_us=st.none() | st.integers(-(2**62), 2**62),
    snapshot_id=st.integers(0, 2**63 - 1),
    sequence_number=st.integers(0, 2**62),
    retired_us=st.none() | st.integers(0, 2**62),
)
ONE = Marker(uuid.UUID(int=1), "src", uuid.UUID(int=2), 3, uuid.UUID(int=4), 5, 6, 7)


@given(MARKERS)
def test_a_marker_survives_the_way_through_properties(marker: Marker) -> None:
    properties = marker.properties()
    assert all(isinstance(v, str) and k.startswith(PREFIX) for k, v in properties.items())
    assert parse(properties) == marker
    assert parse(properties | {"write.format.default": "parquet", "offload.of-tomorrow": "x"}) == marker


def test_a_watermark_of_0_is_not_the_same_as_none() -> None:
    from dataclasses import replace

    assert parse(replace(ONE, watermark_us=0).properties()) == replace(ONE, watermark_us=0)
    assert parse(replace(ONE, watermark_us=None).properties()) == replace(ONE, watermark_us=None)


@pytest.mark.parametrize("properties", [{}, {"write.format.default": "parquet"}, {"operation": "append"}])
def test_no_marker_is_none(properties: dict[str, str]) -> None:
    assert parse(properties) is None


@pytest.mark.parametrize(("version", "newer"), [("2", True), ("17", True), ("0", False), ("1b", False), ("", False)])
def test_a_marker_of_another_version_is_refused_with_the_reason(version: str, newer: bool) -> None:
    with pytest.raises(ValueError, match="has version") as refused:
        parse(ONE.properties() | {f"{PREFIX}version": version})
    assert unreadable(refused.value, "a.b").kind is (MARKER_NEWER if newer else TARGET_WITHOUT_MARKER)


@pytest.mark.parametrize("missing", sorted(k for k in ONE.properties() if k != f"{PREFIX}plan"))
def test_a_marker_that_lacks_a_part_is_refused(missing: str) -> None:
    properties = {k: v for k, v in ONE.properties().items() if k != missing}
    with pytest.raises(ValueError, match=missing):
        parse(properties)


@pytest.mark.parametrize(
    "name", ["pipeline", "plan", "attempt", "generation", "watermark", "snapshot-id", "sequence-number"]
)
def test_a_marker_with_a_mangled_part_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(ONE.properties() | {PREFIX + name: "mangled"})


def test_a_marker_of_another_version_is_refused_not_guessed_at() -> None:
    with pytest.raises(ValueError, match="version 2"):
        parse(ONE.properties() | {f"{PREFIX}version": "2"})
    assert ONE.properties()[f"{PREFIX}version"] == VERSION == "1"

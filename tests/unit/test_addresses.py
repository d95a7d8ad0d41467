"""Airflow's connections beside the command line's addresses."""

from __future__ import annotations

import pytest

from include.offload.cli.addresses import ELSEWHERE, OTHER, SAME, Address

HERE = Address("offload_clickhouse", "ch", 8123)


@pytest.mark.parametrize(
    ("found", "verdict", "movable"),
    [
        ({"host": "ch", "port": 8123, "conn_type": "clickhouse"}, SAME, False),
        # a connection without a port means the default of its type
        ({"host": "ch", "port": None, "conn_type": "clickhouse", "extra": None}, SAME, False),
        ({"host": "ch", "port": None, "conn_type": "clickhouse", "extra": '{"secure": true}'}, OTHER, True),
        ({"host": "gateway", "port": 8123, "conn_type": "clickhouse"}, OTHER, True),
        ({"host": None, "port": None, "conn_type": "something else"}, OTHER, True),
        ({"host": "ch", "port": 8123, "extra": '{"replicas": ["a", "b"]}'}, "names replicas", False),
        (None, ELSEWHERE, False),
    ],
)
def test_what_is_said_of_a_connection(found: dict[str, object] | None, verdict: str, movable: bool) -> None:
    compared = HERE.beside(found)
    assert (compared.verdict, compared.movable) == (verdict, movable)


def test_several_replicas_are_never_moved_by_a_command() -> None:
    several = Address("offload_clickhouse", "ch", 8123, several=True)
    compared = several.beside({"host": "other", "port": 1, "conn_type": "clickhouse"})
    assert (compared.movable, compared.here) == (False, "ch:8123 and more")

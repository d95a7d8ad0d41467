"""Ports: one variable moves all, one moves each, and a bad value names its variable."""

from __future__ import annotations

import socket

import pytest

from local import ports


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("OFFLOAD_PORT_BASE", *(ports.variable_of(name) for name in ports.OFFSETS)):
        monkeypatch.delenv(variable, raising=False)


def test_all_ports_differ_and_stay_below_the_ephemeral_range() -> None:
    found = {ports.port(name) for name in ports.OFFSETS}
    assert len(found) == len(ports.OFFSETS)
    assert max(found) < 32768


def test_the_base_moves_all_and_a_name_moves_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFLOAD_PORT_BASE", "27900")
    monkeypatch.setenv("OFFLOAD_PORT_S3", "27999")
    assert (ports.port("POSTGRES"), ports.port("S3")) == (27900, 27999)


@pytest.mark.parametrize("value", ["", "x", "0", "65536", "-1"])
def test_a_bad_value_names_its_variable(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("OFFLOAD_PORT_S3", value)
    with pytest.raises(ValueError, match="OFFLOAD_PORT_S3"):
        ports.port("S3")


def test_a_taken_port_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind((ports.HOST, 0))
        taken.listen()
        monkeypatch.setenv("OFFLOAD_PORT_S3", str(taken.getsockname()[1]))
        assert not ports.is_free("S3")
    assert ports.is_free("S3")

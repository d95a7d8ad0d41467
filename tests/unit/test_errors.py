"""Every refusal: one id, one next step; raised somewhere; and whole again after a trip between processes."""

from __future__ import annotations

import ast
import copy
import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from include.offload import errors
from include.offload.errors import REGISTRY, ErrorKind, OffloadError
from include.offload.settings import ROOT

NAMES = {name: kind for name, kind in vars(errors).items() if isinstance(kind, ErrorKind)}
KINDS = [pytest.param(kind, id=kind.id) for kind in REGISTRY.values()]
NOT_RAISED: dict[str, str] = {}
"""Kinds that no code raises, and why they are in the registry."""
PROSE = {"if", "or", "and", "else", "once", "over", "to", "shows", "names", "lists", "keeps", "drops", "accepts"}


def sources() -> Iterator[Path]:
    for room in ("include", "spark_jobs"):
        yield from (p for p in (ROOT / room).rglob("*.py") if p.name != "errors.py")


def used_as_values(tree: ast.AST) -> Iterator[str]:
    """Names of kinds that are raised or handed on: everything but imports and `error.kind is [not] …`."""
    compared = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare)
        for part in (node.left, *node.comparators)
        if isinstance(part, ast.Name)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and id(node) not in compared:
            yield node.id


def test_every_kind_of_the_registry_is_raised_somewhere_or_says_why_not() -> None:
    used = {name for path in sources() for name in used_as_values(ast.parse(path.read_text()))}
    silent = {kind.id for name, kind in NAMES.items() if name not in used}
    assert silent == set(NOT_RAISED)


def test_every_error_that_is_raised_takes_its_kind_from_the_registry() -> None:
    """`OffloadError("OFL-1", …)` or a kind made on the spot would have no section in a runbook."""
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "OffloadError":
                assert node.args and not isinstance(node.args[0], ast.Constant | ast.Call), f"{path}:{node.lineno}"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "ErrorKind", f"{path}:{node.lineno}"


def test_ids_and_titles_are_unique_and_well_formed() -> None:
    assert {kind.id for kind in NAMES.values()} == set(REGISTRY)
    assert len(NAMES) == len(REGISTRY)
    assert len({kind.title for kind in REGISTRY.values()}) == len(REGISTRY)
    assert all(re.fullmatch(r"OFL-[1-6]\d\d", id_) for id_ in REGISTRY)
    assert all(id_ == kind.id for id_, kind in REGISTRY.items())


def test_an_id_can_not_be_defined_twice() -> None:
    with pytest.raises(ValueError, match="defined twice"):
        errors._kind("OFL-101", "again", hint="nothing")
    assert REGISTRY["OFL-101"] is errors.SPEC_INVALID


@pytest.mark.parametrize("kind", KINDS)
def test_the_text_names_id_table_cause_and_next_step(kind: ErrorKind) -> None:
    error = OffloadError(kind, "the cause", table="k2.trades")
    assert str(error) == f"{kind.id} [k2.trades] {kind.title}: the cause. Next: {error.next_step}"
    assert (error.id, error.cause, error.table) == (kind.id, "the cause", "k2.trades")
    assert kind.next_step.strip() and not kind.next_step.endswith(".")
    assert not re.search(r"[{}]", error.next_step), "an unknown placeholder"
    if "{table}" in kind.next_step:
        assert "k2.trades" in error.next_step
        assert "TABLE" in OffloadError(kind, "the cause").next_step


@pytest.mark.parametrize("kind", KINDS)
def test_what_can_be_typed_stands_apart_from_the_words_about_it(kind: ErrorKind) -> None:
    """Somebody at night copies the command, and it must run: no condition, no prose, and no other table."""
    error = OffloadError(kind, "the cause", table="k2.trades")
    assert kind.command or kind.hint
    assert (kind.command or "") in kind.next_step and kind.hint in kind.next_step
    assert not kind.hint.startswith("bin/offload")
    if error.command is None:
        assert not kind.next_step.startswith("bin/offload")
        return
    assert error.next_step.startswith(error.command)
    assert re.fullmatch(r"bin/offload( [a-z-]+)+( k2\.trades)?( --[a-z]+)*", error.command), error.command
    assert not PROSE & set(error.command.split()), error.command


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("table", ["k2.trades", None])
def test_an_error_survives_the_trip_from_a_worker(kind: ErrorKind, table: str | None) -> None:
    error = OffloadError(kind, "cause with {braces}, 'quotes' and ünïcode", table=table)
    for copied in (pickle.loads(pickle.dumps(error)), copy.deepcopy(error)):  # noqa: S301 - our own bytes
        assert type(copied) is OffloadError
        assert copied.kind is kind
        assert (str(copied), copied.cause, copied.table) == (str(error), error.cause, error.table)


@pytest.mark.parametrize("kind", KINDS)
def test_a_next_step_that_is_a_command_is_one_that_the_command_line_has(kind: ErrorKind) -> None:
    """Read from the generated reference, which another test holds against the command line itself."""
    from typer.main import get_command

    from include.offload.cli import app

    found = re.findall(r"bin/offload ((?:[a-z-]+ ?)+)", kind.next_step)
    for words in (f.split() for f in found):
        command = get_command(app)
        for word in words:
            commands = getattr(command, "commands", None)
            if not commands:
                break
            assert word in commands, f"{kind.id}: bin/offload has no {' '.join(words)}"
            command = commands[word]


def test_no_refusal_of_spec_check_names_spec_check_with_the_source_as_what_to_do_next() -> None:
    assert [kind.id for kind in REGISTRY.values() if "spec check --source" in kind.next_step] == []

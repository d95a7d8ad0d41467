"""The harness is tested too: with a protection taken out of the code, the tests that stand for it must fail.

Each mutation is made by exact text in a copy of `include/` and `tests/`; a text that is no longer there fails the test.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.airflow_bag import ROOT
from tests.support.stack import Servers
from tests.torture.story import tell

pytestmark = pytest.mark.timeout(300)

COPIED = ("include", "tests")
LEFT_OUT = (".git", ".run", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis", ".import_linter_cache")
BETWEEN = "tests/faults/test_between_slices.py"
EXPIRY = "tests/integration/test_domain_expiry.py"
PROTOCOL = "tests/integration/test_domain_protocol.py"
RUNS = "tests/integration/test_domain_runs.py"
SHAPES = "tests/integration/test_domain_shapes.py"
STATES = "tests/integration/test_ledger_states.py"
PLANNING = "tests/unit/test_planning.py"


@dataclass(frozen=True)
class Patch:
    """In `file` below include/offload/, `old` becomes `new`. It must be there exactly once."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutation:
    """A protection that is taken out, and the tests of which every one must then fail."""

    patches: tuple[Patch, ...]
    tests: tuple[str, ...]


MUTATIONS = {
    "predecessor check": Mutation(
        (Patch("lake/commit.py", "if head != plan.predecessor:", "if False:"),),
        (
            f"{PROTOCOL}::test_of_two_plans_for_the_same_windows_one_lands",
            f"{PROTOCOL}::test_a_zombie_that_wakes_up_after_others_passed_is_stopped_at_the_commit",
            f"{PROTOCOL}::test_a_zombie_that_nobody_passed_lands_and_the_newer_plan_stops",
        ),
    ),
    "audit": Mutation(
        (
            Patch("job.py", "changed = changed_windows(ctx, spec, plan, done, pending)", "changed: set[int] = set()"),
            Patch("lake/commit.py", "if size != file.file_size_in_bytes:", "if False:"),
        ),
        (
            f"{RUNS}::test_rows_deleted_while_they_are_read_again_do_not_erase_history",
            f"{BETWEEN}::test_rule_12_a_window_that_changes_between_its_slices_stays_pending",
        ),
    ),
    "look-back": Mutation(
        (
            Patch("ledger/store.py", 'if c.execute(_LOST_SINCE, {"id": plan.plan_id}).scalar_one():', "if False:"),
            Patch("ledger/looks.py", " or _compared(stored) != _compared(before)", ""),
            Patch("job.py", "outcome = with_expiries(client, spec, source, plan, outcome)", "pass"),
        ),
        (
            f"{EXPIRY}::test_rule_18_a_plan_that_lands_after_a_loss_was_seen_is_protected",
            f"{EXPIRY}::test_rule_18_a_look_that_another_run_passed_is_taken_again",
            f"{EXPIRY}::test_rule_18_a_row_that_came_between_plan_and_read_is_asked_when_it_expires",
        ),
    ),
    "compare-and-swap of the commit": Mutation(
        (Patch("lake/commit.py", "AssertRefSnapshotId(ref=MAIN_BRANCH, snapshot_id=head),", ""),),
        (f"{PROTOCOL}::test_a_zombie_s_commit_that_comes_while_ours_is_on_its_way_is_not_rebased_over",),
    ),
    "compare-and-swap of the ledger": Mutation(
        (
            Patch("ledger/store.py", " FOR UPDATE OF w", ""),
            Patch("ledger/store.py", " AND generation = :seen", " AND (generation = :seen OR true)"),
        ),
        (f"{STATES}::test_rule_21_of_two_plans_recorded_at_once_one_moves_the_watermark",),
    ),
    "expiry rule": Mutation(
        (
            Patch("planning.py", "if expiry is not None and expiry <= rules.safe_until_us:", "if False:"),
            Patch("job.py", "soonest <= now + COMMIT_MARGIN_US", "False"),
        ),
        (
            f"{SHAPES}::test_rule_18_an_expiring_window_is_never_replaced",
            f"{PLANNING}::test_rule_18_a_window_that_expired_whole_is_left_even_when_deletes_are_followed",
            f"{PLANNING}::test_no_history_that_expires_is_ever_replaced_and_no_shrunk_window_unless_deletes_are_followed",
        ),
    ),
}


def copy_of_the_code(where: Path, patches: tuple[Patch, ...] = ()) -> Path:
    """`include/` and `tests/` copied and patched, all else linked to the original."""
    where.mkdir()
    for entry in ROOT.iterdir():
        if entry.name in COPIED:
            shutil.copytree(entry, where / entry.name, ignore=shutil.ignore_patterns("__pycache__"))
        elif entry.name not in LEFT_OUT:
            (where / entry.name).symlink_to(entry)
    for patch in patches:
        file = where / "include" / "offload" / patch.file
        text = file.read_text(encoding="utf-8")
        assert text.count(patch.old) == 1, f"{patch.file} holds {text.count(patch.old)} times: {patch.old}"
        file.write_text(text.replace(patch.old, patch.new), encoding="utf-8")
    return where


def python(code: Path, servers: Servers, *words: str) -> subprocess.CompletedProcess[str]:
    """`python -m …` in this copy, with the servers that run already."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(("OFFLOAD_", "PYICEBERG_", "PYTEST_", "COV"))}
    kept = {"OFFLOAD_KEEP_STACK": str(servers.home), "OFFLOAD_TEST_PORT_BASE": os.environ["OFFLOAD_PORT_BASE"]}
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=code,
        env=own | kept,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def failed_in(code: Path, servers: Servers, tests: tuple[str, ...]) -> tuple[set[str], str]:
    """The tests that fail in this copy, and what pytest said. It uses the servers that run already."""
    done = python(code, servers, "pytest", "-q", "--tb=line", "-rA", "-p", "no:cacheprovider", *tests)
    # 0: all passed, 1: some failed; anything else is no verdict
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    ran = set(re.findall(r"^(?:PASSED|FAILED) (\S+?)(?:\[| - |$)", done.stdout, re.MULTILINE))
    assert ran == set(tests), f"not all ran: {done.stdout[-3000:]}"
    return set(re.findall(r"^FAILED (\S+?)(?:\[| - |$)", done.stdout, re.MULTILINE)), done.stdout


def test_without_a_mutation_all_of_these_tests_pass(data_stack: Servers, tmp_path: Path) -> None:
    """Else that they fail with one would prove nothing."""
    tests = tuple(t for m in MUTATIONS.values() for t in m.tests)
    failed, said = failed_in(copy_of_the_code(tmp_path / "code"), data_stack, tests)
    assert failed == set(), said


@pytest.mark.parametrize("name", MUTATIONS)
def test_the_suite_fails_without(name: str, data_stack: Servers, tmp_path: Path) -> None:
    mutation = MUTATIONS[name]
    failed, said = failed_in(copy_of_the_code(tmp_path / "code", mutation.patches), data_stack, mutation.tests)
    assert failed == set(mutation.tests), f"they pass without the {name}:\n{said[-3000:]}"


def test_a_round_of_torture_fails_without_the_predecessor_check(data_stack: Servers, tmp_path: Path) -> None:
    """And says how to see it again."""
    number = next(n for n in range(100) if "zombie in flight" in {getattr(a, "kind", "") for a in tell(1, n).acts})
    code = copy_of_the_code(tmp_path / "code", MUTATIONS["predecessor check"].patches)
    done = python(code, data_stack, "tests.torture", f"--round={number}", f"--log={tmp_path / 'log.jsonl'}", "--json")
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["failed"] == 1
    assert "a plan that was passed ended with" in done.stderr
    assert f"again: make torture SEED=1 ROUND={number}" in done.stderr


def test_a_patch_that_no_longer_applies_fails_loudly(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="holds 0 times"):
        copy_of_the_code(tmp_path / "code", (Patch("lake/commit.py", "no such text", ""),))

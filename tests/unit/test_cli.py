"""The command line as a user meets it: one process a call, from another directory."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from include.offload.errors import REGISTRY
from include.offload.metrics import REGISTRY as METRICS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def offload(tmp_path: Path):  # type: ignore[no-untyped-def]
    """Runs `bin/offload` with an empty home, in a directory that is not the checkout."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("OFFLOAD_", "PYICEBERG_"))}
    env |= {"OFFLOAD_HOME": str(tmp_path / "home"), "COLUMNS": "200"}

    def call(*args: str, **extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(ROOT / "bin" / "offload"), *args],
            cwd=tmp_path,
            env=env | extra,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return call


def test_a_checkout_without_an_environment_says_so(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    program = shutil.copy(ROOT / "bin" / "offload", tmp_path / "bin")
    done = subprocess.run([sys.executable, program, "status"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    venv = tmp_path / ".venv" / "airflow"
    assert done.stderr == f"there is no environment in {venv} yet. Next: make setup\n"


def test_help_names_every_command(offload) -> None:  # type: ignore[no-untyped-def]
    done = offload("--help")
    assert done.returncode == 0, done.stderr
    for command in [
        "status",
        "plan",
        "run",
        "verify",
        "ledger",
        "accept-source",
        "take-over",
        "errors",
        "spec",
        "stack",
        "metrics",
        "health",
        "alerts",
        "support-bundle",
    ]:
        assert command in done.stdout


@pytest.mark.parametrize("words", [(), ("status",), ("spec", "check")])
def test_help_names_no_type_after_a_flag(offload, words: tuple[str, ...]) -> None:  # type: ignore[no-untyped-def]
    done = offload(*words, "--help")
    assert done.returncode == 0, done.stderr
    assert "--help" in done.stdout
    assert "bool" not in done.stdout


@pytest.mark.parametrize("id", ["OFL-203", "ofl-203", "203"])
def test_an_error_id_is_explained(offload, id: str) -> None:  # type: ignore[no-untyped-def]
    done = offload("errors", id)
    assert done.returncode == 0, done.stderr
    assert REGISTRY["OFL-203"].title in done.stdout
    assert REGISTRY["OFL-203"].next_step.replace("{table}", "DB.TABLE") in done.stdout
    assert "runbook  docs/operations/runbooks/iceberg-offload-data-at-risk.md#schema-drift" in done.stdout
    assert "The table was dropped or renamed" in done.stdout
    assert "The table was dropped or renamed" in json.loads(offload("errors", id, "--json").stdout)["note"]


def test_an_unknown_error_id_is_a_usage_error(offload) -> None:  # type: ignore[no-untyped-def]
    done = offload("errors", "OFL-999")
    assert done.returncode == 2
    assert "offload errors" in done.stderr


def test_deletes_are_followed_over_a_range_only(offload) -> None:  # type: ignore[no-untyped-def]
    done = offload("reconcile", "k2.silver_trades", "--from", "2026-01-30", "--follow-deletes")
    assert done.returncode == 2
    assert "it needs --from and --to" in done.stderr


def test_a_window_to_repair_is_an_instant(offload) -> None:  # type: ignore[no-untyped-def]
    done = offload("repair", "k2.silver_trades", "the-third")
    assert done.returncode == 2
    assert "'the-third' is no ISO 8601 instant" in " ".join(done.stderr.split())


def test_registries_print_as_json(offload) -> None:  # type: ignore[no-untyped-def]
    errors = json.loads(offload("errors", "--json").stdout)
    assert [e["id"] for e in errors] == list(REGISTRY)
    metrics = json.loads(offload("metrics", "--json").stdout)
    assert [m["name"] for m in metrics] == list(METRICS)


def test_metrics_print_as_the_table_of_the_docs(offload) -> None:  # type: ignore[no-untyped-def]
    lines = offload("metrics", "--markdown").stdout.splitlines()
    assert lines[0] == "| metric | type | unit | labels | meaning |"
    assert len(lines) == 2 + len(METRICS)


def test_a_missing_setting_is_one_block_and_exit_code_1(offload) -> None:  # type: ignore[no-untyped-def]
    done = offload("status")
    assert done.returncode == 1
    assert done.stdout == ""
    assert [line.split()[0] for line in done.stderr.splitlines()] == ["OFL-102", "cause", "next"]
    assert "Traceback" not in done.stderr


def test_a_refusal_is_json_when_json_was_asked_for(offload) -> None:  # type: ignore[no-untyped-def]
    done = offload("status", "--json")
    assert done.returncode == 1
    said = json.loads(done.stdout)["error"]
    assert said["id"] == "OFL-102"
    assert said["next"] == REGISTRY["OFL-102"].next_step


def test_debug_keeps_the_traceback(offload) -> None:  # type: ignore[no-untyped-def]
    done = offload("--debug", "status")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


@pytest.mark.parametrize(
    ("call", "cause"),
    [
        (("status", "k2.silver_trade"), "k2/silver_trade.yaml is no file; did you mean k2.silver_trades?"),
        (("run", "k2"), "'k2' is not DB.TABLE"),
        (("spec", "check", "silver_trades"), "'silver_trades' is not DB.TABLE; did you mean k2.silver_trades?"),
        (("plan", "../../etc.passwd"), "'../../etc.passwd' is not DB.TABLE"),
    ],
)
def test_a_name_without_a_spec_is_no_invalid_spec(offload, call: tuple[str, ...], cause: str) -> None:  # type: ignore[no-untyped-def]
    done = offload(*call)
    assert done.returncode == 1
    assert done.stderr.startswith("OFL-104  no table spec has this name")
    said = dict(line.split(maxsplit=1) for line in done.stderr.splitlines())
    assert said["table"] == call[-1]
    assert said["cause"].endswith(cause)
    assert said["next"] == "bin/offload spec check --json lists the tables"


@pytest.mark.parametrize("command", ["plan", "run", "verify", "reconcile"])
def test_a_range_that_ends_before_it_begins_is_a_usage_error(offload, command: str) -> None:  # type: ignore[no-untyped-def]
    done = offload(command, "k2.silver_trades", "--from", "2026-01-02", "--to", "2026-01-01T00:00:00Z")
    assert done.returncode == 2, done.stderr
    assert "2026-01-02 is not before --to" in done.stderr


def test_spec_check_accepts_the_shipped_specs(offload) -> None:  # type: ignore[no-untyped-def]
    done = offload("spec", "check", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["errors"] == []
    assert len(found["tables"]) == 10


def test_spec_check_lists_what_is_wrong_and_fails(offload, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path / "tables" / "db"
    folder.mkdir(parents=True)
    (folder / "good.yaml").write_text("cursor: ts\n")
    (folder / "bad.yaml").write_text("cursor: ts\nwindow: soon\nbogus: 1\n")
    done = offload("spec", "check", OFFLOAD_TABLES=str(tmp_path / "tables"))
    assert done.returncode == 1
    assert "bad.yaml" in done.stderr
    assert "bogus" in done.stderr
    assert "1 of 2" in done.stdout
    as_json = json.loads(offload("spec", "check", "--json", OFFLOAD_TABLES=str(tmp_path / "tables")).stdout)
    assert as_json["tables"] == ["db.good"]
    assert {e["line"] for e in as_json["errors"]} == {2, 3}


@pytest.mark.parametrize(
    "args", [("verify",), ("verify", "k2.a", "--all"), ("run", "k2.silver_trades", "--from", "soon")]
)
def test_a_wrong_call_is_a_usage_error(offload, args: tuple[str, ...]) -> None:  # type: ignore[no-untyped-def]
    done = offload(*args)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_stops_reading_the_state_of_the_stack_sees_no_traceback(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "local", "status", "--json"],
            cwd=ROOT,
            env=os.environ | {"OFFLOAD_HOME": str(tmp_path / "home")},
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (3, "")

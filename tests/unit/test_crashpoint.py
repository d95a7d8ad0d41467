"""Crash points fire once, only where they are armed, and only by names that exist."""

from __future__ import annotations

import ast
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from include.offload.crashpoint import BESIDE, POINTS, reached
from include.offload.settings import ROOT

CALL = "from include.offload.crashpoint import reached; reached({point!r}); print('alive')"


def run(point: str, directory: Path | None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CALL.format(point=point)],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", **({"OFFLOAD_CRASH_DIR": str(directory)} if directory else {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_an_armed_point_kills_the_process_once(tmp_path: Path) -> None:
    (tmp_path / "before-commit").touch()
    first = run("before-commit", tmp_path)
    assert first.returncode == -signal.SIGKILL
    assert first.stdout == ""
    assert not list(tmp_path.iterdir())
    second = run("before-commit", tmp_path)
    assert (second.returncode, second.stdout) == (0, "alive\n")


def test_another_point_passes_by_and_leaves_the_arm_in_place(tmp_path: Path) -> None:
    (tmp_path / "before-commit").touch()
    assert run("after-commit", tmp_path).stdout == "alive\n"
    assert (tmp_path / "before-commit").exists()


def test_without_the_variable_nothing_happens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OFFLOAD_CRASH_DIR", raising=False)
    for point in (*POINTS, *BESIDE):
        reached(point)
    monkeypatch.setenv("OFFLOAD_CRASH_DIR", str(tmp_path / "missing"))
    reached(POINTS[0])


def test_an_unknown_point_is_an_error_not_a_test_that_never_fires(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OFFLOAD_CRASH_DIR", str(tmp_path))
    with pytest.raises(ValueError, match="unknown crash point 'before-comit'"):
        reached("before-comit")


def test_every_point_is_reached_in_the_code_exactly_by_its_name() -> None:
    called: list[str] = []
    for room in ("include", "spark_jobs"):
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "reached":
                    (argument,) = node.args
                    assert isinstance(argument, ast.Constant), f"{path}:{node.lineno}"
                    called.append(str(argument.value))
    assert set(called) == {*POINTS, *BESIDE}
    assert len({*POINTS, *BESIDE}) == len(POINTS) + len(BESIDE)

"""docs/tutorial.md, followed as written: its commands in turn, on a stack of their own, and what they print.

A fence ```` ```console resolve ```` is typed once; one of kind `verify` again and again until it prints what the page
says, as its reader would.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.paths import ROOT
from local.runbooks import shell
from local.runbooks.pages import Page, Step, read
from local.stack import Stack

PORT_BASE = "27700"
LIMIT_S = 150.0
"""How long a command of kind `verify` may take to print what the page says, seconds."""


@pytest.fixture
def newcomer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A clone in which nobody has started anything: a home, ports and specs of its own. No server is left running."""
    for name in [n for n in os.environ if n.startswith(("OFFLOAD_", "AIRFLOW", "PYICEBERG_"))]:
        if name != "OFFLOAD_TEST_PORT_BASE":
            monkeypatch.delenv(name)
    # not pytest's directory: the path of a socket must be short
    home = Path(tempfile.mkdtemp(prefix="offload-tut-"))
    monkeypatch.setenv("OFFLOAD_HOME", str(home))
    monkeypatch.setenv("OFFLOAD_PORT_BASE", os.environ.get("OFFLOAD_TEST_PORT_BASE", PORT_BASE))
    monkeypatch.setenv("OFFLOAD_TABLES", str(home / "tables"))
    shutil.copytree(ROOT / "dags" / "tables", home / "tables")
    try:
        yield home
    finally:
        Stack(home).stop()
        shutil.rmtree(home)


def follow(step: Step, *, patient: bool) -> None:
    end = time.monotonic() + LIMIT_S
    ran = shell.run(step)
    while patient and not ran.matches and time.monotonic() < end:
        time.sleep(1)
        ran = shell.run(step)
    assert ran.matches and ran.code == 0, f"docs/tutorial.md, {ran}"


def tutorial() -> Page:
    return read(ROOT / "docs" / "tutorial.md")


def test_a_command_that_prints_something_else_is_noticed() -> None:
    for step in (Step("echo 719 rows", "720 rows\n", 1), Step("echo 720 rows; exit 1", "720 rows\n", 1)):
        with pytest.raises(AssertionError, match="tutorial"):
            follow(step, patient=False)


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_a_newcomer_can_follow_the_tutorial(newcomer: Path) -> None:
    page = tutorial()
    assert len(page.commands) > 10
    for fence in page.fences:
        for step in fence.steps:
            follow(step, patient=fence.kind == "verify")
    assert not [one for one in Stack(newcomer).status() if one.state == "RUNNING"]

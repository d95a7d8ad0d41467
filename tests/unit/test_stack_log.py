"""`bin/offload stack log`: the end of a server's log, by the server's name."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from local.paths import ROOT


def log_of(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(ROOT / "bin" / "offload"), "stack", "log", *arguments],
        env=os.environ | {"OFFLOAD_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_last_lines_are_printed_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "clickhouse.log").write_text("first\n[red]second[/red]\nthird\n", encoding="utf-8")
    shown = log_of(tmp_path, "clickhouse", "-n", "2")
    assert (shown.returncode, shown.stdout) == (0, "[red]second[/red]\nthird\n")


def test_a_server_without_a_log_and_one_that_is_none_are_refused(tmp_path: Path) -> None:
    for name, said in (("clickhouse", "has written no log yet"), ("clikhouse", "no server is called")):
        shown = log_of(tmp_path, name)
        assert shown.returncode == 1
        assert said in shown.stderr

"""`stack start|stop|status|log`: the one-machine stack, where this checkout has one."""

from __future__ import annotations

import importlib
import subprocess
import sys
from typing import Annotated

import typer

from include.offload.cli.console import Json, flags
from include.offload.errors import SETTING_MISSING, OffloadError
from include.offload.settings import ROOT

app = typer.Typer(help="The servers of the one-machine stack.", no_args_is_help=True)

Names = Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Servers; all when none is named.")]


def local_package() -> None:
    """Raises OFL-102 where this installation has no servers of its own."""
    try:
        importlib.import_module("local")
    except ModuleNotFoundError as error:
        raise OffloadError(
            SETTING_MISSING,
            "this installation has no one-machine stack (no package `local`);"
            " with Docker Compose, on its host: docker compose start|stop|ps|logs NAME",
        ) from error


def _delegate(action: str, names: list[str] | None, *more: str) -> None:
    """Runs `python -m local`, which owns the servers: its output and its exit code are ours."""
    local_package()
    argv = [sys.executable, "-m", "local", action, *(names or ()), *more, *(["--json"] if flags.json else [])]
    sys.exit(subprocess.run(argv, cwd=ROOT, check=False).returncode)


@app.command()
def start(names: Names = None) -> None:
    """Start servers and wait until each answers."""
    _delegate("start", names)


@app.command()
def stop(names: Names = None) -> None:
    """Stop servers; data stays."""
    _delegate("stop", names)


@app.command("status")
def status_(names: Names = None, json: Json = False) -> None:
    """Show which servers run, where they listen, and where their logs are."""
    _delegate("status", names)


@app.command()
def log(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The server.")],
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="The last so many lines.")] = 40,
) -> None:
    """Print the end of a server's log."""
    _delegate("log", [name], f"--lines={lines}")

"""`drill start|list|results`: practise an incident of the runbooks on servers of this machine."""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated

import typer

from include.offload.cli.console import Json, flags
from include.offload.cli.stack import local_package
from include.offload.settings import ROOT

app = typer.Typer(help="Practise incidents: a real fault, its alert, a clock.", no_args_is_help=True)


def _delegate(*words: str) -> None:
    local_package()
    argv = [sys.executable, "-m", "local.runbooks.drill", *words, *(["--json"] if flags.json else [])]
    sys.exit(subprocess.run(argv, cwd=ROOT, check=False).returncode)


@app.command()
def start(
    scenario: Annotated[
        str | None, typer.Argument(metavar="[SCENARIO]", help="One of `drill list`; drawn by chance when left out.")
    ] = None,
    page: Annotated[str | None, typer.Option(help="Draw from this runbook: failure, lag, scheduler, …")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the servers running for the next drill.")] = False,
) -> None:
    """Cause a fault and let the clock run until it is repaired. Exit code 1 when given up or the data is not whole.

    The servers are the drill's own, in OFFLOAD_HOME/drill; you work in a second terminal. Type h for a hint, t for the
    time, g to give up; the result is saved.
    """
    _delegate(
        "start", *([scenario] if scenario else []), *([f"--page={page}"] if page else []), *(["--keep"] if keep else [])
    )


@app.command("list")
def list_(json: Json = False) -> None:
    """Show all scenarios with their alert and the times to recover."""
    _delegate("list")


@app.command()
def results(json: Json = False) -> None:
    """Show the drills so far: time to recover against the target, hints, whether the data was whole."""
    _delegate("results")

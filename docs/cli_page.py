"""docs/cli.md: every command with its options, from the command line itself."""

from __future__ import annotations

import re

import typer
from typer.cli import get_docs_for_click

from include.offload.cli import app

NAME = "bin/offload"
LISTS = re.compile(r"\*\*Commands\*\*:\n\n(?:\* .*\n)+\n?")
"""Typer cuts each line of them off; the headings say the same."""
HELP = re.compile(r"^\* `--help`: .*\n", re.MULTILINE)
EMPTY = re.compile(r"\*\*Options\*\*:\n\n(?=#|\Z|\n)")


def page(header: str) -> str:
    """The page as Markdown."""
    command = typer.main.get_command(app)
    context = command.make_context(NAME, [], resilient_parsing=True)
    text = get_docs_for_click(obj=command, ctx=context, name=NAME)
    text = EMPTY.sub("", HELP.sub("", LISTS.sub("", text)))
    head, _, body = text.partition("## ")
    usage = head.split("\n", 1)[1].strip()
    return (
        f"# The command line\n\n{header}\n\n"
        "`--help` after a command shows the same. Every command takes `--json` where it prints something a program may"
        " want. A refusal is one block with an id of [errors.md](errors.md) and the next command. Exit code 0: done and"
        " well; 1: refused, or something is wrong; 2: wrong usage.\n\n"
        f"{usage}\n\n## {body.strip()}\n"
    )

"""`python -m local start|stop|status|log|purge [NAME …] [--json]`: the servers of the one-machine stack."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys

from rich.console import Console
from rich.table import Table

from local.services import BY_NAME, GROUPS
from local.stack import Progress, Stack, StackError, Status


def main() -> int:
    """Exit code 0: done; 1: a server failed; 3: `status` found a server that does not answer."""
    parser = argparse.ArgumentParser(prog="python -m local", description=__doc__)
    parser.add_argument("action", choices=("start", "stop", "status", "log", "purge"))
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join([*GROUPS, *BY_NAME])}")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.add_argument("--yes", action="store_true", help="purge without asking")
    parser.add_argument("--lines", type=int, default=40, help="how many of the last lines `log` shows")
    options = parser.parse_args()
    err = Console(stderr=True, highlight=False)
    stack = Stack()

    def show(progress: Progress) -> None:
        seconds = f"{progress.seconds:6.1f} s" if progress.seconds else " " * 8
        err.print(f"  {progress.service:<24}{progress.state:<10}{seconds}")

    names = options.names or None
    try:
        if options.action == "purge":
            return _purge(stack, err, sure=options.yes)
        if options.action == "log":
            for name, lines in stack.last_lines(options.names, options.lines).items():
                sys.stdout.write(f"{name}\n{lines}" if len(options.names) > 1 else lines)
            return 0
        if options.action == "start":
            stack.start(names, on_progress=show)
        elif options.action == "stop":
            ended = stack.stop(names, on_progress=show)
            if ended:
                err.print(f"  ended {len(ended)} left-over processes: {', '.join(map(str, ended))}")
        found = stack.status(names)
    except (StackError, ValueError) as error:
        err.print(f"[red]error:[/red] {error}", markup=True, soft_wrap=True)
        return 1
    try:
        if options.json:
            json.dump([dataclasses.asdict(status) for status in found], sys.stdout, indent=2)
            sys.stdout.write("\n")
        elif options.action != "stop":
            Console(highlight=False).print(_table(found))
        sys.stdout.flush()
    except BrokenPipeError:
        # the reader, e.g. `head`, has what it wanted; what is still buffered must not fail at the interpreter's end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    healthy = all(status.answers for status in found)
    return 0 if healthy or options.action == "stop" else 3


def _purge(stack: Stack, err: Console, *, sure: bool) -> int:
    if not stack.home.root.exists():
        err.print(f"nothing to remove: {stack.home.root} does not exist")
        return 0
    if not sure:
        question = f"Remove all data, logs and passwords in {stack.home.root}? Type yes: "
        if not sys.stdin.isatty() or err.input(question).strip() != "yes":
            err.print("nothing was removed; `--yes` does not ask")
            return 1
    stack.stop()
    stack.purge()
    err.print(f"removed {stack.home.root}")
    return 0


def _table(found: list[Status]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("server", "state", "answers", "pid", "up", "ports", "open"):
        table.add_column(heading, overflow="fold")
    for one in found:
        table.add_row(
            one.service,
            one.state,
            "yes" if one.answers else "no",
            str(one.pid or ""),
            "" if one.uptime_s is None else f"{one.uptime_s} s",
            ", ".join(
                f"{port} taken by another program" * (port in one.taken) or str(port) for port in one.ports.values()
            ),
            one.url or "",
        )
    return table


if __name__ == "__main__":
    sys.exit(main())

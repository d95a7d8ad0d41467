"""`support-bundle`: one file for somebody who helps from far away."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from include.offload.cli.common import load
from include.offload.cli.console import Json, err, grid, out, show, size

if TYPE_CHECKING:
    from include.offload.support import Packed


def support_bundle(
    out_file: Annotated[
        Path | None,
        typer.Option("--out", help="The file to write; it must not exist.", metavar="FILE", dir_okay=False),
    ] = None,
    json: Json = False,
) -> None:
    """Pack logs, plans, ledger history, versions, specs, metrics, health and configuration, without secrets.

    Every known secret and whatever looks like one is replaced; a file that would still hold a known one is never
    written (OFL-506). Rows of tables are not in it; names of tables, columns and hosts are. Look at it before you send
    it.
    """
    from include.offload.support import pack

    if out_file is not None and (out_file.exists() or not out_file.absolute().parent.is_dir()):
        why = "is there already" if out_file.exists() else "is in no directory that exists"
        raise typer.BadParameter(f"{out_file} {why}", param_hint="--out")
    try:
        with err.status("collecting …"):
            packed = pack(load(), out_file)
    except OSError as error:
        # in a container the working directory may be read-only
        raise typer.BadParameter(f"the bundle can not be written: {error}", param_hint="--out") from error
    show(packed, lambda: _print(packed))


def _print(packed: Packed) -> None:
    groups: dict[str, list[int]] = {}
    for name, amount in packed.files.items():
        groups.setdefault(name.split("/", maxsplit=1)[0], []).append(amount)
    table = grid("what", "files", "size", right=("files", "size"))
    for name, amounts in groups.items():
        table.add_row(escape(name), str(len(amounts)), size(sum(amounts)))
    out.print(table)
    for line in packed.missing:
        out.print(f"[yellow]missing[/]  {escape(line)}", soft_wrap=True)
    known = f"{packed.removed} known secrets"
    out.print(f"{known}, and what looks like one, were replaced; look into it before you send it")
    out.print(f"wrote {escape(str(packed.path))}, {size(packed.bytes)}, mode 0600", soft_wrap=True)

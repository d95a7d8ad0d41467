"""What several commands need: the table of an argument, instants of options, an open context.

PyIceberg, SQLAlchemy and the ClickHouse client are imported by the commands that talk to them: `--help`, `errors`
and `spec check` answer at once, also on a machine where nothing runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from include.offload import settings as settings_module
from include.offload.errors import SETTING_MISSING, SPEC_INVALID, OffloadError
from include.offload.settings import Settings
from include.offload.windows import to_us

if TYPE_CHECKING:
    from include.offload.context import Context
    from include.offload.source.client import Client
    from include.offload.spec.model import TableSpec

TableArgument = Annotated[
    str, typer.Argument(metavar="TABLE", help="The identity of the table, e.g. k2.silver_trades.")
]
OneOrAll = Annotated[
    str | None, typer.Argument(metavar="[TABLE]", help="The identity of the table, e.g. k2.silver_trades.")
]
All = Annotated[bool, typer.Option("--all", help="Every table that has a spec.")]
FromOption = Annotated[
    str | None, typer.Option("--from", help="First instant, ISO 8601; without an offset it is UTC.", metavar="INSTANT")
]
ToOption = Annotated[
    str | None, typer.Option("--to", help="First instant that is not in the range.", metavar="INSTANT")
]


def instant_us(text: str | None, option: str) -> int | None:
    """Microseconds since the epoch of an ISO 8601 instant; without an offset it counts as UTC."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is no ISO 8601 instant, e.g. 2026-01-31T12:00:00Z", param_hint=option
        ) from error
    return to_us(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def range_us(from_: str | None, to: str | None) -> tuple[int | None, int | None]:
    """The instants of `--from` and `--to`; a wrong call when the range holds none."""
    lo, hi = instant_us(from_, "--from"), instant_us(to, "--to")
    if lo is not None and hi is not None and lo >= hi:
        raise typer.BadParameter(f"{from_} is not before --to {to}", param_hint="--from")
    return lo, hi


def any_replica(settings: Settings, comment: str) -> Client:
    """A client of the first ClickHouse that answers. Raises OFL-201 with the last one's failure."""
    from include.offload.source.client import Client, parse_uri

    failure: OffloadError | None = None
    for uri in settings.clickhouse_uris():
        try:
            return Client(parse_uri(uri), settings={}, comment=comment, table=None)
        except OffloadError as error:
            failure = error
    raise failure or OffloadError(SETTING_MISSING, "OFFLOAD_CLICKHOUSE_URI names no server")


def load() -> Settings:
    """The settings of this process."""
    return settings_module.load()


def the_spec(settings: Settings, identity: str) -> TableSpec:
    """The spec of one table. Raises OFL-101, OFL-104."""
    from include.offload.spec.load import load_spec

    return load_spec(identity, settings.tables, settings.env)


def all_specs(settings: Settings) -> tuple[TableSpec, ...]:
    """Every spec. Raises OFL-101 when one of them is broken: a list with a silent hole helps nobody."""
    from include.offload.spec.load import load_specs

    result = load_specs(settings.tables, settings.env)
    if result.errors:
        raise OffloadError(SPEC_INVALID, "; ".join(str(e) for e in result.errors))
    return result.specs


def chosen(settings: Settings, table: str | None, every: bool) -> tuple[TableSpec, ...]:
    """The spec of TABLE, or of all with `--all`; a wrong call unless it is one of the two. Raises OFL-101, OFL-104."""
    if (table is None) != every:
        raise typer.BadParameter("give one TABLE, or --all", param_hint="TABLE")
    return all_specs(settings) if table is None else (the_spec(settings, table),)


@contextmanager
def opened(settings: Settings) -> Iterator[Context]:
    """What the steps need; servers are asked when first used. Raises OFL-102, OFL-301, OFL-50x."""
    from include.offload.context import open_context

    ctx = open_context(settings)
    try:
        yield ctx
    finally:
        ctx.close()

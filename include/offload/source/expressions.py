"""SQL that people write into a spec (`expr`, `ttl`): one expression over one row, always the same for the same row.

It is looked at twice: by `check_expression` without a server, whenever a spec is read, and by `confirm_expressions`
with ClickHouse's own parser before it becomes part of a query: two parsers of SQL never agree on everything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from include.offload.errors import SOURCE_QUERY_FAILED, SPEC_INVALID, OffloadError

if TYPE_CHECKING:
    from include.offload.source.describe import Queries
    from include.offload.spec.model import TableSpec

_FOREIGN = re.compile(
    r"\b(Subquery|SelectWithUnionQuery|TablesInSelectQuery|TableIdentifier|Asterisk|QualifiedAsterisk|Columns\w*Matcher"
    r"|WindowDefinition|QueryParameter|Function (?:joinGet\w*|dictGet\w*|dictHas|file|hasColumnInTable))\b|\(alias "
)
"""Nodes of ClickHouse's syntax tree that read more than the row, or name something that a query around could use."""

_UNREPEATABLE = frozenset(
    {
        "now",
        "now64",
        "nowinblock",
        "today",
        "yesterday",
        "rand",
        "rand32",
        "rand64",
        "randconstant",
        "randcanonical",
        "randuniform",
        "randnormal",
        "randomstring",
        "randomfixedstring",
        "randomprintableascii",
        "generateuuidv4",
        "generateuuidv7",
        "generateulid",
        "generatesnowflakeid",
        "rownumberinallblocks",
        "rownumberinblock",
        "blocknumber",
        "runningdifference",
        "runningaccumulate",
        "hostname",
        "fqdn",
        "servertimezone",
        "currentuser",
        "currentdatabase",
        "queryid",
        "initialqueryid",
        "uptime",
        "neighbor",
        "lagineframe",
        "file",
        "url",
        "dictget",
        "joinget",
        "hascolumnintable",
        # IN as a function: its second argument may be a table's name
        "in",
        "notin",
        "globalin",
        "globalnotin",
        "nullin",
        "notnullin",
        "sleep",
        "sleepeachrow",
        "throwif",
    }
)


def check_expression(text: str) -> None:
    """Raises ValueError when `text` is not one expression, or can give another value for the same row.

    A hash is compared between two readings of one row, so `now()` or `rand()` would never match.
    """
    import sqlglot
    from sqlglot import exp

    try:
        trees = sqlglot.parse(text, read="clickhouse")
    except sqlglot.errors.SqlglotError as error:
        raise ValueError(f"no valid ClickHouse expression: {str(error).splitlines()[0]}") from None
    if len(trees) != 1 or trees[0] is None:
        raise ValueError("not exactly one expression")
    tree = trees[0]
    if any(token.comments for token in sqlglot.tokenize(text, read="clickhouse")):
        raise ValueError("comments are not allowed in an expression")
    if not isinstance(tree, exp.Condition | exp.Tuple):
        raise ValueError("a statement or an alias, not an expression")
    for node in tree.walk():
        if isinstance(node, exp.Query | exp.Subquery | exp.Alias | exp.Star | exp.Window):
            raise ValueError(f"{node.sql(dialect='clickhouse')} reads more than one row's own columns")
        if isinstance(node, exp.Columns | exp.Placeholder | exp.Parameter):
            raise ValueError(f"{node.sql(dialect='clickhouse')} stands for something else than a value of one row")
        if isinstance(node, exp.In) and not isinstance(node.args.get("field"), exp.Struct | exp.Array | None):
            raise ValueError(f"{node.sql(dialect='clickhouse')} could read a table: IN takes a list of values here")
        if isinstance(node, exp.AggFunc | exp.AnonymousAggFunc | exp.CombinedAggFunc):
            raise ValueError(f"{node.sql(dialect='clickhouse')} is an aggregate, not a value of one row")
        name = node.name if isinstance(node, exp.Anonymous) else node.sql_name() if isinstance(node, exp.Func) else ""
        if name.replace("_", "").lower() in _UNREPEATABLE or isinstance(
            node, exp.CurrentTimestamp | exp.CurrentDate | exp.Rand
        ):
            raise ValueError(f"{node.sql(dialect='clickhouse')} does not give the same value again for the same row")


def columns_read(text: str) -> set[str]:
    """The columns that an expression of a spec names; of a part of a nested one the column itself."""
    import sqlglot
    from sqlglot import exp

    return {column.parts[0].name for column in sqlglot.parse_one(text, read="clickhouse").find_all(exp.Column)}


def expressions_of(spec: TableSpec) -> dict[str, str]:
    """The SQL in a spec, by where it stands; a `ttl` that is a duration is none."""
    from include.offload.spec import human

    found = {f"columns.overrides.{n}.expr": o.expr for n, o in spec.columns.overrides.items() if o.expr is not None}
    if spec.ttl is not None:
        try:
            human.parse_duration(spec.ttl)
        except ValueError:
            found["ttl"] = spec.ttl
    return found


def confirm_expressions(client: Queries, expressions: Mapping[str, str], table: str) -> None:
    """Have ClickHouse parse each expression. Keys say where in the spec it stands. Raises OFL-101.

    The first questions hand the text over as a parameter: `SELECT e` and `SELECT (e)` both parse only if `e` is whole
    by itself, so the last one, which shows the syntax tree and runs nothing, can safely hold the text.
    """
    for where, text in expressions.items():
        for attempt in (f"SELECT {text}", f"SELECT ({text})"):
            parsed = client.query("SELECT formatQueryOrNull({sql:String})", {"sql": attempt})
            if parsed[0][0] is None:
                raise OffloadError(SPEC_INVALID, f"{where}: ClickHouse reads no single expression in it", table=table)
        try:
            tree = [str(row[0]) for row in client.query(f"EXPLAIN AST SELECT {text}")]
        except OffloadError as error:
            if error.kind is not SOURCE_QUERY_FAILED:
                raise
            raise OffloadError(SPEC_INVALID, f"{where}: {error.cause}", table=table) from error
        _refuse_foreign(where, tree, table)


def _refuse_foreign(where: str, tree: list[str], table: str) -> None:
    """Raises OFL-101 when the tree holds more than one expression over columns."""
    # the first four lines are the SELECT around it: union, list, select, list
    if len(tree) < 5 or tree[3].strip() != "ExpressionList (children 1)":
        raise OffloadError(SPEC_INVALID, f"{where}: not exactly one expression", table=table)
    for line in tree[4:]:
        node = line.strip()
        if _FOREIGN.match(node) or "(alias " in node:
            raise OffloadError(SPEC_INVALID, f"{where}: {node.split(' (')[0]} is not of the row's own", table=table)
    for i, line in enumerate(tree):
        # `x IN name` reads a table; the second argument stands after the first one's own lines
        if re.match(r"\s*Function (?:global)?(?:not)?(?:null)?in\w* ", line, re.IGNORECASE):
            depth = len(line) - len(line.lstrip()) + 2
            arguments = [x for x in tree[i + 2 :] if len(x) - len(x.lstrip()) == depth]
            if len(arguments) > 1 and not re.match(r"\s*(Literal|Function (?:tuple|array|CAST)\b)", arguments[1]):
                raise OffloadError(SPEC_INVALID, f"{where}: IN takes a list of values here", table=table)

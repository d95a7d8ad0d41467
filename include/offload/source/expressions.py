"""SQL that people write into a spec (`expr`, `ttl`): one expression over one row, always the same for the same row."""

from __future__ import annotations

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
        if isinstance(node, exp.AggFunc | exp.AnonymousAggFunc | exp.CombinedAggFunc):
            raise ValueError(f"{node.sql(dialect='clickhouse')} is an aggregate, not a value of one row")
        name = node.name if isinstance(node, exp.Anonymous) else node.sql_name() if isinstance(node, exp.Func) else ""
        if name.replace("_", "").lower() in _UNREPEATABLE or isinstance(
            node, exp.CurrentTimestamp | exp.CurrentDate | exp.Rand
        ):
            raise ValueError(f"{node.sql(dialect='clickhouse')} does not give the same value again for the same row")

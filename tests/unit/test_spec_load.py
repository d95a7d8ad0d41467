"""The loader: layers, every error of every file with its line, and what to write instead."""

# ruff: noqa: E501 -- whole messages stand in one line each
from __future__ import annotations

import time
from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.offload.errors import OffloadError
from include.offload.spec.load import LoadResult, load_spec, load_specs
from include.offload.spec.model import TableSpec
from include.offload.spec.yamlnodes import YamlError, parse

MINUTE = 60_000_000


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text).lstrip("\n"), encoding="utf-8")
    return root


def errors(result: LoadResult, root: Path) -> list[tuple[str, int, str]]:
    return [(str(e.path.relative_to(root)), e.line, e.key) for e in result.errors]


def one_error(tmp_path: Path, text: str) -> str:
    """The single error that a file gives, as shown."""
    result = load_specs(write(tmp_path, {"db/t.yaml": text}))
    assert len(result.errors) == 1, [str(e) for e in result.errors]
    assert not result.specs
    return str(result.errors[0]).removeprefix(f"{tmp_path}/")


def test_one_key_is_enough(tmp_path: Path) -> None:
    (spec,) = load_specs(write(tmp_path, {"db/t.yaml": "cursor: ts"})).specs
    assert (spec.identity, spec.database, spec.table_name, spec.dag_id) == ("db.t", "db", "t", "offload__db__t")
    assert (spec.source.database, spec.source.table) == ("db", "t")
    assert (spec.target.namespace, spec.target.table) == ("db", "t")
    assert (spec.window_us, spec.settle_us, spec.horizon_us) == (5 * MINUTE, 2 * MINUTE, 24 * 60 * MINUTE)
    assert (spec.source.limits.memory, spec.slice.rows, spec.slice.bytes) == (4 * 2**30, 2_000_000, 512 * 2**20)
    assert (spec.deletes, spec.schedule, spec.pool, spec.ttl) == ("keep", "*/15 * * * *", "offload_spark", None)


def test_every_error_of_every_file_at_once(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "_defaults.yaml": "retries: many\n",
            "a/one.yaml": """
                cursr: ts
                window: 300
                target:
                  partition: [day(ts), weekly(ts)]
                  table: Trades
                """,
            "a/two.yaml": """
                cursor: ts
                  settle: 2m
                """,
            "b/three.yaml": """
                cursor: ts
                window: 7m
                horizon: 1m
                retries: 2
                """,
            "b/fine.yaml": "cursor: ts\nretries: 1\n",
        },
    )
    result = load_specs(root)
    assert [s.identity for s in result.specs] == ["b.fine"]
    assert errors(result, root) == [
        ("_defaults.yaml", 1, "retries"),
        ("a/one.yaml", 1, "cursor"),
        ("a/one.yaml", 1, "cursr"),
        ("a/one.yaml", 2, "window"),
        ("a/one.yaml", 4, "target.partition[1]"),
        ("a/one.yaml", 5, "target.table"),
        ("a/two.yaml", 2, ""),
        ("b/three.yaml", 2, "window"),
        ("b/three.yaml", 3, "horizon"),
    ]


def test_rules_across_keys_are_reported_beside_broken_fields(tmp_path: Path) -> None:
    root = write(tmp_path, {"a/t.yaml": "cursor: ts\nwindow: 7m\nretries: -1\nsort: [x]\n"})
    assert errors(load_specs(root), root) == [
        ("a/t.yaml", 2, "window"),
        ("a/t.yaml", 3, "retries"),
        ("a/t.yaml", 4, "sort"),
    ]


def test_a_rule_is_silent_when_what_it_compares_is_broken(tmp_path: Path) -> None:
    root = write(tmp_path, {"a/t.yaml": "cursor: ts\nwindow: 2 days\nhorizon: 1m\n"})
    assert errors(load_specs(root), root) == [("a/t.yaml", 2, "window")]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cursor: ts\nwindo: 5m", "db/t.yaml:2: windo: unknown key windo. Write: did you mean window?"),
        ("cursor: ts\nfinal: true", "db/t.yaml:2: final: unknown key final. Write: it belongs to source.final"),
        ("window: 5m", "db/t.yaml:1: cursor: cursor is missing. Write: cursor: the column with each row's time"),
        ("cursor: ts\nwindow: 300", "db/t.yaml:2: window: 300 has no unit; write a duration such as 5m, 2h or 1d"),
        ("cursor: ts\nwindow: 7m", "db/t.yaml:2: window: a window of 7m neither divides a day nor is a multiple of one. Write: window: 6m"),
        ("cursor: ts\nwindow: 36h\nhorizon: 3d", "db/t.yaml:2: window: a window of 36h neither divides a day nor is a multiple of one. Write: window: 1d"),
        ("cursor: ts\nsettle: -5m", "db/t.yaml:2: settle: '-5m' is no duration; write a number with a unit (w, d, h, m, s, ms), such as 5m"),
        ("cursor: ts\nhorizon: 1m", "db/t.yaml:2: horizon: the horizon 1m is shorter than one window of 5m. Write: horizon: 1d or more"),
        ("cursor: ts\nperiod: 1h", "db/t.yaml:2: window: rows span 1h (period), and a window of 5m is no multiple of that: it would be shipped half-built. Write: window: 1h"),
        ("cursor: ts\nstart: 2026-01-01T00:03:00Z", "db/t.yaml:2: start: start is inside a window of 5m. Write: start: 2026-01-01T00:00:00Z or 2026-01-01T00:05:00Z"),
        ("cursor: ts\nstart: 2026-01-01 00:00:00", "db/t.yaml:2: start: '2026-01-01 00:00:00' has no time zone; write 2026-01-01T00:00:00Z for UTC"),
        ("cursor: ts\nschedule: '* * * *'", "db/t.yaml:2: schedule: '* * * *' has 4 fields, cron has five; write for example */15 * * * *"),
        ("cursor: ts\nschedule: '0 25 * * *'", "db/t.yaml:2: schedule: '25' is no hour of cron: write * or a number from 0 to 23"),
        ("cursor: ts\ndeletes: drop", "db/t.yaml:2: deletes: Input should be 'keep' or 'follow'"),
        ("cursor: ts\nidentity: x.y", "db/t.yaml:2: identity: the identity is the file's path. Write: nothing"),
        ("cursor: ts\ncolumns: {exclude: [ts]}", "db/t.yaml:1: cursor: the cursor ts is not among the offloaded columns. Write: columns.exclude without ts"),
        ("cursor: ts\ncolumns: {include: [ts], exclude: [a]}", "db/t.yaml:2: columns.exclude: include and exclude are both given. Write: one of them: include names all columns, exclude takes some away"),
        ("cursor: ts\ncolumns: {include: [a, ts, a]}", "db/t.yaml:2: columns.include[2]: a stands twice. Write: each name once"),
        ("cursor: ts\ncolumns: {overrides: {a: {expr: now(), type: timestamptz}}}", "db/t.yaml:2: columns.overrides.a.expr: now() does not give the same value again for the same row. Write: one ClickHouse expression over the row's own columns"),
        ("cursor: ts\ncolumns: {overrides: {a: {expr: f(a)}}}", "db/t.yaml:2: columns.overrides.a.expr: an expr needs the Iceberg type of its result. Write: type: string (or what the expr gives)"),
        ("cursor: ts\ncolumns: {overrides: {a: {type: text}}}", "db/t.yaml:2: columns.overrides.a.type: 'text' is no Iceberg type that is supported; known: boolean, int, long, float, double, date, timestamp, timestamptz, string, uuid, binary. Write: an Iceberg type: string, binary, long, decimal(38, 0), timestamptz, list<string>, …"),
        ("cursor: ts\ncolumns: {overrides: {ts: {type: string}}}", "db/t.yaml:2: columns.overrides.ts: the cursor is offloaded by its own value. Write: no override for ts, or, for a DateTime64 with more than 6 digits, expr: \"toDateTime64(ts, 6, 'UTC')\" and type: timestamptz"),
        ("cursor: ts\ntarget: {partition: day(ts)}", "db/t.yaml:2: target.partition: 'day(ts)' is no list. Write: [day(ts)]"),
        ("cursor: ts\ntarget: {partition: ['bucket(id)']}", "db/t.yaml:2: target.partition[0]: bucket needs a number above 0. Write: bucket(16, id)"),
        ("cursor: ts\ntarget: {partition: ['week(ts)']}", "db/t.yaml:2: target.partition[0]: Iceberg has no transform 'week'. Write: one of identity, year, month, day, hour, void, bucket, truncate"),
        ("cursor: ts\ntarget: {partition: ['day(ts)', 'hour(ts)']}", "db/t.yaml:2: target.partition[1]: hour(ts) beside day(ts) is redundant. Write: the finer of the two alone"),
        ("cursor: ts\ntarget: {partition: [a, a]}", "db/t.yaml:2: target.partition[1]: two partition fields are named a. Write: a as another_name"),
        ("cursor: ts\ntarget: {sort: [a, a desc]}", "db/t.yaml:2: target.sort[1]: a stands twice. Write: each column once"),
        ("cursor: ts\ntarget: {sort: [a up]}", "db/t.yaml:2: target.sort[0]: 'a up' is no sort field. Write: column, column desc, or column asc nulls last"),
        ("cursor: ts\ntarget: {table: My-Trades}", "db/t.yaml:2: target.table: 'My-Trades' is no portable Iceberg name: lower-case letters, digits and _ only, at most 127. Write: target.table: my_trades"),
        ("cursor: ts\ntarget: {properties: {offload.plan: x}}", "db/t.yaml:2: target.properties.offload.plan: properties under offload. belong to the commit marker. Write: another name"),
        ("cursor: ts\ntarget: {properties: {format-version: 3}}", "db/t.yaml:2: target.properties.format-version: Iceberg format version 3 is not supported. Write: format-version: 2"),
        ("cursor: ts\nttl: soon; drop table x", "db/t.yaml:2: ttl: not exactly one expression. Write: a duration after the cursor, such as 7d, or a ClickHouse expression giving a time"),
        ("cursor: ts\nsource: {limits: {memory: 4 gigs}}", "db/t.yaml:2: source.limits.memory: '4 gigs' is no size; write a whole number with a unit, such as 512MiB or 4GiB"),
        ("cursor: ts\nsource: yes please", "db/t.yaml:2: source: a mapping of keys is needed here. Write: key: value lines, indented"),
        ("cursor: ts\ncursor: x", "db/t.yaml:2: key cursor stands twice. Write: each key once"),
        ("a: &x 1\nb: *x", "db/t.yaml:1: anchors and aliases are not supported. Write: the value itself, or _defaults.yaml"),
        ("<<: {a: 1}", "db/t.yaml:1: merge keys (<<) are not supported. Write: the values themselves, or _defaults.yaml"),
        ("cursor: !!python/name:os.system x", "db/t.yaml:1: tag tag:yaml.org,2002:python/name:os.system is not supported. Write: the plain value"),
        ("- cursor: ts", "db/t.yaml:1: the file holds no `key: value` mapping. Write: cursor: my_time_column"),
        ("cursor: [ts", "db/t.yaml:2: no valid YAML: did not find expected ',' or ']'. Write: indent with spaces, `key: value`, quotes around text with : or #"),
    ],
)  # fmt: skip
def test_the_message_says_what_to_write(tmp_path: Path, text: str, shown: str) -> None:
    assert one_error(tmp_path, text + "\n") == shown


def test_layers_later_ones_win_and_null_takes_away(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "_defaults.yaml": "owner: all\ntarget: {properties: {a: 1, b: 2}}\ntags: [x]\nsequence: s\n",
            "_defaults.prod.yaml": "pool: big\n",
            "db/_defaults.yaml": "owner: db\n",
            "db/_defaults.prod.yaml": "target: {properties: {c: true}}\n",
            "db/t.yaml": "cursor: ts\ntarget: {properties: {b: 3}}\ntags: [y]\nsequence: null\n",
            "db/t.prod.yaml": "window: 10m\n",
            "db/t.test.yaml": "window: 15m\n",
        },
    )
    plain = load_spec("db.t", root)
    prod = load_spec("db.t", root, "prod")
    assert (plain.owner, plain.tags, plain.sequence, plain.window_us) == ("db", ("y",), None, 5 * MINUTE)
    assert plain.target.properties == {"a": "1", "b": "3"}
    assert (prod.pool, prod.window_us) == ("big", 10 * MINUTE)
    assert prod.target.properties == {"a": "1", "b": "3", "c": "true"}
    assert load_spec("db.t", root, "test").window_us == 15 * MINUTE
    assert load_spec("db.t", root, "other") == plain


def test_an_error_points_into_the_layer_that_holds_it(tmp_path: Path) -> None:
    root = write(tmp_path, {"db/t.yaml": "cursor: ts\nwindow: 5m\n", "db/t.prod.yaml": "# prod\nwindow: 7m\n"})
    assert errors(load_specs(root, "prod"), root) == [("db/t.prod.yaml", 2, "window")]
    assert load_specs(root).errors == ()


def test_an_error_in_shared_defaults_is_reported_once(tmp_path: Path) -> None:
    root = write(tmp_path, {"_defaults.yaml": "polo: x\n", "db/a.yaml": "cursor: t\n", "db/b.yaml": "cursor: t\n"})
    assert errors(load_specs(root), root) == [("_defaults.yaml", 1, "polo")]


def test_files_that_no_rule_gives_a_meaning(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "stray.yaml": "cursor: ts\n",
            "db/_common.yaml": "",
            "db/t.yml": "cursor: ts\n",
            "db/gone.prod.yaml": "window: 5m\n",
            "db/odd-name.yaml": "cursor: ts\n",
            "db/deep/er.yaml": "cursor: ts\n",
            "db/ok.yaml": "cursor: ts\n",
            "db/README.md": "text",
        },
    )
    result = load_specs(root)
    assert [s.identity for s in result.specs] == ["db.ok"]
    assert sorted(str(e.path.relative_to(root)) for e in result.errors) == [
        "db/_common.yaml", "db/deep/er.yaml", "db/gone.prod.yaml", "db/odd-name.yaml", "db/t.yml", "stray.yaml",
    ]  # fmt: skip


def test_two_specs_never_write_one_table(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "db/a.yaml": "cursor: ts\ntarget:\n  table: same\n",
            "db/same.yaml": "cursor: ts\n",
            "x/y__z.yaml": "cursor: ts\n",
            "x__y/z.yaml": "cursor: ts\n",
            "db/ok.yaml": "cursor: ts\n",
        },
    )
    result = load_specs(root)
    assert [s.identity for s in result.specs] == ["db.ok"]
    assert errors(result, root) == [
        ("db/a.yaml", 3, "target.table"),
        ("db/same.yaml", 1, "target.table"),
        ("x/y__z.yaml", 1, ""),
        ("x__y/z.yaml", 1, ""),
    ]
    assert "the DAG offload__x__y__z is also made by x__y.z. Write: another file name" in str(result.errors[2])


def test_a_missing_directory_and_a_missing_spec(tmp_path: Path) -> None:
    assert "does not exist" in str(load_specs(tmp_path / "no").errors[0])
    write(tmp_path, {"db/trades.yaml": "cursor: ts\n"})
    with pytest.raises(OffloadError, match=r"OFL-104 .*did you mean db\.trades\?"):
        load_spec("db.trade", tmp_path)
    with pytest.raises(OffloadError, match=r"OFL-104 .*'trades' is not DB\.TABLE; did you mean db\.trades\?"):
        load_spec("trades", tmp_path)
    with pytest.raises(OffloadError, match=r"OFL-104 .*: '\.\./etc\.passwd' is not DB\.TABLE\. Next"):
        load_spec("../etc.passwd", tmp_path)


def test_load_spec_raises_all_errors(tmp_path: Path) -> None:
    write(tmp_path, {"db/t.yaml": "cursor: ts\nwindow: 7m\nhorizon: 1m\n"})
    with pytest.raises(OffloadError, match=r"t\.yaml:2: window.*t\.yaml:3: horizon"):
        load_spec("db.t", tmp_path)


def test_bytes_that_are_no_utf8(tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "t.yaml").write_bytes(b"cursor: \xff\n")
    assert "no UTF-8" in str(load_specs(tmp_path).errors[0])


@pytest.mark.parametrize(
    ("text", "value"),
    [("no", "no"), ("on", "on"), ("5:30", "5:30"), ("2026-01-01", "2026-01-01"), ("0x10", "0x10"), ("1_000", "1_000"),
     ("7", 7), ("-7", -7), ("1.5", 1.5), ("true", True), ("~", None), ("'7'", "7"), ('"null"', "null"), ("", None)],
)  # fmt: skip
def test_scalars_are_what_they_look_like(text: str, value: object) -> None:
    assert parse(f"a: {text}\n").data == {"a": value}


@given(st.text(max_size=200))
def test_any_text_parses_or_is_refused_with_a_line(text: str) -> None:
    try:
        document = parse(text)
    except YamlError as error:
        assert error.line >= 1
    else:
        assert isinstance(document.data, dict)


def test_a_plan_can_keep_the_spec(tmp_path: Path) -> None:
    """`model_dump_json` and back is the same spec, whatever is set."""
    root = write(
        tmp_path,
        {
            "db/t.yaml": """
                cursor: ts
                sequence: seq
                window: 1h30m
                horizon: 36h
                period: 30m
                settle: 1500ms
                start: 2026-01-01T00:00:00Z
                deletes: follow
                ttl: 7d
                target:
                  partition: [day(ts), "bucket(16, `odd ``name`)", "truncate(4, s) as s4", exchange]
                  sort: [ts desc, "seq asc nulls last", "`odd ``name` desc nulls first"]
                  properties: {a: 1.5}
                columns:
                  overrides: {p: {expr: "hex(p)", type: string}, q: {type: "struct<a: int, `b c`: list<string>>"}}
                slice: {rows: 1_000_000, bytes: 100MB}
                source: {final: true, limits: {memory: 1GiB, timeout: 90s}}
                """
        },
    )
    spec = load_spec("db.t", root)
    assert spec.target.partition[1].column == "odd `name"
    assert TableSpec.model_validate_json(spec.model_dump_json()) == spec
    assert spec.slice.bytes == 100_000_000
    assert [f.name for f in spec.target.partition] == ["ts_day", "odd `name_bucket_16", "s4", "exchange"]


def test_a_thousand_specs_in_a_few_seconds(tmp_path: Path) -> None:
    body = Path("dags/tables/k2/silver_trades.yaml").read_text(encoding="utf-8")
    write(tmp_path, {f"db{n % 10}/t{n}.yaml": body for n in range(1000)})
    began = time.monotonic()
    assert len(load_specs(tmp_path).specs) == 1000
    assert time.monotonic() - began < 5

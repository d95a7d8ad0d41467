"""The ClickHouse front says what a server would say, also when a query fails, a client leaves or it is killed."""

from __future__ import annotations

import http.client
import io
import json
import threading
import time
import uuid
from base64 import b64encode
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

import clickhouse_connect
import psutil
import pyarrow as pa
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from local import ports, secrets
from local.stack import Stack

BROKEN_LATE = "SELECT number, throwIf(number = 20000000) FROM numbers(40000000)"


@pytest.fixture
def admin(stack: Stack) -> Iterator[Client]:
    """A client that may write."""
    client = clickhouse_connect.get_client(dsn=secrets.read(stack.home, "clickhouse_admin_uri"))
    yield client
    client.close()


@pytest.fixture
def reader(stack: Stack) -> Iterator[Client]:
    """A client with the pipeline's own user."""
    client = clickhouse_connect.get_client(dsn=secrets.read(stack.home, "offload_clickhouse_uri"))
    yield client
    client.close()


def eventually(check: Callable[[], bool], limit_s: float = 30.0) -> None:
    """Polls until `check` holds; fails the test after the limit."""
    end = time.monotonic() + limit_s
    while not check():
        assert time.monotonic() < end, f"not within {limit_s} s"
        time.sleep(0.1)


class Post:
    """Requests without any ClickHouse client in between; every connection is closed when the test ends."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.opened: list[http.client.HTTPConnection | http.client.HTTPResponse] = []

    def connection(self) -> http.client.HTTPConnection:
        made = http.client.HTTPConnection(ports.HOST, ports.port("CLICKHOUSE"), timeout=120)
        self.opened.append(made)
        return made

    def login(self, user: str) -> dict[str, str]:
        password = secrets.read(
            self.stack.home, "clickhouse_admin_password" if user == "k2_admin" else "clickhouse_password"
        )
        return {"Authorization": f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"}

    def __call__(
        self, body: Any, params: dict[str, str] | None = None, user: str = "k2_admin", **headers: str
    ) -> http.client.HTTPResponse:
        connection = self.connection()
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("POST", f"/?{urlencode(params or {})}", body, self.login(user) | more)
        answer = connection.getresponse()
        self.opened.append(answer)
        return answer


@pytest.fixture
def post(stack: Stack) -> Iterator[Post]:
    made = Post(stack)
    yield made
    for one in made.opened:
        one.close()


@pytest.mark.parametrize("user, password", [("offload", "wrong"), ("nobody", "x"), ("default", "")])
def test_a_wrong_login_is_refused_as_a_server_does(stack: Stack, user: str, password: str) -> None:
    with pytest.raises(DatabaseError, match="Authentication failed") as refused:
        clickhouse_connect.get_client(host=ports.HOST, port=ports.port("CLICKHOUSE"), username=user, password=password)
    assert refused.value.code == 516


def test_the_login_may_come_in_headers_or_in_the_url(post: Post, stack: Stack) -> None:
    password = secrets.read(stack.home, "clickhouse_password")
    for path, headers in (
        ("/?query=SELECT+1", {"X-ClickHouse-User": "offload", "X-ClickHouse-Key": password}),
        (f"/?query=SELECT+1&user=offload&password={password}", {}),
    ):
        connection = post.connection()
        connection.request("GET", path, headers=headers)
        assert connection.getresponse().read() == b"1\n"


def test_ping_needs_no_login(post: Post) -> None:
    connection = post.connection()
    connection.request("GET", "/ping")
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (200, b"Ok.\n")


@pytest.mark.parametrize(
    "sql, code, status",
    [
        ("SELECT FROM WHERE", 62, 400),
        ("SELECT * FROM nowhere", 60, 404),
        ("SELECT throwIf(1)", 395, 500),
        ("SELECT 1; SELECT 2", 62, 400),
        ("SELECT 1 FORMAT Nonsense", 73, 404),
        ("", 62, 400),
    ],
)
def test_an_early_error_is_an_http_error(post: Post, sql: str, code: int, status: int) -> None:
    answer = post(sql)
    assert (answer.status, answer.headers["X-ClickHouse-Exception-Code"]) == (status, str(code))
    assert f"Code: {code}." in answer.read().decode()


def test_a_late_error_breaks_the_connection(post: Post) -> None:
    answer = post(BROKEN_LATE, {"default_format": "Native"})
    assert answer.status == 200
    tag = answer.headers["X-ClickHouse-Exception-Tag"]
    with pytest.raises(http.client.IncompleteRead) as broken:
        answer.read()
    tail = broken.value.partial[-1000:]
    assert b"__exception__\r\n" + tag.encode() in tail
    assert b"FUNCTION_THROW_IF_VALUE_IS_NON_ZERO" in tail


def test_waiting_for_the_end_turns_a_late_error_into_an_early_one(post: Post) -> None:
    answer = post(BROKEN_LATE, {"default_format": "Native", "wait_end_of_query": "1"})
    assert (answer.status, answer.headers["X-ClickHouse-Exception-Code"]) == (500, "395")
    answer.read()


def test_the_reader_can_not_write(post: Post) -> None:
    for statement in (
        "CREATE DATABASE intruder",
        "SET readonly = 0",
        "DROP DATABASE IF EXISTS default",
        "SELECT 1 SETTINGS readonly = 0",
        "INSERT INTO default.t FORMAT TSV\n1\n",
    ):
        assert post(statement, user="offload").headers["X-ClickHouse-Exception-Code"] in {"164", "497", "60"}, statement
    assert post("SELECT 1", {"readonly": "0"}, user="offload").headers["X-ClickHouse-Exception-Code"] == "164"


def test_settings_parameters_and_database_reach_the_query(reader: Client, post: Post) -> None:
    settings = {"max_threads": 1, "max_memory_usage": 123_456_789, "log_comment": "k2.silver_trades"}
    sql = "SELECT getSetting('max_threads'), getSetting('max_memory_usage'), getSetting('log_comment'), {x:String}"
    said = reader.query(sql, parameters={"x": "a'b\n\tü\\"}, settings=settings).result_rows
    assert said == [(1, 123_456_789, "k2.silver_trades", "a'b\n\tü\\")]
    assert post("SELECT 1", {"max_threadz": "1"}).headers["X-ClickHouse-Exception-Code"] == "115"
    assert post("SELECT currentDatabase()", X_ClickHouse_Database="system").read() == b"system\n"
    assert post("SELECT currentDatabase()", {"database": "system"}).read() == b"system\n"
    with pytest.raises(DatabaseError, match="TIMEOUT_EXCEEDED"):
        reader.query("SELECT sum(cityHash64(number)) FROM numbers(1000000000000)", settings={"max_execution_time": 1})


@pytest.mark.parametrize(
    "sql, header, form, body",
    [
        ("SELECT 1 AS a FORMAT JSONEachRow", "TSV", "JSONEachRow", b'{"a":1}\n'),
        ("SELECT 1 AS a", "CSVWithNames", "CSVWithNames", b'"a"\n1\n'),
        ("SELECT 'FORMAT CSV' AS a", "TSV", "TSV", b"FORMAT CSV\n"),
        ("SELECT 1 AS a FORMAT TSV SETTINGS max_threads = 1 ;", "CSV", "TSV", b"1\n"),
        ("EXISTS TABLE system.one", "TSV", "TSV", b"1\n"),
        ("(SELECT 1) UNION ALL (SELECT 1)", "TSV", "TSV", b"1\n1\n"),
    ],
)
def test_the_format_of_the_answer(post: Post, sql: str, header: str, form: str, body: bytes) -> None:
    answer = post(sql, X_ClickHouse_Format=header)
    assert (answer.read(), answer.headers["X-ClickHouse-Format"]) == (body, form)


def test_values_of_every_kind_go_in_and_come_back(admin: Client, stack: Stack) -> None:
    admin.command("CREATE DATABASE IF NOT EXISTS kinds")
    admin.command(
        "CREATE OR REPLACE TABLE kinds.t (a UInt64, s LowCardinality(String), d Decimal(38, 8), n Nullable(Float64), "
        "l Array(Nullable(String)), m Map(String, String), u UUID, e Enum8('BUY' = 1, 'SELL' = 2)) "
        "ENGINE = MergeTree ORDER BY a"
    )
    row = [7, "ü東京", Decimal("-12345.67800001"), None, ["x", None, ""], {"k": "v", "": "'"}, uuid.uuid4(), "SELL"]
    names = ["a", "s", "d", "n", "l", "m", "u", "e"]
    for compression in ("lz4", "zstd", "gzip", False):
        client = clickhouse_connect.get_client(
            dsn=secrets.read(stack.home, "clickhouse_admin_uri"), compress=compression
        )
        assert client.insert("kinds.t", [row] * 5_000, column_names=names).written_rows == 5_000
        client.close()
    assert admin.query("SELECT * FROM kinds.t LIMIT 1").result_rows == [tuple(row)]
    assert admin.query("SELECT count(), uniqExact(u) FROM kinds.t").result_rows == [(20_000, 1)]
    arrow = pa.ipc.open_stream(admin.raw_stream("SELECT * FROM kinds.t", fmt="ArrowStream")).read_all()
    assert (arrow.num_rows, arrow["d"][0].as_py()) == (20_000, row[2])


def test_a_chunked_body_is_inserted_while_it_arrives(post: Post, admin: Client) -> None:
    admin.command("CREATE DATABASE IF NOT EXISTS kinds")
    admin.command("CREATE OR REPLACE TABLE kinds.chunked (a UInt64, s String) ENGINE = MergeTree ORDER BY a")
    lines = (f"{n}\tline ü {n}\n".encode() for n in range(50_000))
    answer = post(lines, {"query": "INSERT INTO kinds.chunked (a, s) FORMAT TSV"})
    assert (answer.status, json.loads(answer.headers["X-ClickHouse-Summary"])["written_rows"]) == (200, "50000")
    answer = post(b"INSERT INTO kinds.chunked FORMAT TSV\n1\tx\nbroken\n")
    assert (answer.status, answer.headers["X-ClickHouse-Exception-Code"]) == (400, "27")
    assert admin.query("SELECT count(), sum(a) FROM kinds.chunked").result_rows == [(50_000, 1_249_975_000)]


def test_queries_run_side_by_side(post: Post, reader: Client) -> None:
    streams = [post("SELECT number FROM numbers(500000000) FORMAT Native") for _ in range(4)]
    first = [stream.read(1_000_000) for stream in streams]
    assert all(len(part) == 1_000_000 for part in first)
    assert reader.query("SELECT 1").result_rows == [(1,)]
    for opened in post.opened:
        opened.close()
    eventually(lambda: reader.query("SELECT count() FROM system.processes").result_rows == [(1,)])


def test_a_client_that_leaves_ends_its_query(post: Post, reader: Client) -> None:
    connection = post.connection()
    # silent for ever: nothing is sent that could fail
    sql = "SELECT sum(cityHash64(number)) FROM numbers(100000000000000)"
    connection.request("POST", "/?query_id=leaver", sql, post.login("offload"))
    running = "SELECT count() FROM system.processes WHERE startsWith(query, '/* query_id: leaver')"
    eventually(lambda: reader.query(running).result_rows == [(1,)])
    connection.close()
    eventually(lambda: reader.query(running).result_rows == [(0,)])


def test_memory_stays_flat_while_a_slow_client_reads(post: Post, stack: Stack) -> None:
    (status,) = stack.status(["clickhouse"])
    process = psutil.Process(status.pid)
    answers = [post("SELECT number, toString(number) FROM numbers(60000000) FORMAT Native") for _ in range(2)]
    for answer in answers:
        answer.read(1 << 20)
    before = process.memory_info().rss
    peak = before
    totals = [0, 0]

    def read(index: int) -> None:
        while part := answers[index].read(4 << 20):
            totals[index] += len(part)

    readers = [threading.Thread(target=read, args=(index,)) for index in range(2)]
    for thread in readers:
        thread.start()
    while any(thread.is_alive() for thread in readers):
        peak = max(peak, process.memory_info().rss)
        readers[0].join(0.05)
        readers[1].join(0.05)
    assert min(totals) > 900_000_000
    assert peak - before < 200_000_000, (
        f"grew by {(peak - before) / 1e6:.0f} MB while {sum(totals) / 1e9:.1f} GB went by"
    )


def test_data_survives_a_killed_front(stack: Stack, admin: Client) -> None:
    admin.command("CREATE DATABASE IF NOT EXISTS kinds")
    admin.command("CREATE OR REPLACE TABLE kinds.kept (a UInt64) ENGINE = MergeTree ORDER BY a")
    admin.command("INSERT INTO kinds.kept SELECT number FROM numbers(100000)")
    (before,) = stack.status(["clickhouse"])
    psutil.Process(before.pid).kill()
    eventually(lambda: (now := stack.status(["clickhouse"])[0]).answers and now.pid != before.pid, 60)
    assert admin.query("SELECT count(), sum(a) FROM kinds.kept").result_rows == [(100_000, 4_999_950_000)]


def test_an_arrow_stream_cut_short_is_no_stream(post: Post) -> None:
    answer = post(BROKEN_LATE + " FORMAT ArrowStream")
    with pytest.raises((pa.ArrowInvalid, OSError, http.client.IncompleteRead)):
        for _ in pa.ipc.open_stream(io.BufferedReader(answer)):
            pass

"""The one door to ClickHouse: queries and streams, each with an id, a comment and bounded resources.

Built on clickhouse-connect. Failures come out as OFL-2xx, with ClickHouse's own message inside.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

import clickhouse_connect
from clickhouse_connect.driver.exceptions import ClickHouseError, OperationalError
from clickhouse_connect.driver.httputil import default_pool_manager, get_pool_manager

from include.offload.errors import (
    SETTING_MISSING,
    SOURCE_COLUMN_MISSING,
    SOURCE_QUERY_FAILED,
    SOURCE_REFUSED_LOGIN,
    SOURCE_STREAM_BROKEN,
    SOURCE_TABLE_MISSING,
    SOURCE_UNREACHABLE,
    TLS_UNTRUSTED,
    TYPE_NOT_LOSSLESS,
    ErrorKind,
    OffloadError,
)
from include.offload.settings import TLS_FILES
from include.offload.trust import is_untrusted

CONNECT_TIMEOUT_S = 5
"""How long a dead server may cost a task, in seconds: bad input fails within seconds."""
READ_TIMEOUT_S = 300
"""How long a query without a time limit of its own may be silent, in seconds: the driver's default."""

WHOLE_ANSWER: dict[str, object] = {
    **{
        f"{what}_overflow_mode{where}": "throw"
        for what, where in (
            ("timeout", ""),
            ("timeout", "_leaf"),
            ("read", ""),
            ("read", "_leaf"),
            ("group_by", ""),
            ("sort", ""),
            ("result", ""),
            ("distinct", ""),
            ("set", ""),
            ("join", ""),
            ("transfer", ""),
        )
    },
    "limit": 0,
    "offset": 0,
    "max_query_size": 16 * 2**20,
    "max_ast_elements": 1_000_000,
    "max_expanded_ast_elements": 10_000_000,
    "session_timezone": "",
}
"""Sent with every query of a table. A profile of the user may say that a query over a limit ends early and well
(`break`, `any`), or cut every answer: rows would be missing without an error. And it may take thousands of windows to
name what changed, each of them 156 bytes and a dozen elements of SQL. Merges apply a TTL in the server's time zone, so
that a session must not have another one."""

# ClickHouse's own numbers: src/Common/ErrorCodes.cpp
_KINDS: dict[int, ErrorKind] = {
    16: SOURCE_COLUMN_MISSING,  # NO_SUCH_COLUMN_IN_TABLE
    47: SOURCE_COLUMN_MISSING,  # UNKNOWN_IDENTIFIER
    60: SOURCE_TABLE_MISSING,  # UNKNOWN_TABLE
    81: SOURCE_TABLE_MISSING,  # UNKNOWN_DATABASE
    192: SOURCE_REFUSED_LOGIN,  # UNKNOWN_USER
    193: SOURCE_REFUSED_LOGIN,  # WRONG_PASSWORD
    194: SOURCE_REFUSED_LOGIN,  # REQUIRED_PASSWORD
    497: SOURCE_REFUSED_LOGIN,  # ACCESS_DENIED
    516: SOURCE_REFUSED_LOGIN,  # AUTHENTICATION_FAILED
    # a value that its conversion to the Iceberg type refuses; running the query again changes nothing
    6: TYPE_NOT_LOSSLESS,  # CANNOT_PARSE_TEXT
    41: TYPE_NOT_LOSSLESS,  # CANNOT_PARSE_DATETIME
    69: TYPE_NOT_LOSSLESS,  # ARGUMENT_OUT_OF_BOUND: too many digits
    70: TYPE_NOT_LOSSLESS,  # CANNOT_CONVERT_TYPE
    72: TYPE_NOT_LOSSLESS,  # CANNOT_PARSE_NUMBER
    131: TYPE_NOT_LOSSLESS,  # TOO_LARGE_STRING_SIZE
    349: TYPE_NOT_LOSSLESS,  # CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
    376: TYPE_NOT_LOSSLESS,  # CANNOT_PARSE_UUID
    395: TYPE_NOT_LOSSLESS,  # FUNCTION_THROW_IF_VALUE_IS_NON_ZERO: the conversions throw it, specs can't
    407: TYPE_NOT_LOSSLESS,  # DECIMAL_OVERFLOW
}
_CODE = re.compile(r"[Cc]ode:?\s*(\d+)")


@dataclass(frozen=True, slots=True)
class Tls:
    """How a server is trusted. Paths must exist on every machine that reads: Airflow's workers and Spark's executors.

    verify: whether the certificate is checked at all; ca_cert: PEM file of the CA, None: the system's, `certifi`: that
    package's; client_cert, client_cert_key: PEM files that this side shows when the server asks.
    """

    verify: bool = True
    ca_cert: str | None = None
    client_cert: str | None = None
    client_cert_key: str | None = None

    @property
    def plain(self) -> bool:
        """Nothing but the defaults."""
        return self == Tls()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One replica: where it is, and the login for it. `name` is safe to log."""

    host: str
    port: int
    secure: bool
    user: str
    password: str
    tls: Tls = field(default_factory=Tls)

    @property
    def name(self) -> str:
        return f"{self.host}:{self.port}"

    def __repr__(self) -> str:
        return f"Endpoint({self.name})"


def parse_uri(uri: str) -> Endpoint:
    """`http[s]://user:password@host:port/` (or `clickhouse[s]://`). Raises OFL-102 on anything else.

    After `?` the TLS settings of an encrypted one: `verify=false`, `ca_cert=`, `client_cert=`, `client_cert_key=`.
    """
    parts = urlsplit(uri)
    if parts.scheme not in {"http", "https", "clickhouse", "clickhouses"} or not parts.hostname:
        raise OffloadError(SETTING_MISSING, "the ClickHouse URI must read http[s]://user:password@host:port/")
    secure = parts.scheme in {"https", "clickhouses"}
    return Endpoint(
        host=parts.hostname,
        port=parts.port or (8443 if secure else 8123),
        secure=secure,
        user=unquote(parts.username or "default"),
        password=unquote(parts.password or ""),
        tls=_tls(parts.query, secure),
    )


def _tls(query: str, secure: bool) -> Tls:
    """Raises OFL-102 for what is no TLS setting: a misspelt one must not mean less safety than was asked for."""
    options = dict(parse_qsl(query, keep_blank_values=True))
    verify = options.pop("verify", "true").lower()
    names = {name: options.pop(name) or None for name in TLS_FILES if name in options}
    if options or verify not in {"true", "false"}:
        wrong = ", ".join(options) or f"verify={verify}"
        raise OffloadError(
            SETTING_MISSING, f"the ClickHouse URI holds {wrong}; there are verify=true|false, {', '.join(TLS_FILES)}"
        )
    tls = Tls(verify == "true", **names)
    if not secure and not tls.plain:
        raise OffloadError(SETTING_MISSING, "the ClickHouse URI has TLS settings but begins with http, not https")
    return tls


def translate(error: Exception, *, table: str | None, doing: str) -> OffloadError:
    """The refusal that says what a ClickHouse or network failure means for the user."""
    text = str(error).strip().replace("\n", " ")
    found = _CODE.search(text)
    if found:
        kind = _KINDS.get(int(found.group(1)), SOURCE_QUERY_FAILED)
    elif is_untrusted(error):
        kind = TLS_UNTRUSTED
    elif isinstance(error, OperationalError):
        kind = SOURCE_UNREACHABLE
    else:
        kind = SOURCE_QUERY_FAILED
    return OffloadError(kind, f"{doing}: {text[:800]}", table=table)


def _ping(endpoint: Endpoint, table: str | None) -> None:
    """Raises OFL-201 unless the server answers anything at all, soon; a query may then take its time.

    Raises OFL-103 when its certificate is not trusted.
    """
    for name in TLS_FILES:
        path = getattr(endpoint.tls, name)
        if path and path != "certifi" and not Path(path).is_file():
            raise OffloadError(TLS_UNTRUSTED, f"{name} of {endpoint.name} is {path}: no such file", table=table)
    url = f"{'https' if endpoint.secure else 'http'}://{endpoint.name}/ping"
    pool = default_pool_manager() if endpoint.tls.plain else get_pool_manager(**asdict(endpoint.tls))
    try:
        pool.request("GET", url, timeout=CONNECT_TIMEOUT_S, retries=False)
    except Exception as error:
        if not type(error).__module__.startswith("urllib3"):
            raise
        kind = TLS_UNTRUSTED if is_untrusted(error) else SOURCE_UNREACHABLE
        raise OffloadError(kind, f"connecting to {endpoint.name}: {error}", table=table) from error
    finally:
        if not endpoint.tls.plain:
            pool.clear()


class Client:
    """A connection to one replica. Not for use by two threads at once."""

    def __init__(self, endpoint: Endpoint, *, settings: Mapping[str, object], comment: str, table: str | None) -> None:
        self.endpoint = endpoint
        self._table = table
        self._settings = dict(settings)
        self._comment = comment
        _ping(endpoint, table)
        try:
            self._client = clickhouse_connect.get_client(
                host=endpoint.host,
                port=endpoint.port,
                username=endpoint.user,
                password=endpoint.password,
                interface="https" if endpoint.secure else "http",
                compress=False,
                connect_timeout=CONNECT_TIMEOUT_S,
                send_receive_timeout=int(str(settings.get("max_execution_time", READ_TIMEOUT_S))) + CONNECT_TIMEOUT_S,
                autogenerate_session_id=False,
                query_retries=1,
                **({} if endpoint.tls.plain else asdict(endpoint.tls)),
                # a client certificate beside a password, not in its place
                tls_mode="strict" if endpoint.tls.client_cert and endpoint.password else None,
            )
        except ClickHouseError as error:
            raise translate(error, table=table, doing=f"connecting to {endpoint.name}") from error

    def _per_query(self) -> dict[str, object]:
        return self._settings | {"query_id": f"offload-{uuid.uuid4()}", "log_comment": self._comment}

    def query(self, sql: str, params: Mapping[str, object] | None = None) -> list[tuple[Any, ...]]:
        """All rows of a query. Raises OFL-2xx; OFL-208 when the answer is empty and should not be.

        ClickHouse says "no rows" with no bytes, which is also what is left of an answer that was lost on its way. Only
        a count, which has a row whatever it counts, tells them apart: one more question, and cheaper than the first,
        only where there were no rows. Rows that just came are no fault, so it is asked twice.
        """
        if sql.startswith("EXPLAIN "):
            return self._explain(sql)
        for _ in range(2):
            rows = self._rows(sql, params)
            if rows or not sql.startswith(("SELECT ", "WITH ", "DESCRIBE ")):
                return rows
            if not sql.startswith("DESCRIBE ") and self._rows(f"SELECT count() FROM ({sql})", params) == [(0,)]:
                return []
        raise OffloadError(
            SOURCE_STREAM_BROKEN, f"{self.endpoint.name} gave an empty answer to {sql[:200]}", table=self._table
        )

    def _rows(self, sql: str, params: Mapping[str, object] | None) -> list[tuple[Any, ...]]:
        try:
            result = self._client.query(sql, parameters=dict(params or {}), settings=self._per_query())
        except ClickHouseError as error:
            raise translate(error, table=self._table, doing="asking ClickHouse") from error
        return [tuple(row) for row in result.result_rows]

    def _explain(self, sql: str) -> list[tuple[Any, ...]]:
        """The lines of an EXPLAIN. The driver would add a FORMAT, which the explained query takes for its own."""
        try:
            text = self._client.raw_query(sql, settings=self._per_query(), fmt=None).decode()
        except ClickHouseError as error:
            raise translate(error, table=self._table, doing="asking ClickHouse") from error
        if not text:
            raise OffloadError(SOURCE_STREAM_BROKEN, f"an empty answer to {sql[:200]}", table=self._table)
        return [(line,) for line in text.splitlines()]

    def command(self, sql: str) -> None:
        """Run a statement that returns nothing. Raises OFL-2xx."""
        try:
            self._client.command(sql, settings=self._per_query())
        except ClickHouseError as error:
            raise translate(error, table=self._table, doing="telling ClickHouse") from error

    def stream(self, sql: str, settings: Mapping[str, object]) -> Any:
        """The raw ArrowStream of a query, a file-like object. Raises OFL-2xx."""
        try:
            return self._client.raw_stream(sql, settings=self._per_query() | dict(settings), fmt="ArrowStream")
        except ClickHouseError as error:
            raise translate(error, table=self._table, doing="reading from ClickHouse") from error

    def now_us(self) -> int:
        """ClickHouse's clock: microseconds since the epoch, UTC (rule 6: no other clock counts)."""
        return int(self.query("SELECT toUnixTimestamp64Micro(now64(6, 'UTC'))")[0][0])

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

"""ClickHouse inside this process: one data directory, many connections, results through pipes.

Facts about chdb 4.4 that shape this module:
- A chdb connection serves one query at a time, and opening one costs 0.2 ms: each request gets its own, and with
  it its own settings, database and parameters.
- Its streaming interface repeats a format's header for every chunk, which corrupts binary formats. `INTO OUTFILE
  '/dev/fd/N' APPEND` writes one clean stream into a pipe, for every statement that returns rows.
- A reader that goes away does not stop the query (the failed write is swallowed): KILL QUERY does.
- A query id can not be chosen: a leading comment carries ours, and `system.processes` shows it.
- It has one user and takes none by SQL, but it reads roles, grants and profiles from a file: `SET ROLE` and
  `SET profile` before the statement give a connection the rights of one role. One statement: it can't go back.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chdb.state.sqlitelike import Connection

from local.clickhouse_sql import Statement

PIPE_BYTES = 1 << 20
"""The most that Linux gives to anyone: /proc/sys/fs/pipe-max-size, 1 MiB by default."""
CONFIG = """<clickhouse>
    <send_crash_reports><enabled>false</enabled></send_crash_reports>
    <mark_cache_size>268435456</mark_cache_size>
    <users_config>{users}</users_config>
</clickhouse>
"""
_CODE = re.compile(r"Code: (\d+)\.")
_numbers = itertools.count(1)


class EngineError(Exception):
    """An error of ClickHouse: its code and its text, as the server prints it."""

    def __init__(self, code: int, text: str) -> None:
        self.code = code
        self.text = text
        super().__init__(text)

    @classmethod
    def of(cls, error: BaseException) -> EngineError:
        """The ClickHouse error inside what chdb raised; code 1002 (UNKNOWN_EXCEPTION) when there is none."""
        text = str(error)
        found = _CODE.search(text)
        if not found:
            return cls(1002, f"Code: 1002. DB::Exception: {text} (UNKNOWN_EXCEPTION)")
        return cls(int(found[1]), text[found.start() :].strip())


@dataclass(slots=True)
class Request:
    """What a connection is set to before its statement runs."""

    settings: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    database: str | None = None
    query_id: str = ""
    role: str = ""
    profile: Mapping[str, str] | None = None
    """Values of the settings profile that has the role's name; None: no profile."""


@dataclass(slots=True)
class Running:
    """A statement that is writing into a pipe. `error` is set before the pipe's end can be seen."""

    reader: int
    marker: str
    thread: threading.Thread | None = None
    error: EngineError | None = None


class Engine:
    """The owner of a data directory. Raises EngineError for what ClickHouse refuses."""

    def __init__(self, data: Path, etc: Path, users: str) -> None:
        """etc: where the engine's configuration is written; users: roles, grants and profiles as XML."""
        for folder in (data, etc):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        config, access = etc / "clickhouse.xml", etc / "clickhouse-users.xml"
        access.write_text(users)
        config.write_text(CONFIG.format(users=access))
        self._url = f"{data}?config-file={config}"
        self._root = Connection(self._url)
        self._lock = threading.Lock()
        self._active: set[str] = set()
        version, zone = self._root.query("SELECT version(), timezone()", "TSV").bytes().decode().strip().split("\t")
        self.version: str = version
        self.timezone: str = zone

    def close(self) -> None:
        """Cancel what runs, flush and close the data directory."""
        for marker in tuple(self._active):
            self.kill(marker)
        with self._lock:
            self._root.close()

    def kill(self, marker: str) -> None:
        """Cancel the statement that `marker` names, if it still runs."""
        with self._lock:
            self._root.query(f"KILL QUERY WHERE startsWith(query, {quote(marker)}) ASYNC", "TSV")

    def run(self, sql: str, request: Request, form: str) -> tuple[bytes, int]:
        """A statement without rows to stream: its output and the rows it wrote."""
        with self._connection(request) as connection:
            result = _checked(connection, self._marked(sql, request)[0], form)
            return result.bytes() or b"", int(result.rows_read())

    def insert(self, statement: Statement, request: Request, chunks: Iterator[bytes]) -> int:
        """Insert data in `statement.format`, chunk by chunk; the rows written, materialized views included."""
        with self._connection(request) as connection:
            try:
                stream = connection.send_insert(text_of(statement.head), statement.format or "Native")
            except RuntimeError as error:
                raise EngineError.of(error) from error
            with stream:
                try:
                    for chunk in chunks:
                        if chunk:
                            stream.append(chunk)  # type: ignore[no-untyped-call]
                    return int(stream.finish().rows_written)
                except RuntimeError as error:
                    raise EngineError.of(error) from error

    def stream(self, statement: Statement, request: Request, form: str) -> Running:
        """Start a statement that returns rows. The caller reads `reader` to its end, then calls `finish`."""
        reader, writer = os.pipe()
        with contextlib.suppress(OSError):
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        head = text_of(statement.head)
        sql, marker = self._marked(
            f"{head}\nINTO OUTFILE '/dev/fd/{writer}' APPEND FORMAT {form}{text_of(statement.tail)}", request
        )
        running = Running(reader, marker)
        running.thread = threading.Thread(target=self._write, args=(sql, request, writer, running), daemon=True)
        running.thread.start()
        return running

    def finish(self, running: Running) -> EngineError | None:
        """Release the pipe; cancels the statement when it was not read to its end. The error it ended with."""
        os.close(running.reader)
        thread = running.thread
        while thread is not None and thread.is_alive():
            thread.join(0.05)
            if thread.is_alive():
                self.kill(running.marker)
        return running.error

    def _write(self, sql: str, request: Request, writer: int, running: Running) -> None:
        self._active.add(running.marker)
        try:
            with self._connection(request) as connection:
                _checked(connection, sql, "Null")
        except EngineError as error:
            running.error = error
        except Exception as error:  # noqa: BLE001 - whatever it was, the client must learn that its stream broke
            running.error = EngineError.of(error)
        finally:
            self._active.discard(running.marker)
            # last: the reader sees the end only after the error is known
            os.close(writer)

    @contextlib.contextmanager
    def _connection(self, request: Request) -> Iterator[Connection]:
        connection = Connection(self._url)
        try:
            _checked(connection, f"SET ROLE {identifier(request.role)}", "TSV")
            if request.profile is not None:
                # the engine takes only the bounds of a profile this way; its values follow, and lock what is to stay
                _checked(connection, f"SET profile = {quote(request.role)}", "TSV")
                values = ", ".join(f"{identifier(k)} = {quote(v)}" for k, v in request.profile.items())
                _checked(connection, f"SET {values}", "TSV")
            if request.database:
                _checked(connection, f"USE {identifier(request.database)}", "TSV")
            pairs = [f"{identifier(k)} = {quote(v)}" for k, v in request.settings.items()]
            pairs += [f"{identifier(f'param_{k}')} = {quote(v)}" for k, v in request.parameters.items()]
            if pairs:
                _checked(connection, f"SET {', '.join(pairs)}", "TSV")
            yield connection
        finally:
            connection.close()

    def _marked(self, sql: str, request: Request) -> tuple[str, str]:
        marker = f"/* query_id: {request.query_id.replace('*/', '')} #{next(_numbers)} */"
        return f"{marker} {sql}", marker


def text_of(latin: str) -> str:
    """The UTF-8 text of bytes that were read as Latin-1."""
    return latin.encode("latin-1").decode("utf-8", "surrogateescape")


def quote(text: str) -> str:
    """A string literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def identifier(name: str) -> str:
    """A quoted identifier."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def _checked(connection: Connection, sql: str, form: str) -> Any:
    try:
        return connection.query(sql, form)
    except Exception as error:  # chdb raises RuntimeError or its own ChdbError, both with the server's text
        raise EngineError.of(error) from error

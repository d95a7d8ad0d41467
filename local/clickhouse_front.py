"""ClickHouse's HTTP interface over chdb: `python -m local.clickhouse_front`. One process owns the data directory.

Three users, their passwords from a 0600 file, their rights from `deploy/sql/clickhouse.sql`: `offload` reads,
`offload_guard` stops and starts TTL merges, `k2_admin` may do anything. What a client sees is what a server would say:
status, `X-ClickHouse-*` headers, error text, and a connection that breaks when a query fails after its first bytes were
sent. Left out, with an error that says so: sessions (a `session_id` is ignored), external data, compressed answers
(declined), the native `compress=1` framing.
"""

from __future__ import annotations

import argparse
import hmac
import json
import logging
import os
import select
import signal
import socket
import tempfile
import threading
import uuid
from base64 import b64decode
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any
from urllib.parse import parse_qsl, urlsplit

from local import ports
from local.clickhouse_access import ADMIN_ROLE, Access, embedded_users, shipped, widened
from local.clickhouse_body import BodyError, chunks_of, form_fields
from local.clickhouse_engine import Engine, EngineError, Request, text_of
from local.clickhouse_sql import MultipleStatementsError, Statement, masked, parse

log = logging.getLogger("clickhouse")
CHUNK = 1 << 20
QUERY_BYTES = 1 << 20
"""How much of a body is looked at to find out whether data follows the query; a whole query may be longer."""
HOLD_BYTES = 1 << 20
"""An answer is held back up to this size, so that an early error still becomes an HTTP status (as `buffer_size`)."""
TAIL_BYTES = 4096
"""The last bytes wait until the query has ended well: a failed INTO OUTFILE still writes the format's proper end."""
NOT_SETTINGS = frozenset(
    {
        "database", "query", "query_id", "session_id", "session_timeout", "session_check", "quota_key", "compress",
        "decompress", "wait_end_of_query", "buffer_size", "default_format", "client_protocol_version", "role", "user",
        "password", "stacktrace", "close_session",
    }
)  # fmt: skip
STATUS: dict[int, int] = {
    **dict.fromkeys((516, 497, 164, 291, 192, 193, 194, 195), 403),
    **dict.fromkeys((60, 81, 47, 46, 50, 56, 63, 73, 115, 218), 404),
    **dict.fromkeys((62, 6, 16, 25, 26, 27, 36, 38, 41, 42, 43, 44, 53, 57, 69, 70, 72, 117, 386, 456, 457, 636), 400),
    159: 408,
    48: 501,
    202: 503,
    241: 500,
}
"""The HTTP status of a ClickHouse error code (`exceptionCodeToHTTPStatus`); all others are 500."""
TYPES = {"TabSeparated": "text/tab-separated-values; charset=UTF-8", "TSV": "text/tab-separated-values; charset=UTF-8"}
TYPES |= {"CSV": "text/csv; charset=UTF-8; header=absent", "CSVWithNames": "text/csv; charset=UTF-8; header=present"}


class ClientGoneError(ConnectionError):
    """The client closed its connection while the query ran."""


class Front(ThreadingHTTPServer):
    """The server: an engine, and the password of each user. `admins`: who may do anything; others are roles by name."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        port: int,
        engine: Engine,
        passwords: Mapping[str, str],
        admins: frozenset[str],
        access: Mapping[str, Access],
    ) -> None:
        self.engine = engine
        self.profiles = {a.name: {k: b.value for k, b in a.settings.items()} for a in access.values()}
        self.passwords = passwords
        self.admins = admins
        super().__init__((ports.HOST, port), Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.exception("request failed")


class Handler(BaseHTTPRequestHandler):
    """One connection. Every request gets its own chdb connection."""

    protocol_version = "HTTP/1.1"
    server: Front
    wbufsize = 0

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path in {"/ping", "/replicas_status"} or (url.path == "/" and not url.query):
            self._answer(200, b"Ok.\n", {"Content-Type": "text/html; charset=UTF-8"})
            return
        self.do_POST()

    def do_POST(self) -> None:
        self.started = False
        self.form = "TabSeparated"
        self.query_id = ""
        try:
            self._serve()
        except EngineError as error:
            self._refuse(error)
        except MultipleStatementsError as error:
            self._refuse(
                EngineError(62, f"Code: 62. DB::Exception: Syntax error (Multi-statements): {error} (SYNTAX_ERROR)")
            )
        except BodyError as error:
            self._refuse(EngineError(48, f"Code: 48. DB::Exception: {error} (NOT_IMPLEMENTED)"))
        except (ClientGoneError, BrokenPipeError, ConnectionResetError):
            log.info("query %s: the client went away", self.query_id)
            self.close_connection = True

    # -- one request -------------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        url = urlsplit(self.path)
        if url.path != "/":
            self._answer(404, b"There is no handle " + url.path.encode() + b"\n", {})
            return
        params = dict(parse_qsl(url.query, keep_blank_values=True))
        self.query_id = params.get("query_id") or str(uuid.uuid4())
        user = self._login(params)
        if params.get("compress") == "1" or params.get("decompress") == "1":
            raise BodyError("compress=1 and decompress=1 are not served here; use Content-Encoding")
        body = chunks_of(self.headers, self.rfile)
        if (self.headers.get("Content-Type") or "").startswith("multipart/form-data"):
            params |= form_fields(self.headers, b"".join(body))
            body = iter(())
        request = Request(
            settings={k: v for k, v in params.items() if k not in NOT_SETTINGS and not k.startswith("param_")},
            parameters={k.removeprefix("param_"): v for k, v in params.items() if k.startswith("param_")},
            database=params.get("database") or self.headers.get("X-ClickHouse-Database"),
            query_id=self.query_id,
            role=ADMIN_ROLE if user in self.server.admins else user,
            profile=None if user in self.server.admins else self.server.profiles[user],
        )
        statement, data = self._statement(params.get("query", ""), body)
        if not statement.keyword:
            raise EngineError(62, "Code: 62. DB::Exception: Syntax error: Empty query (SYNTAX_ERROR)")
        log.info("query %s %s: %s", self.query_id, user, " ".join(masked(text_of(statement.head))[:300].split()))
        if statement.data_at is not None:
            written = self.server.engine.insert(statement, request, data)
            self._answer(200, b"", self._headers({"written_rows": str(written)}))
            return
        self.form = (
            statement.format
            or self.headers.get("X-ClickHouse-Format")
            or params.get("default_format")
            or "TabSeparated"
        )
        if not self.form.isidentifier():
            raise EngineError(73, f"Code: 73. DB::Exception: Unknown format {self.form} (UNKNOWN_FORMAT)")
        if statement.streams:
            self._stream(statement, request, wait=params.get("wait_end_of_query") == "1")
            return
        sql = text_of(statement.head)
        output, written = self.server.engine.run(sql, request, self.form)
        self._answer(200, output, self._headers({"written_rows": str(written)}))

    def _login(self, params: Mapping[str, str]) -> str:
        user, password = params.get("user"), params.get("password", "")
        if self.headers.get("X-ClickHouse-User"):
            user, password = self.headers["X-ClickHouse-User"], self.headers.get("X-ClickHouse-Key", "")
        scheme, _, token = (self.headers.get("Authorization") or "").partition(" ")
        if scheme.lower() == "basic":
            try:
                user, _, password = b64decode(token, validate=True).decode().partition(":")
            except ValueError:
                user = None
        user = user or "default"
        expected = self.server.passwords.get(user)
        if expected is None or not hmac.compare_digest(expected.encode(), password.encode()):
            raise EngineError(
                516,
                f"Code: 516. DB::Exception: {user}: Authentication failed: password is incorrect, or there is no user "
                "with such name. (AUTHENTICATION_FAILED)",
            )
        return user

    @staticmethod
    def _statement(query: str, body: Iterator[bytes]) -> tuple[Statement, Iterator[bytes]]:
        """The statement, and the chunks of its inline data if it is an INSERT with FORMAT."""
        head = query.encode().decode("latin-1")
        if head:
            statement = parse(head)
            if statement.data_at is not None:
                rest = head[statement.data_at :].encode("latin-1")
                return statement, _chain(rest, body)
            head += "\n"
        text = bytearray(head.encode("latin-1"))
        for chunk in body:
            text += chunk
            if len(text) >= QUERY_BYTES:
                break
        statement = parse(text.decode("latin-1"))
        if statement.data_at is not None:
            return statement, _chain(bytes(text[statement.data_at :]), body)
        rest = b"".join(body)
        if rest:
            statement = parse((bytes(text) + rest).decode("latin-1"))
        return statement, iter(())

    # -- answers -----------------------------------------------------------------------------------------------------

    def _stream(self, statement: Statement, request: Request, *, wait: bool) -> None:
        engine = self.server.engine
        running = engine.stream(statement, request, self.form)
        finished = False
        tag = uuid.uuid4().hex[:16]
        size = 0
        tail = b""
        try:
            with tempfile.SpooledTemporaryFile(max_size=16 * HOLD_BYTES) as held:
                while chunk := self._next(running.reader):
                    size += len(chunk)
                    ready, tail = (tail, chunk) if len(chunk) >= TAIL_BYTES else _all_but_tail(tail + chunk)
                    if self.started:
                        self._send_chunk(ready)
                        continue
                    held.write(ready)
                    if not wait and size >= HOLD_BYTES:
                        self._start(tag)
                        self._replay(held, self._send_chunk)
                finished = True
                error = engine.finish(running)
                if error and self.started:
                    self._break(error, tag)
                elif error:
                    raise error
                elif self.started:
                    self._send_chunk(tail)
                    self.connection.sendall(b"0\r\n\r\n")
                else:
                    held.write(tail)
                    self._head(200, self._headers({}) | {"Content-Length": str(size)})
                    self._replay(held, self.connection.sendall)
        finally:
            if not finished:
                engine.finish(running)

    def _next(self, reader: int) -> bytes:
        """The next bytes of the answer, empty at its end. Raises ClientGoneError as soon as the client hangs up."""
        poll = select.poll()
        poll.register(reader, select.POLLIN)
        poll.register(self.connection, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if reader in ready:
                return os.read(reader, CHUNK)
            if not self.connection.recv(1, socket.MSG_PEEK):
                raise ClientGoneError
            # the next request of a pipelining client waits in the socket: no longer a sign of anything
            poll.unregister(self.connection)

    def _replay(self, held: IO[bytes], send: Any) -> None:
        held.seek(0)
        while chunk := held.read(CHUNK):
            send(chunk)
        held.seek(0)
        held.truncate()

    def _start(self, tag: str) -> None:
        self.started = True
        self._head(200, self._headers({}) | {"Transfer-Encoding": "chunked", "X-ClickHouse-Exception-Tag": tag})

    def _send_chunk(self, chunk: bytes) -> None:
        if not chunk:
            # an empty chunk is the end of the stream
            return
        parts = [f"{len(chunk):x}\r\n".encode(), chunk, b"\r\n"]
        sent = self.connection.sendmsg(parts)
        total = sum(map(len, parts))
        if sent < total:
            self.connection.sendall(memoryview(b"".join(parts))[sent:])

    def _break(self, error: EngineError, tag: str) -> None:
        """The error inside the stream as servers since 25.11 write it, then no end of stream: clients must notice."""
        message = self._message(error).encode()
        self._send_chunk(
            b"\r\n__exception__\r\n%b\r\n%b\n%d %b\r\n__exception__\r\n"
            % (tag.encode(), message, len(message) + 1, tag.encode())
        )
        log.warning("query %s broke after its first bytes: %s", self.query_id, error.text[:500])
        self.close_connection = True

    def _refuse(self, error: EngineError) -> None:
        log.warning("query %s refused: %s", self.query_id, error.text[:500])
        # what the client still sends of its body is not read: the connection can not be used again
        self.close_connection = True
        headers = self._headers({}) | {"X-ClickHouse-Exception-Code": str(error.code), "Connection": "close"}
        self._answer(STATUS.get(error.code, 500), self._message(error).encode() + b"\n", headers)

    def _message(self, error: EngineError) -> str:
        suffix = f" (version {self.server.engine.version})"
        return error.text if error.text.endswith(suffix) else error.text + suffix

    def _headers(self, summary: Mapping[str, str]) -> dict[str, str]:
        zeros = dict.fromkeys(("read_rows", "read_bytes", "written_rows", "written_bytes", "result_rows"), "0")
        return {
            "Content-Type": TYPES.get(self.form, "application/octet-stream"),
            "X-ClickHouse-Server-Display-Name": "chdb",
            "X-ClickHouse-Query-Id": self.query_id,
            "X-ClickHouse-Format": self.form,
            "X-ClickHouse-Timezone": self.server.engine.timezone,
            "X-ClickHouse-Summary": json.dumps(zeros | dict(summary)),
        }

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self._head(status, {**headers, "Content-Length": str(len(body))})
        self.connection.sendall(body)

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Queries are logged where they begin and end; a line a request adds nothing."""


def _all_but_tail(data: bytes) -> tuple[bytes, bytes]:
    """What may go, and what waits; small pieces gather first, so that not every one is copied."""
    return (data[:-TAIL_BYTES], data[-TAIL_BYTES:]) if len(data) >= 16 * TAIL_BYTES else (b"", data)


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from rest


def main() -> None:
    """Serve until SIGTERM or SIGINT, then close the data directory cleanly."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--port", type=int, default=ports.port("CLICKHOUSE"))
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--passwords", type=Path, required=True, help="JSON: user to password; mode 0600")
    arguments.add_argument("--admins", default="k2_admin", help="users that may do anything, comma-separated")
    arguments.add_argument("--listed", action="store_true", help="grant the tables that the SQL file lists, no others")
    options = arguments.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    access = shipped() if options.listed else widened(shipped())
    engine = Engine(options.data, options.data.parent / "etc", embedded_users(access))
    passwords, admins = json.loads(options.passwords.read_text()), frozenset(options.admins.split(","))
    front = Front(options.port, engine, passwords, admins, access)

    def stop(*_: object) -> None:
        threading.Thread(target=front.shutdown, daemon=True).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    log.info("ClickHouse %s at http://%s:%d, data in %s", engine.version, ports.HOST, options.port, options.data)
    front.serve_forever(poll_interval=0.2)
    engine.close()
    log.info("closed")
    # threads of requests that are still being cancelled must not hold the process up
    os._exit(0)


if __name__ == "__main__":
    main()

"""One query over hot and cold: no row twice, none missing, at any moment of an offload; every type comes back."""

from __future__ import annotations

import subprocess
import threading
import uuid
from collections import Counter
from collections.abc import Iterator

import pytest

from docs.type_cases import LOSSLESS, REFUSED, STOPPED
from include.offload.context import open_context
from include.offload.errors import OffloadError
from include.offload.hotcold import apply, hot_cold_view
from include.offload.settings import ROOT, load
from include.offload.source.client import Client, parse_uri
from include.offload.source.sql import quote
from tests.integration.test_types_lossless import SPEC as TYPES_SPEC
from tests.integration.test_types_lossless import make as make_types
from tests.integration.test_types_lossless import overrides
from tests.support.domain import Domain, DomainTable, MakeDomainTable
from tests.support.lake_database import make_lake_database

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def lake(domain: Domain) -> Iterator[str]:
    """The database through which ClickHouse asks the catalog; the login that may create views is the administrator."""
    with pytest.MonkeyPatch.context() as env:
        env.setenv("OFFLOAD_CLICKHOUSE_VIEW_URI", domain.servers.secret("clickhouse_admin_uri"))
        yield make_lake_database(domain)


def applied(t: DomainTable, lake: str) -> str:
    """Create the view as the command does; its name."""
    ctx = open_context(load())
    try:
        view = hot_cold_view(ctx, t.spec, lake)
        apply(ctx, view)
    finally:
        ctx.close()
    return view.name


def ids(t: DomainTable, view: str) -> list[int]:
    return sorted(int(i) for (i,) in t.ask(f"SELECT id FROM {view}"))


class Reader(threading.Thread):
    """Reads the view over and over, with a connection of its own, and keeps every gap and double it sees."""

    def __init__(self, domain: Domain, view: str, last: int) -> None:
        super().__init__()
        self.client = Client(
            parse_uri(domain.servers.secret("clickhouse_admin_uri")), settings={}, comment="reader", table=None
        )
        self.view, self.wanted, self.stop = view, set(range(1, last + 1)), threading.Event()
        self.reads, self.faults = 0, list[str]()

    def run(self) -> None:
        try:
            while not self.stop.is_set():
                seen = Counter(int(i) for (i,) in self.client.query(f"SELECT id FROM {self.view}"))
                missing, doubles = self.wanted - seen.keys(), [i for i, n in seen.items() if n > 1]
                self.reads += 1
                if missing or doubles:
                    self.faults.append(f"read {self.reads}: {len(missing)} missing, {len(doubles)} twice")
        except Exception as error:  # a thread's exception would be lost: the test fails on it
            self.faults.append(str(error))
        finally:
            self.client.close()


def test_a_reader_sees_every_row_once_while_offloads_run_and_the_border_moves(
    domain: Domain, table: MakeDomainTable, lake: str
) -> None:
    last = 10 * 9
    t = table().fill(*range(9))
    t.run(to_us=t.at(1))
    view = applied(t, lake)
    reader = Reader(domain, view, last)
    reader.start()
    try:
        for window in (4, 7):
            t.run(to_us=t.at(window))
            before = reader.reads
            while reader.reads < before + 2 and reader.is_alive():
                reader.join(0.05)
            applied(t, lake)
        t.run()
        applied(t, lake)
        t.unverifiable = "the source was emptied on purpose; the view was read instead"
        # what was shipped is no longer needed in ClickHouse: what the view shows of it comes from the lake
        t.sql(
            f"ALTER TABLE {{table}} DELETE WHERE ts < fromUnixTimestamp64Micro({t.at(5)}) SETTINGS mutations_sync = 2"
        )
        assert ids(t, view) == list(range(1, last + 1))
    finally:
        reader.stop.set()
        reader.join(60)
    assert reader.reads >= 8
    assert reader.faults == []
    assert len(t.lake_ids()) == last


def test_an_old_border_stays_exact_and_late_rows_wait_for_their_run(table: MakeDomainTable, lake: str) -> None:
    t = table().fill(0, 1, 2, 3)
    t.run(to_us=t.at(2))
    view = applied(t, lake)
    t.run()
    assert ids(t, view) == t.source_ids() == list(range(1, 41)), "the border is stale, both sides hold what it asks for"
    t.insert(0.5, rows=2)
    assert ids(t, view) == list(range(1, 41)), "a late row is in the lake only after the next run"
    t.run()
    assert ids(t, view) == list(range(1, 43))
    t.mutate("DELETE WHERE id = 1")
    t.run()
    assert 1 in ids(t, view), "deletes: keep"
    t.unverifiable = "a deleted row is kept"


def test_a_column_that_came_later_is_null_in_older_rows(table: MakeDomainTable, lake: str) -> None:
    t = table().fill(0)
    t.run()
    t.sql("ALTER TABLE {table} ADD COLUMN extra UInt8 DEFAULT 7")
    assert "extra" in hot_cold_view(t.ctx, t.spec, lake).left_out
    t.fill(1)
    t.run()
    view = applied(t, lake)
    assert t.ask(f"SELECT count(), toTypeName(any(extra)) FROM {view}") == [(20, "Nullable(UInt8)")]


def test_every_type_comes_back_as_it_was(domain: Domain, lake: str) -> None:
    """The same rows by the view's hot half, by its cold half, and from the table: value by value, type by type."""
    for cases, more in ((LOSSLESS, ""), ((*REFUSED, *STOPPED), overrides((*REFUSED, *STOPPED)))):
        t = make_types(domain, cases)
        t.write_spec(TYPES_SPEC, more)
        try:
            t.sql("ALTER TABLE {table} MODIFY SETTING min_bytes_for_wide_part = 0")
            t.run()
            made = hot_cold_view(t.ctx, t.spec, lake)
            halves = made.statement.split("\nUNION ALL\n")
            hot = halves[0].split(" AS\n", 1)[1].replace(">=", "<")
            names = [quote(c.name) for c in cases]
            view = applied(t, lake)
            assert t.ask(f"SELECT count() FROM (SELECT * FROM {view})") == t.ask("SELECT count() FROM {table}")
            # what is shown in the form of the lake may be Nullable in one half only; the view makes it so in both
            for what in ("cityHash64",) if more else ("toTypeName", "cityHash64"):
                values = f"[{', '.join(f'toString({what}({n}))' for n in names)}]"
                by_hot = t.ask(f"SELECT {values} FROM ({hot}) ORDER BY ts")
                by_cold = t.ask(f"SELECT {values} FROM ({halves[1]}) ORDER BY ts")
                assert by_hot == by_cold, f"{what}: the halves differ"
                if not more:
                    by_table = t.ask(f"SELECT {values} FROM {{table}} ORDER BY ts")
                    found = {
                        n: (x, y)
                        for row, other in zip(by_cold, by_table, strict=True)
                        for n, x, y in zip(names, row[0], other[0], strict=True)
                        if x != y and "SimpleAggregateFunction" not in y
                    }
                    assert found == {}, f"{what}: the view and the table differ"
        finally:
            t.spec_file.unlink(missing_ok=True)
            t.ctx.close()
            t.sql(f"DROP TABLE IF EXISTS {t.source} SYNC")


def test_a_login_that_may_only_read_is_told_what_it_needs(
    domain: Domain, table: MakeDomainTable, lake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    t = table().fill(0)
    t.run()
    monkeypatch.setenv("OFFLOAD_CLICKHOUSE_VIEW_URI", domain.servers.secret("offload_clickhouse_uri"))
    with pytest.raises(OffloadError) as caught:
        applied(t, lake)
    assert caught.value.id == "OFL-213"
    assert "user offload" in caught.value.cause
    assert "GRANT CREATE VIEW" in caught.value.cause
    assert caught.value.command == f"bin/offload view {t.identity}"
    monkeypatch.delenv("OFFLOAD_CLICKHOUSE_VIEW_URI")
    with pytest.raises(OffloadError, match="OFFLOAD_CLICKHOUSE_VIEW_URI"):
        applied(t, lake)


def test_the_command_prints_and_applies(table: MakeDomainTable, lake: str) -> None:
    t = table().fill(0)
    t.run()
    name = f"v_{uuid.uuid4().hex[:8]}"
    call = [str(ROOT / "bin" / "offload"), "view", t.identity, "--lake-database", lake, "--name", name]
    done = subprocess.run([*call, "--apply"], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith(f"CREATE OR REPLACE VIEW `dom`.`{name}` AS")
    assert "applied" in done.stderr
    assert t.domain.servers.secret("s3_secret_key") not in done.stdout
    assert t.ask(f"SELECT count() FROM `dom`.{name}") == [(10,)]
    ((shown,),) = t.ask(f"SHOW CREATE TABLE `dom`.{name}")
    assert t.domain.servers.secret("s3_secret_key") not in shown

"""`ledger backup`, `restore`, `recreate` on the real PostgreSQL: the same ledger comes back, or nothing changes."""

from __future__ import annotations

import json
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from typer.testing import CliRunner

from include.offload.cli import app
from include.offload.errors import LEDGER_DAMAGED, LEDGER_OUTDATED, LEDGER_UNREACHABLE, OffloadError
from include.offload.ledger import Ledger, backup
from include.offload.ledger.history import past_plans
from include.offload.ledger.migrate import TABLES, check_whole, upgrade
from tests.support.ledger_rows import FILL
from tests.support.stack import Servers

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def uri(data_stack: Servers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A ledger of its own with a bit of everything; its database belongs to somebody else, as documented."""
    name, admin = f"backup_{uuid.uuid4().hex}", data_stack.secret("postgres_uri")
    with psycopg.connect(admin, autocommit=True) as c:
        c.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    with psycopg.connect(f"{admin.rpartition('/')[0]}/{name}", autocommit=True) as c:
        c.execute("CREATE SCHEMA offload AUTHORIZATION offload_ledger")
    found = data_stack.secret("offload_ledger_uri").rpartition("/")[0] + f"/{name}"
    upgrade(found)
    with psycopg.connect(found) as c:
        c.execute(FILL.encode())
    monkeypatch.setenv("OFFLOAD_LEDGER_URI", found)
    monkeypatch.setenv("OFFLOAD_HOME", str(tmp_path / "home"))
    yield found
    with psycopg.connect(admin, autocommit=True) as c:
        c.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def content(uri: str) -> dict[str, list[Any]]:
    with psycopg.connect(uri) as c:
        return {t: sorted(map(str, c.execute(f"SELECT * FROM offload.{t}").fetchall())) for t in TABLES}  # type: ignore[arg-type]  # noqa: S608


def offload(*args: str, code: int = 0, answer: str | None = None) -> str:
    done = CliRunner().invoke(app, ["ledger", *args], input=answer)
    assert done.exit_code == code, done.output
    return done.output


def test_what_was_backed_up_comes_back_whole(uri: str, tmp_path: Path) -> None:
    before = content(uri)
    file = tmp_path / "one.zip"
    offload("backup", str(file))
    assert file.stat().st_mode & 0o777 == 0o600
    with psycopg.connect(uri) as c:
        c.execute(
            "UPDATE offload.watermarks SET watermark = NULL; DELETE FROM offload.windows; DROP TABLE offload.looks"
        )
    offload("restore", str(file), "--yes")
    assert content(uri) == before
    with psycopg.connect(uri) as c:
        # the sequence goes on after what came back, and the constraints are there
        c.execute(
            "INSERT INTO offload.tables (identity, cursor_column, width_us, source_identity, target)"
            " VALUES ('c', 'ts', 1, '', 'c')"
        )
    with psycopg.connect(uri) as c, pytest.raises(psycopg.errors.ExclusionViolation):
        c.execute("INSERT INTO offload.windows (table_id, span, rows, hash) VALUES (1, '[1,2)', 0, 0)")
    ledger = Ledger(uri)
    ledger.check_schema()
    ledger.close()


def test_a_restore_keeps_what_it_replaces(uri: str, tmp_path: Path) -> None:
    good = content(uri)
    file = tmp_path / "good.zip"
    offload("backup", str(file))
    with psycopg.connect(uri) as c:
        c.execute("DELETE FROM offload.windows")
    bad = content(uri)
    offload("restore", str(file), "--yes")
    assert content(uri) == good
    (kept,) = (tmp_path / "home" / "backups").iterdir()
    offload("restore", str(kept), "--yes")
    assert content(uri) == bad


def test_nothing_happens_without_a_yes(uri: str, tmp_path: Path) -> None:
    before = content(uri)
    file = tmp_path / "one.zip"
    offload("backup", str(file))
    for command in (["restore", str(file)], ["recreate"]):
        offload(*command, code=1, answer="n\n")
        assert content(uri) == before


def test_recreate_keeps_what_was_left_of_a_damaged_ledger(uri: str, tmp_path: Path) -> None:
    pipeline = content(uri)["pipeline"]
    with psycopg.connect(uri) as c:
        c.execute("DROP TABLE offload.watermarks")
    with pytest.raises(OffloadError) as damaged:
        ledger = Ledger(uri)
        try:
            ledger.watermark_rows()
        finally:
            ledger.close()
    assert damaged.value.kind is LEDGER_OUTDATED
    # a ledger whose revision is right: what is missing is said, and not taken for upgraded
    with pytest.raises(OffloadError) as named:
        check_whole(uri)
    assert (named.value.kind, named.value.cause) == (LEDGER_DAMAGED, "offload.watermarks")
    said = CliRunner().invoke(app, ["ledger", "upgrade"])
    assert (said.exit_code, type(said.exception)) == (1, OffloadError)
    said = offload("recreate", "--yes")
    assert "SYSTEM START TTL MERGES a.b" in " ".join(said.split())
    offload("upgrade")
    with psycopg.connect(uri) as c:
        made = {name for (name,) in c.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'offload'")}
    assert made == {*TABLES, "alembic_version"}
    found = content(uri)
    assert {name: rows for name, rows in found.items() if rows} == {"pipeline": pipeline}
    (file,) = (tmp_path / "home" / "backups").iterdir()
    assert set(backup.look(file).rows) == set(TABLES) - {"watermarks"}


@pytest.mark.parametrize("lost", ["windows", "pipeline", "watermarks", "looks"])
def test_what_was_left_of_a_damaged_ledger_is_not_restored(uri: str, tmp_path: Path, lost: str) -> None:
    """A head without its windows agrees with Iceberg's marker: the next plan would ship the horizon a second time."""
    whole, file = tmp_path / "whole.zip", tmp_path / "left.zip"
    offload("backup", str(whole))
    with psycopg.connect(uri) as c:
        c.execute(f"DROP TABLE offload.{lost} CASCADE")  # type: ignore[arg-type]
    offload("backup", str(file))
    offload("restore", str(whole), "--yes")
    before = content(uri)
    said = offload("restore", str(file), "--yes", code=2)
    assert lost in said
    assert "recreate" in said
    assert content(uri) == before


@pytest.mark.parametrize("command", ["restore", "recreate"])
def test_a_table_in_use_is_not_waited_for_without_end(uri: str, tmp_path: Path, command: str) -> None:
    file = tmp_path / "one.zip"
    offload("backup", str(file))
    before = content(uri)
    with psycopg.connect(uri) as other:
        other.execute("SELECT * FROM offload.windows LIMIT 1")
        with pytest.raises(OffloadError) as refused:
            backup.restore(uri, file) if command == "restore" else backup.recreate(uri)
    assert refused.value.kind is LEDGER_OUTDATED
    assert "ledger sessions" in refused.value.cause
    assert content(uri) == before


@pytest.mark.parametrize("damage", ["no zip", "cut", "row lost", "row mangled", "no manifest", "not there"])
def test_a_restore_that_can_not_be_done_leaves_the_ledger_as_it_is(uri: str, tmp_path: Path, damage: str) -> None:
    file, worse = tmp_path / "good.zip", tmp_path / "worse.zip"
    offload("backup", str(file))
    with psycopg.connect(uri) as c:
        c.execute("UPDATE offload.watermarks SET generation = 8")
    before = content(uri)
    _damage(file, worse, damage)
    said = offload("restore", str(worse), "--yes", code=2)
    assert "Traceback" not in said
    assert content(uri) == before


def _damage(file: Path, worse: Path, damage: str) -> None:
    if damage == "not there":
        return
    if damage in {"no zip", "cut"}:
        worse.write_bytes(b"nothing" if damage == "no zip" else file.read_bytes()[:-40])
        return
    with zipfile.ZipFile(file) as good, zipfile.ZipFile(worse, "w") as bad:
        for name in good.namelist():
            data = good.read(name)
            if name == backup.MANIFEST and damage == "no manifest":
                continue
            if name == "windows" and damage == "row lost":
                data = data.split(b"\n", 1)[1]
            if name == "windows" and damage == "row mangled":
                data = data.replace(b"18446744073709551615", b"many", 1)
            bad.writestr(name, data)


def test_a_backup_of_newer_code_is_refused(uri: str, tmp_path: Path) -> None:
    file, newer = tmp_path / "good.zip", tmp_path / "newer.zip"
    offload("backup", str(file))
    with zipfile.ZipFile(file) as good, zipfile.ZipFile(newer, "w") as changed:
        for name in good.namelist():
            data = good.read(name)
            if name == backup.MANIFEST:
                data = json.dumps(json.loads(data) | {"revision": "9999"}).encode()
            changed.writestr(name, data)
    with pytest.raises(OffloadError) as refused:
        backup.look(newer)
    assert refused.value.kind is LEDGER_OUTDATED


def test_a_backup_of_an_older_revision_is_upgraded(uri: str, tmp_path: Path) -> None:
    from include.offload.ledger.migrate import downgrade

    downgrade(uri, "0001")
    file = tmp_path / "old.zip"
    backup.save(uri, file)
    upgrade(uri)
    assert backup.restore(uri, file).revision == "0001"
    ledger = Ledger(uri)
    ledger.check_schema()
    ledger.close()


def test_no_file_is_left_when_postgresql_is_away(uri: str, tmp_path: Path) -> None:
    away = uri.replace(uri.rpartition(":")[2].partition("/")[0], "1")
    with pytest.raises(OffloadError) as refused:
        backup.save(away, tmp_path / "none.zip")
    assert refused.value.kind is LEDGER_UNREACHABLE
    assert not (tmp_path / "none.zip").exists()


def test_a_file_is_never_written_over(uri: str, tmp_path: Path) -> None:
    file = tmp_path / "one.zip"
    file.write_text("mine")
    offload("backup", str(file), code=2)
    assert file.read_text() == "mine"


def test_the_history_of_a_table_comes_back_too(uri: str, tmp_path: Path) -> None:
    ledger = Ledger(uri)
    try:
        (before,) = past_plans(ledger, "a.b", 10)
        assert (before.generation, before.status, before.rows, before.watermark_us) == (
            7,
            "committed",
            30,
            1_795_341_600_000_000,
        )
        assert past_plans(ledger, "never.seen", 10) == []
        offload("backup", str(tmp_path / "one.zip"))
        offload("recreate", "--yes")
        assert past_plans(ledger, "a.b", 10) == []
        offload("restore", str(tmp_path / "one.zip"), "--yes")
        assert past_plans(ledger, "a.b", 10) == [before]
    finally:
        ledger.close()

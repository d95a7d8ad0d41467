"""Plays rounds, judges each one, and remembers them in a file of JSON lines, so that a long record is made in parts."""

from __future__ import annotations

import json
import subprocess
import time
import traceback
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

from include.offload.source.client import Client, parse_uri
from include.offload.verify import verify
from tests.support.airflow_bag import ROOT
from tests.support.domain import DATABASE, HOUR_US, Domain
from tests.support.stack import Servers
from tests.torture.acts import NothingToShipError
from tests.torture.faults import BREAKS
from tests.torture.story import Change, Fault, Rows, Run, Story, arrived, expected, tell
from tests.torture.world import World, world


@dataclass
class Result:
    """What a round came to. `lost`, `doubled`, `stale`: rows missing, rows too many, rows with an older content."""

    seed: int
    round: int
    story: str
    ok: bool = False
    faults: dict[str, int] = field(default_factory=dict)
    followed: dict[str, int] = field(default_factory=dict)
    """Next steps of refusals that were taken, by error id."""
    rows: int = 0
    """Rows that arrived in ClickHouse."""
    lake_rows: int = 0
    kept: int = 0
    """Rows of windows that were left as they are, and said: they are compared by nobody."""
    lost: int = 0
    doubled: int = 0
    stale: int = 0
    snapshots: int = 0
    seconds: float = 0.0
    code: str = ""
    error: str = ""


def play(domain: Domain, story: Story, crashes: Path) -> Result:
    """One round from an empty table to the verdict."""
    result = Result(story.seed, story.round, story.digest, rows=arrived(story), code=revision())
    started = time.monotonic()
    try:
        with world(domain, story, crashes) as w:
            try:
                for act in story.acts:
                    perform(w, act)
                w.quiet()
                judge(w, story, result)
                result.ok = not (result.lost or result.doubled or result.stale)
            finally:
                result.faults, result.followed = dict(w.faults), dict(w.followed)
    except Exception:
        # the round has failed, and the next ones shall still be played: the report says so, and so does the exit code
        result.error, result.ok = traceback.format_exc(), False
    result.seconds = round(time.monotonic() - started, 2)
    return result


def perform(w: World, act: Rows | Change | Run | Fault) -> None:
    """One act of a story."""
    match act:
        case Rows():
            w.arrive(act)
        case Change():
            w.change(act)
        case Run():
            if act.merge:
                w.merge()
            w.run()
        case Fault():
            # what every fault needs, rows to ship, may all have come into windows that stay as they are
            with suppress(NothingToShipError):
                if BREAKS[act.kind](w, act):
                    w.faults[act.kind] += 1
            if act.during.first not in w.arrived:
                w.arrive(act.during)


def judge(w: World, story: Story, result: Result) -> None:
    """The model in Python, then both verifiers, then the ledger against the lake. Raises AssertionError."""
    should = expected(story)
    if not w.table.exists():
        assert not should, f"{len(should)} rows, and no table"
        return
    held = w.table.lake().scan(selected_fields=("id", "note")).to_arrow()
    rows = Counter(zip(held.column("id").to_pylist(), held.column("note").to_pylist(), strict=True))
    copies: Counter[int] = Counter()
    for (number, _), n in rows.items():
        copies[number] += n
    result.lake_rows = copies.total()
    result.lost = sum(n not in copies for n in should)
    # a second copy, or a row that should not be there at all
    result.doubled = sum(n - (1 if number in should else 0) for number, n in copies.items())
    result.stale = sum(number in should and should[number] != note for number, note in rows)
    result.snapshots = len(w.table.snapshots())
    # whatever a rebuild may keep, no row is ever there twice
    twice = [number for number, n in copies.items() if n > 1]
    assert not twice, f"{len(twice)} rows are in the lake twice, as {twice[0]}"
    if w.kept:
        excuse(w, result)
        return
    assert not (result.lost or result.doubled or result.stale), (
        f"{result.lost} rows lost, {result.doubled} doubled, {result.stale} stale"
    )
    w.fresh()
    if w.table.ctx.ledger.head(w.table.identity) is not None and should:
        report = verify(w.table.ctx, w.table.spec)
        assert report.ok, f"the verifiers differ: {report}"
        assert report.lake_rows == len(should), f"verified {report.lake_rows} of {len(should)} rows"
    w.table.consistent()
    ((overlaps,),) = w.domain.ledger(
        "SELECT count(*) FROM offload.windows a JOIN offload.windows b"
        " ON a.table_id = b.table_id AND a.ctid < b.ctid AND a.span && b.span"
    )
    assert overlaps == 0, "windows of the ledger overlap"


def excuse(w: World, result: Result) -> None:
    """Only windows that were said to be kept may differ, and no row outside of them."""
    # of such a window the lake may hold rows that were deleted, and lack rows that came late
    result.kept = sum(max(x.rows, x.ledger_rows) for x in w.kept)
    wrong = max(result.lost, result.doubled, result.stale)
    assert wrong <= result.kept, f"{wrong} rows differ, only {result.kept} were said to"
    w.fresh()
    report = verify(w.table.ctx, w.table.spec)
    windows = {d.source.window for d in report.differences}
    assert windows <= {x.window for x in w.kept}, f"these windows differ and were not said: {windows}"
    result.lost = result.doubled = result.stale = 0


@contextmanager
def stage(servers: Servers) -> Iterator[tuple[Domain, Path]]:
    """The servers for one round, and an empty directory for its crash points.

    The zero of a story is six hours ago: it is taken anew, so that a long record never drifts away from it.
    """
    crashes = servers.home / "torture" / uuid.uuid4().hex[:8]
    crashes.mkdir(parents=True)
    endpoint = parse_uri(servers.secret("clickhouse_admin_uri"))
    try:
        with Client(endpoint, settings={}, comment="torture", table=None) as admin:
            admin.command(f"CREATE DATABASE IF NOT EXISTS {DATABASE}")
            zero = admin.now_us() // HOUR_US * HOUR_US - 6 * HOUR_US
            yield Domain(servers, admin, zero, "torture"), crashes
    finally:
        for left in crashes.iterdir():
            left.unlink()
        crashes.rmdir()


def one_round(servers: Servers, seed: int, number: int) -> Result:
    """Tell and play a round."""
    with stage(servers) as (domain, crashes):
        return play(domain, tell(seed, number), crashes)


@cache
def revision() -> str:
    """The commit that is tested, with a `+` when files were changed."""
    asked = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def remember(log: Path, result: Result) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(result), ensure_ascii=False) + "\n")


def recall(log: Path) -> list[Result]:
    """Every round of a log; of one that was played again the last time counts."""
    if not log.exists():
        return []
    found: dict[tuple[int, int], Result] = {}
    for line in log.read_text(encoding="utf-8").splitlines():
        result = Result(**json.loads(line))
        found[result.seed, result.round] = result
    return list(found.values())

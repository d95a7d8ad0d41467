"""What the exercises showed, one entry a scenario, in tests/runbooks/record.json; `docs/runbooks_page.py` shows it."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from local.paths import ROOT
from local.runbooks.exercise import Result

RECORD = ROOT / "tests" / "runbooks" / "record.json"
CODE = ("include", "dags", "plugins", "spark_jobs", "local", "monitoring", "bin", "requirements.txt")
"""What an exercise depends on, beside its page."""
GREEN, RED = "green", "red"


@dataclass(frozen=True, slots=True)
class Entry:
    """The last exercise of a scenario, or the last look at a page's other commands. Times in seconds.

    outcome: `green`, or `red` with its reason in `why`. at: ISO 8601, UTC, the end. code: `fingerprint` of what was
    tried. commands: how many ran; steps: how many different ones of the page printed what it says.
    """

    name: str
    page: str
    outcome: str
    at: str
    code: str
    cores: int
    why: str = ""
    to_alert_s: float = 0.0
    to_diagnose_s: float = 0.0
    to_recover_s: float = 0.0
    seconds: float = 0.0
    commands: int = 0
    steps: int = 0

    @property
    def mttr_s(self) -> float:
        """From the alert to its clearing."""
        return self.to_diagnose_s + self.to_recover_s


def green(result: Result, seconds: float) -> Entry:
    """The entry of an exercise that went as its page says."""
    return Entry(
        result.scenario,
        result.page,
        GREEN,
        _now(),
        fingerprint(result.page),
        os.cpu_count() or 1,
        to_alert_s=round(result.to_alert_s, 1),
        to_diagnose_s=round(result.to_diagnose_s, 1),
        to_recover_s=round(result.to_recover_s, 1),
        seconds=round(seconds, 1),
        commands=result.commands,
        steps=result.steps,
    )


def red(name: str, page: str, error: BaseException, seconds: float) -> Entry:
    """The entry of one that did not."""
    why = (str(error).strip() or type(error).__name__).splitlines()[0]
    return Entry(name, page, RED, _now(), fingerprint(page), os.cpu_count() or 1, why, seconds=round(seconds, 1))


def read(path: Path = RECORD) -> dict[str, Entry]:
    """All entries by name; none without the file."""
    if not path.exists():
        return {}
    known = {field.name for field in fields(Entry)}
    found = json.loads(path.read_text(encoding="utf-8"))
    return {one["name"]: Entry(**{k: v for k, v in one.items() if k in known}) for one in found}


def write(entry: Entry, path: Path = RECORD) -> None:
    """Put an entry in place of the one of the same name; the file is whole at every moment."""
    found = read(path) | {entry.name: entry}
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps([asdict(found[name]) for name in sorted(found)], indent=1) + "\n", encoding="utf-8")
    fresh.replace(path)


def done(name: str, page: str, path: Path = RECORD) -> bool:
    """Whether it was green on exactly this code and this page."""
    entry = read(path).get(name)
    return entry is not None and entry.outcome == GREEN and entry.code == fingerprint(page)


@cache
def fingerprint(page: str) -> str:
    """Twelve digits that change with the code or with this page; what else is written does not count."""
    files = [ROOT / "docs" / "operations" / "runbooks" / page]
    for name in CODE:
        path = ROOT / name
        files += sorted(path.rglob("*")) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        if file.is_file() and "__pycache__" not in file.parts:
            digest.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")

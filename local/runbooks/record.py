"""What the exercises showed, one entry a scenario, in tests/runbooks/record.json; `docs/runbooks_page.py` shows it."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path

from local.paths import ROOT
from local.runbooks.exercise import Result

RECORD = ROOT / "tests" / "runbooks" / "record.json"
PAGES = ROOT / "docs" / "operations" / "runbooks"
CODE = (
    "include",
    "dags",
    "plugins",
    "spark_jobs",
    "local",
    "monitoring",
    "bin",
    "requirements.txt",
    "requirements-spark.txt",
    "tests/runbooks",
)
"""What an exercise depends on, beside its page; of the last one, the programs."""
KEPT = 4_000
"""Characters that are kept of what a command printed."""
GREEN, RED = "green", "red"


@dataclass(frozen=True, slots=True)
class Entry:
    """The last exercise of a scenario, or the last look at a page's other commands. Times in seconds.

    outcome: `green`, or `red` with its reason in `why`. at: ISO 8601, UTC, the end. code, digest: `fingerprint` and
    `page_digest` of what was tried. commands: how many ran; steps: how many different ones of the page printed what it
    says. diagnosed: what each command of the diagnosis printed while the fault was there.
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
    digest: str = ""
    diagnosed: dict[str, str] = field(default_factory=dict)

    @property
    def mttr_s(self) -> float:
        """From the alert to its clearing."""
        return self.to_diagnose_s + self.to_recover_s


def recorded(name: str, page: str, act: Callable[[], Result]) -> tuple[Entry, Exception | None]:
    """The entry of an exercise, and the error of one that was red. Red too: its code or page changed meanwhile."""
    began, before = time.monotonic(), (fingerprint(), page_digest(page))
    entry = Entry(name, page, RED, "", before[0], os.cpu_count() or 1, digest=before[1])
    failure: Exception | None = None
    try:
        entry = _shown(entry, act())
    except Exception as error:  # noqa: BLE001 - every way to fail is red, and is raised again by who asked
        failure = error
        entry = replace(entry, why=(str(error).strip() or type(error).__name__).splitlines()[0])
    if failure is None and (fingerprint(), page_digest(page)) != before:
        failure = ChangedError(f"{name}: code or page were changed while it ran")
        entry = replace(entry, outcome=RED, why=str(failure))
    at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return replace(entry, at=at, seconds=round(time.monotonic() - began, 1)), failure


class ChangedError(AssertionError):
    """What was tried is not what is there now."""


def _shown(entry: Entry, result: Result) -> Entry:
    return replace(
        entry,
        outcome=GREEN,
        to_alert_s=round(result.to_alert_s, 1),
        to_diagnose_s=round(result.to_diagnose_s, 1),
        to_recover_s=round(result.to_recover_s, 1),
        commands=result.commands,
        steps=result.steps,
        diagnosed={command: placeless(output)[-KEPT:] for command, output in result.diagnosed.items()},
    )


def placeless(text: str) -> str:
    """The same without where this machine keeps things, so that a record says nothing of the machine it came from."""
    places = {
        os.environ.get("OFFLOAD_HOME", ""): "$OFFLOAD_HOME",
        # a checkout's environment may be a link to another's
        str((ROOT / ".venv").resolve()): ".venv",
        f"{ROOT}/": "",
        f"{sys.base_prefix}/lib/python": "$PYTHON/lib/python",
    }
    for place, name in places.items():
        text = text.replace(place, name) if place else text
    return text


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
    now = (fingerprint(), page_digest(page))
    return entry is not None and entry.outcome == GREEN and (entry.code, entry.digest) == now


def fingerprint() -> str:
    """Twelve digits that change with the code; what else is written does not count."""
    files: list[Path] = []
    for name in CODE:
        path = ROOT / name
        files += sorted(path.rglob("*")) if path.is_dir() else [path]
    # what it writes itself is no code
    return _digest(one for one in files if one != RECORD and one.suffix != ".new")


def page_digest(page: str) -> str:
    """Twelve digits that change with this page."""
    return _digest([PAGES / page])


def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        if file.is_file() and "__pycache__" not in file.parts:
            digest.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]

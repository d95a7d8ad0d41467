"""docs/operations/runbooks/REPORT.md: what the exercises of the runbooks showed, from what they recorded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from local.runbooks import record
from local.runbooks.pages import Page, Scenario, pages
from local.runbooks.record import GREEN, Entry

TARGET_MIN = 30
TARGET_SHARE = 0.9
NEVER = "not run"
ORIGIN = {
    "iceberg-scheduler-recovery.md": (2, 5, 10),
    "iceberg-offload-failure.md": (10, 20, 30),
    "iceberg-offload-lag.md": (15, 25, 60),
    "iceberg-offload-performance.md": (10, 20, 30),
    "iceberg-offload-watermark-recovery.md": (15, 30, 60),
}
"""Best, typical and worst minutes that the five runbooks promised from which these were made; nobody had measured."""

_WORDS = f"""
Made from what `make test-runbooks` recorded ([record.json](../../../tests/runbooks/record.json)). Per scenario: a real
fault is caused in a running stack, its alert fires, the page's diagnosis matches, and what the page says, pasted as it
stands, repairs it; the alert clears, and two independent readers find nothing lost and nothing doubled.

- *to alert*: from the fault to its alert. The rules are those of the fast profile (a table that runs every minute,
  limits of seconds to minutes); in production alerts wait longer by design ([alerts.md](../../alerts.md)).
- *diagnosis*: until every command of the diagnosis has printed what the page says.
- *recovery*: from the first command of the resolution until the alert has cleared and the table is verified.
- *MTTR*: diagnosis and recovery. A machine followed the page; a person also reads and decides.
- *target*: the page's own best / typical / worst. Over all: {TARGET_SHARE:.0%} within {TARGET_MIN} minutes.
- *code*: a digest of the code that was tried. `green, older code`: it was green on other code than that of most rows
  that ran last; `green, older page`: the page was changed since. Both are to be run again.
"""


def page(header: str) -> str:
    """The whole page, as Markdown."""
    return text(header, pages(), record.read())


def text(header: str, found: Sequence[Page], entries: dict[str, Entry]) -> str:
    """The page about these runbooks; a scenario without an entry was not run, an entry of no scenario is left out."""
    scenarios = [(one, entries.get(one.name)) for page in found for one in page.scenarios]
    looks = [(page, entries.get(f"other commands of {page.path.name}")) for page in found]
    newest = _newest([entry for _, entry in (*scenarios, *looks) if entry is not None])
    lines = [
        "# Report of the runbooks' exercises\n",
        header,
        _WORDS,
        *_summary(scenarios, looks, found, newest),
        "\n## Scenarios\n",
        "| scenario | result | to alert | diagnosis | recovery | MTTR | target | commands | run (UTC) | code |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *(_row(one, entry, newest) for one, entry in scenarios),
        "\n## Against the targets of the runbooks before these\n",
        "Minutes, per runbook: those of the five untested runbooks that these were made from, and what was measured.\n",
        "| page | their best / typical / worst | longest MTTR | within typical | within worst |",
        "| --- | --- | --- | --- | --- |",
        *(_against(page, [entries.get(one.name) for one in page.scenarios]) for page in found if page.scenarios),
        "\n## Commands outside of scenarios\n",
        "First aid, health checks and what follows an incident, on a healthy stack.\n",
        "| page | result | commands | run (UTC) | code |",
        "| --- | --- | --- | --- | --- |",
        *(_look(one, entry, newest) for one, entry in looks),
    ]
    bad = [(one.name, entry) for one, entry in scenarios if entry is not None and entry.outcome != GREEN]
    bad += [(one.path.name, entry) for one, entry in looks if entry is not None and entry.outcome != GREEN]
    if bad:
        lines += ["\n## What is red, and why\n", *(f"- {name}: {_plain(entry.why)}" for name, entry in bad)]
    return "\n".join(lines) + "\n"


def _summary(
    scenarios: Sequence[tuple[Scenario, Entry | None]],
    looks: Sequence[tuple[Page, Entry | None]],
    found: Sequence[Page],
    newest: str,
) -> list[str]:
    entries = [entry for _, entry in scenarios if entry is not None]
    green = [entry for entry in entries if entry.outcome == GREEN]
    every = [*green, *(entry for _, entry in looks if entry is not None and entry.outcome == GREEN)]
    today = [one for one in every if one.digest == record.page_digest(one.page)]
    within = sum(entry.mttr_s <= TARGET_MIN * 60 for entry in green)
    told = [
        f"- Scenarios: {len(scenarios)}; green {len(green)}, red {len(entries) - len(green)},"
        f" {NEVER} {len(scenarios) - len(entries)}.",
        f"- Commands on the pages: {sum(len(page.commands) for page in found)},"
        f" {len({step.command for page in found for step in page.commands})} of them different;"
        f" ran as they stand there today and printed what the page says: {sum(entry.steps for entry in today)},"
        f" in {sum(entry.commands for entry in today)} calls.",
    ]
    named = {name for page in found for name in page.headings if name.startswith("IcebergOffload")}
    if quiet := sorted(named - {one.alert for one, _ in scenarios}):
        told.append(
            f"- Alerts that no exercise makes fire, {len(quiet)} of {len(named)}:"
            f" {', '.join(f'`{one}`' for one in quiet)}. promtool tries their rules, nobody their headings' words."
        )
    if green:
        share = within / len(scenarios)
        told.append(
            f"- MTTR within {TARGET_MIN} minutes: {within} of {len(scenarios)} scenarios ({share:.0%};"
            f" target {TARGET_SHARE:.0%}); median {_minutes(sorted(e.mttr_s for e in green)[len(green) // 2])},"
            f" longest {_minutes(max(e.mttr_s for e in green))}."
        )
        cores = ", ".join(str(n) for n in sorted({entry.cores for entry in every}))
        told.append(
            f"- Time of all exercises together, red ones too:"
            f" {_minutes(sum(e.seconds for e in (*entries, *(one for _, one in looks if one is not None))))},"
            f" on {cores} cores, without the starts of the stage."
        )
        old = [one for one in every if _age(one, newest)]
        told.append(
            f"- All on one code and on the pages of today: {'no' if old else 'yes'}; newest code `{newest[:7]}`,"
            f" rows of older code or older pages: {len(old)}."
        )
    return told


def _newest(entries: Sequence[Entry]) -> str:
    """The code of the entry that was recorded last."""
    return max(entries, key=lambda one: one.at).code if entries else ""


def _age(entry: Entry, newest: str) -> str:
    """What makes a green row one of yesterday; empty when nothing does."""
    page = "" if entry.digest == record.page_digest(entry.page) else ", older page"
    return page if entry.code == newest else f"{page}, older code"


def _row(one: Scenario, entry: Entry | None, newest: str) -> str:
    path = Path(one.page).name
    link = f"[{one.name}]({path}#{one.anchor})"
    target = " / ".join(str(n) for n in one.mttr) + " min"
    if entry is None:
        return f"| {link} | {NEVER} | | | | | {target} | | | |"
    if entry.outcome != GREEN:
        return f"| {link} | **{entry.outcome}** | | | | | {target} | | {entry.at[:16]} | `{entry.code[:7]}` |"
    times = (entry.to_alert_s, entry.to_diagnose_s, entry.to_recover_s)
    shown = " | ".join(f"{seconds:.0f} s" for seconds in times)
    late = "" if entry.mttr_s <= one.mttr[2] * 60 else " (late)"
    return (
        f"| {link} | green{_age(entry, newest)} | {shown} | {_minutes(entry.mttr_s)}{late} | {target}"
        f" | {entry.steps} in {entry.commands} calls | {entry.at[:16]} | `{entry.code[:7]}` |"
    )


def _against(one: Page, entries: Sequence[Entry | None]) -> str:
    """How many of a page's scenarios were as quick as was promised; a red one is not."""
    link = f"[{one.path.name}]({one.path.name})"
    green = [entry.mttr_s for entry in entries if entry is not None and entry.outcome == GREEN]
    longest = _minutes(max(green)) if green else ""
    if one.path.name not in ORIGIN:
        return f"| {link} | it had none | {longest} | | |"
    target = ORIGIN[one.path.name]
    within = (f"{sum(s <= minutes * 60 for s in green)} of {len(entries)}" for minutes in target[1:])
    return f"| {link} | {' / '.join(map(str, target))} | {longest} | {' | '.join(within)} |"


def _look(one: Page, entry: Entry | None, newest: str) -> str:
    link = f"[{one.path.name}]({one.path.name})"
    if entry is None:
        return f"| {link} | {NEVER} | {len(one.elsewhere)} | | |"
    result = f"{GREEN}{_age(entry, newest)}" if entry.outcome == GREEN else f"**{entry.outcome}**"
    return f"| {link} | {result} | {len(one.elsewhere)} | {entry.at[:16]} | `{entry.code[:7]}` |"


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def _plain(text: str) -> str:
    return text.replace("<", "&lt;").replace("|", "\\|")

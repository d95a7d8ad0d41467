"""The runbooks keep their form: every alert and every error id lead to one heading, and each heading to a way out.

What the pages say is tried in tests/runbooks; here they are only read.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from itertools import combinations
from pathlib import Path
from urllib.parse import unquote

import pytest

from include.offload import decision_tree, runbooks
from include.offload.decision_tree import NAMES
from include.offload.errors import REGISTRY
from include.offload.runbooks import FOLDER, INDEX, OF_ERROR, SCENARIOS, anchor
from local.paths import ROOT
from local.runbooks import pages as reader
from local.runbooks import record
from local.runbooks.faults import FAULTS
from local.runbooks.pages import HEADING, KINDS, PAGES, Page, Scenario
from monitoring import values
from monitoring.alerts import RUNBOOKS, alerts

RUNBOOK_FILES = (
    runbooks.FAILURE,
    runbooks.LAG,
    runbooks.PERFORMANCE,
    runbooks.WATERMARK,
    runbooks.SCHEDULER,
    runbooks.DATA,
)
FILES = (*RUNBOOK_FILES, INDEX)
SECTIONS = (
    "Do this first",
    "Summary",
    "Symptoms",
    "Diagnosis",
    "Resolution by scenario",
    "Prevention",
    "Related monitoring",
    "Post-incident",
    "Quick reference",
)
INDEX_SECTIONS = (
    "Decision tree",
    "All runbooks",
    "Health check",
    "Scenario map",
    "Escalation matrix",
    "After an incident",
    "Maintenance",
    "MTTR targets",
)
SCENARIOS_STAND_IN = "Resolution by scenario"
ALERTS_STAND_IN = "Symptoms"
SILENT_LANGUAGES = {"mermaid", "text", "yaml", "markdown", "promql", "sql"}
"""Languages of fences that nobody pastes into a shell."""
ALERTS = {one.name: one for one in alerts(values.load("production"))}
LINK = re.compile(r"\[(?:[^\]\\]|\\.)*\]\(([^)\s]+)\)")
OPENING = re.compile(r"^ *(`{3,}|~{3,})[ \t]*([^\n]*)$")
UNFINISHED = re.compile(r"\b(TODO|TBD|FIXME|XXX|WIP|lorem)\b|<(?!!--)[a-z][a-z0-9_ -]*>|\bcoming soon\b", re.IGNORECASE)
CALLED = {file: name for name, file in NAMES.items()}
MTTR = re.compile(r"MTTR\b[^\n]*\bbest\b[^\n]*\btypical\b[^\n]*\bworst\b", re.IGNORECASE)


@cache
def page(file: str) -> Page:
    return reader.read(PAGES / file)


@cache
def plain(file: str) -> str:
    """A page's text with blanks for fences, so that positions stay."""
    return reader.without_fences(page(file).text)


def section(file: str, heading: str, level: int = 2) -> str:
    """What stands under a heading, up to the next one that is as high. Raises AssertionError unless there is one."""
    found = [m for m in HEADING.finditer(plain(file)) if (len(m[1]), m[2]) == (level, heading)]
    assert len(found) == 1, f"{file}: {len(found)} headings {'#' * level} {heading}"
    after = (m.start() for m in HEADING.finditer(plain(file), found[0].end()) if len(m[1]) <= level)
    return page(file).text[found[0].end() : next(after, None)]


def headings_below(file: str, heading: str) -> list[str]:
    """The `###` headings of a section."""
    return [m[2] for m in HEADING.finditer(reader.without_fences(section(file, heading))) if len(m[1]) == 3]


def anchors(path: Path) -> list[str]:
    text = reader.without_fences(path.read_text(encoding="utf-8"))
    return [anchor(m[2].replace("`", "")) for m in HEADING.finditer(text)]


def leads_to_one_heading(path: str) -> bool:
    file, _, name = path.partition("#")
    return anchors(PAGES / file).count(name) == 1


@pytest.mark.parametrize("name", RUNBOOKS)
def test_every_alert_leads_to_one_heading(name: str) -> None:
    url = str(ALERTS[name].rule(values.load("production"))["annotations"]["runbook_url"])  # type: ignore[index]
    assert url.startswith(f"{FOLDER}/")
    assert leads_to_one_heading(url.removeprefix(f"{FOLDER}/")), url


@pytest.mark.parametrize("file", FILES)
def test_every_heading_of_a_symptom_is_an_alert_of_its_page(file: str) -> None:
    own = [name for name, where in RUNBOOKS.items() if where == file]
    if file == INDEX:
        assert [m[2] for m in HEADING.finditer(plain(file)) if m[2] in ALERTS] == own
    else:
        assert sorted(headings_below(file, ALERTS_STAND_IN)) == sorted(own)


@pytest.mark.parametrize("id", sorted(REGISTRY))
def test_every_error_leads_to_one_heading_that_explains_it(id: str) -> None:
    scenario = OF_ERROR[id]
    assert leads_to_one_heading(scenario.path), scenario.path
    assert id in section(scenario.file, scenario.heading, 3), f"{scenario.path} does not say what {id} means there"


@pytest.mark.parametrize("file", RUNBOOK_FILES)
def test_every_scenario_that_is_known_is_there_and_no_other(file: str) -> None:
    assert headings_below(file, SCENARIOS_STAND_IN) == [one.heading for one in SCENARIOS if one.file == file]


@pytest.mark.parametrize("file", RUNBOOK_FILES)
def test_every_scenario_is_exercised(file: str) -> None:
    told = [one.heading for one in page(file).scenarios]
    assert sorted(told) == sorted(headings_below(file, SCENARIOS_STAND_IN))


@pytest.mark.parametrize("file", FILES)
def test_sections(file: str) -> None:
    wanted = INDEX_SECTIONS if file == INDEX else SECTIONS
    found = [m[2] for m in HEADING.finditer(plain(file)) if len(m[1]) == 2]
    assert [one for one in found if one in wanted] == list(wanted)
    empty = [one for one in found if len(section(file, one).split()) < 5]
    assert not empty


@pytest.mark.parametrize("file", FILES)
def test_headings_are_unique(file: str) -> None:
    twice = [name for name, count in Counter(anchors(PAGES / file)).items() if count > 1]
    assert not twice, f"GitHub would number them, and links would lead to the first: {twice}"


@pytest.mark.parametrize("file", FILES)
def test_no_dead_link(file: str) -> None:
    dead = []
    for target in LINK.findall(plain(file)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, name = unquote(target).partition("#")
        where = (PAGES / path).resolve() if path else PAGES / file
        if not where.exists() or not where.is_relative_to(ROOT):
            dead.append(f"{target}: no such file")
        elif name and where.suffix == ".md" and name not in anchors(where):
            dead.append(f"{target}: no such heading")
    assert not dead


@pytest.mark.parametrize("file", FILES)
def test_nothing_is_left_to_write(file: str) -> None:
    assert not [m[0] for m in UNFINISHED.finditer(page(file).text)]


@pytest.mark.parametrize("file", FILES)
def test_all_fences_are_collected(file: str) -> None:
    """Counted by another way than the reader's: line by line."""
    told: list[str] = []
    inside = ""
    for line in page(file).text.splitlines():
        mark = OPENING.match(line)
        if inside:
            if mark and mark[1].startswith(inside) and not mark[2].strip():
                inside = ""
        elif mark:
            inside = mark[1]
            told.append(mark[2].strip())
    assert not inside, "a fence is not closed"
    consoles = [one for one in told if one.partition(" ")[0] == "console"]
    assert consoles == [f"console {fence.kind}" for fence in page(file).fences]
    other = {one for one in told if one not in consoles}
    assert other <= SILENT_LANGUAGES, "commands stand in a console with a kind, or nobody tries them"
    of_scenarios = [fence for one in page(file).scenarios for fence in one.fences]
    assert len(of_scenarios) == len({id(fence) for fence in of_scenarios})


@pytest.mark.parametrize("file", RUNBOOK_FILES)
def test_no_diagnosis_without_a_command(file: str) -> None:
    assert "```console diagnose\n$ " in section(file, "Diagnosis")
    for scenario in page(file).scenarios:
        for kind in KINDS[1:]:
            assert scenario.steps(kind), f"{scenario.name} has nothing to {kind}"
        silent = [step.command for step in scenario.steps("diagnose") if not re.search(r"\w", step.expected)]
        assert not silent, f"{scenario.name}: whatever these print is a match"
        assert MTTR.search(section(file, scenario.heading, 3)), f"{scenario.name} has no MTTR"


@pytest.mark.parametrize("file", RUNBOOK_FILES)
def test_every_heading_of_a_scenario_stands_in_the_diagnosis(file: str) -> None:
    text = section(file, "Diagnosis")
    for heading in headings_below(file, SCENARIOS_STAND_IN):
        assert f"](#{anchor(heading)})" in text, f"the diagnosis does not lead to {heading}"


def all_scenarios() -> tuple[Scenario, ...]:
    return tuple(one for file in RUNBOOK_FILES if (PAGES / file).exists() for one in page(file).scenarios)


def asked(scenario: Scenario) -> frozenset[tuple[str, str]]:
    return frozenset((step.command, " ".join(step.expected.split())) for step in scenario.steps("diagnose"))


def test_diagnoses_are_pairwise_distinct() -> None:
    same = [
        (a.name, b.name) for a, b in combinations(all_scenarios(), 2) if asked(a) <= asked(b) or asked(b) <= asked(a)
    ]
    assert not same, "one of the two matches whenever the other does"


def test_what_a_diagnosis_printed_is_matched_by_no_other_scenario() -> None:
    """By what the exercises recorded: where the fault of one was there, no other page says that it is its own."""
    known = {one.name: one for one in all_scenarios()}
    twins = [
        (entry.name, other.name)
        for entry in record.read().values()
        if entry.outcome == record.GREEN and entry.digest == record.page_digest(entry.page) and entry.name in known
        for other in known.values()
        if other.name != entry.name and matched(other, entry.diagnosed)
    ]
    assert not twins


def matched(scenario: Scenario, printed: dict[str, str]) -> bool:
    """Whether all that a diagnosis asks was asked, and printed what it says; what was not recorded does not match."""
    steps = [step for fence in scenario.fences if fence.kind == "diagnose" for step in fence.steps]
    return all(step.command in printed and step.matches(printed[step.command]) for step in steps)


def test_scenarios_name_what_exists() -> None:
    for scenario in all_scenarios():
        assert scenario.fault in FAULTS, f"{scenario.name}: no fault {scenario.fault}"
        assert {scenario.alert, *scenario.silent} <= ALERTS.keys(), scenario.name
        assert scenario.alert not in scenario.silent, scenario.name
        assert scenario.silent, f"{scenario.name}: no alert that must be silent"
    assert {one.fault for one in all_scenarios()} == FAULTS.keys(), "a fault that no scenario causes"


def test_enough_scenarios() -> None:
    assert len(all_scenarios()) >= 28
    names = [one.name for one in all_scenarios()]
    assert len(names) == len(set(names))


CHANGES = re.compile(
    r"\b(stack (start|stop)|ledger (upgrade|rebuild|recreate|restore|forget)|schema accept|accept-source|take-over"
    r"|restore-main|dag (trigger|pause|unpause|clear)|--reset|--end|--slots|rm|sed -i|mv|kill|offload run)\b"
)
ASKS = re.compile(
    r"bin/offload (ledger (recreate|restore|forget)|ledger sessions .*--end|schema accept|accept-source|take-over"
    r"|restore-main|dag connections .*--reset)|\brm\b"
)
"""Commands that destroy something, or change what nobody can tell afterwards."""


@pytest.mark.parametrize("file", FILES)
def test_what_is_destructive_asks_and_is_not_answered_by_the_page_alone(file: str) -> None:
    """Whoever pastes a fence is asked, sees the question on the page, and has looked in a fence of its own before."""
    for fence in page(file).fences:
        for step in fence.steps:
            assert "--yes" not in step.command.split(), f"{file}:{step.line}: pasted, this asks nobody"
            assert bool(step.answers) == bool(ASKS.search(step.command)), f"{file}:{step.line}: {step.command}"
            assert not re.search(r"\brm -\w*f", step.command), f"{file}:{step.line}: it never asks"
    for scenario in page(file).scenarios:
        for one in scenario.fences:
            for number, step in enumerate(one.steps):
                looks = [before.command for before in one.steps[:number] if not CHANGES.search(before.command)]
                assert not (step.answers and looks), f"{scenario.name}: {looks} is pasted together with what follows it"


@pytest.mark.parametrize("file", FILES)
def test_a_question_ends_its_fence(file: str) -> None:
    """Whoever pastes a fence as a whole would give the lines below a question as its answer, or go on after a no."""
    for fence in page(file).fences:
        for step in fence.steps[:-1]:
            assert not step.answers, f"{file}:{step.line}: {step.command} asks, and more is pasted with it"


@pytest.mark.parametrize("file", RUNBOOK_FILES)
def test_an_id_in_a_diagnosis_leads_to_its_scenario(file: str) -> None:
    """An id may stand in several rows that its text tells apart; one of them leads to the scenario that explains it."""
    told: dict[str, set[str]] = {}
    for row in section(file, "Diagnosis").splitlines():
        links = {f"{file}{one}" if one.startswith("#") else one for one in LINK.findall(row)}
        for id in re.findall(r"OFL-\d{3}", row.rsplit("|", 2)[0]) if links else ():
            told.setdefault(id, set()).update(links)
    wrong = {id: sorted(links) for id, links in told.items() if OF_ERROR[id].path not in links}
    # of a server that does not answer the cause names which; Airflow's own have pages of their own
    assert not wrong.keys() - {"OFL-505"}, wrong


@pytest.mark.parametrize("file", FILES)
def test_who_only_looks_changes_nothing(file: str) -> None:
    changing = [
        f"{file}:{step.line}: {step.command}"
        for fence in page(file).fences
        if fence.kind in ("symptom", "diagnose")
        for step in fence.steps
        if CHANGES.search(step.command)
    ]
    assert not changing


SAYS_NOTHING = (
    "bash: line 1: bin/offload: No such file or directory",
    'Traceback (most recent call last):\n  File "x.py", line 1, in <module>\nValueError: k2.silver_trades',
    "OFL-999 [k2.silver_trades] something is wrong\ncause: k2.silver_trades\nnext:  bin/offload stack status",
)
"""What a command prints that does not work, or is refused for a reason that no page can know."""


@pytest.mark.parametrize("file", FILES)
def test_what_a_command_prints_is_told_from_its_failure(file: str) -> None:
    found = [
        f"{file}:{step.line}: {step.command}"
        for step in page(file).commands
        # it says with its exit code that it went well, and `resolve` looks at that
        if step.expected and any(step.matches(failure) for failure in SAYS_NOTHING)
    ]
    assert not found
    silent = [f"{step.line}: {step.command}" for step in page(file).commands if not step.expected]
    assert all(" rm " in one or "sed -i" in one for one in silent), silent


@pytest.mark.parametrize("file", FILES)
def test_after_an_incident_the_data_is_proved(file: str) -> None:
    for step in page(file).commands:
        if re.search(r"bin/offload verify\b", step.command):
            assert "equal by both readers" in step.expected or "differ" in step.expected, f"{file}:{step.line}"


def test_the_index_leads_to_every_page_and_scenario() -> None:
    links = set(LINK.findall(plain(INDEX)))
    assert set(RUNBOOK_FILES) <= links
    rows = section(INDEX, "Scenario map").splitlines()
    for one in SCENARIOS:
        wanted = f"[{CALLED[one.file]}: {one.heading}]({one.path})"
        assert [row.split("|")[2].strip() for row in rows if row.startswith("|")].count(wanted) == 1, wanted


def test_the_summary_of_the_index_counts_right() -> None:
    rows = section(INDEX, "All runbooks").splitlines()
    for file in RUNBOOK_FILES:
        (row,) = (row for row in rows if f"]({file})" in row)
        _, _, _, told, count, _, _ = row.split("|")
        own = [name.removeprefix("IcebergOffload") for name, where in RUNBOOKS.items() if where == file]
        assert sorted(re.findall(r"`(\w+)`", told)) == sorted(own)
        assert int(count) == sum(one.file == file for one in SCENARIOS)


def test_the_decision_tree_leads_from_every_alert_to_every_scenario() -> None:
    tree = decision_tree.read()
    assert tree is not None
    assert Counter(tree.leaves.values()) == Counter(SCENARIOS)
    ways = [(at, one.to) for at, question in tree.questions.items() for one in question.answers]
    assert set(tree.questions) - {to for _, to in ways} == {decision_tree.ROOT}
    assert reachable(decision_tree.ROOT, ways) == tree.questions.keys() | tree.leaves.keys()
    for name, question in tree.questions.items():
        told = [one.text for one in question.answers]
        assert len(told) > 1, f"{name}: a question with one answer is none"
        assert len(set(told)) == len(told), name
    named = " ".join(one.text for one in tree.questions[decision_tree.ROOT].answers)
    for name in RUNBOOKS:
        short = name.removeprefix("IcebergOffload")
        stem = re.sub(r"(Critical|Warning|Elevated|Fast|Slow)$", "", short)
        assert short in named or f"{stem}…" in named, f"{name} is no answer to the first question"


@pytest.mark.parametrize("scenario", all_scenarios(), ids=lambda one: one.name)
def test_the_tree_leads_from_the_alert_to_its_scenario_by_true_answers(scenario: Scenario) -> None:
    """The first answer names the alert, and the last one something that the diagnosis of the scenario looks at."""
    tree = decision_tree.read()
    assert tree is not None
    here = decision_tree.ROOT
    for name in scenario.tree:
        ways = [one for one in tree.questions[here].answers if one.to == name]
        assert ways, f"no answer of {here} leads to {name}"
        if here == decision_tree.ROOT:
            assert any(names_alert(one.text, scenario.alert) for one in ways), f"{ways} does not name {scenario.alert}"
        here = name
    leaves = {name for name, one in tree.leaves.items() if one.path == f"{scenario.page}#{scenario.anchor}"}
    # what a bare yes or no means stands in the question
    last = [
        f"{tree.questions[here].text} {one.text}" if one.text in ("yes", "no") else one.text
        for one in tree.questions[here].answers
        if one.to in leaves
    ]
    assert last, f"no answer of {here} leads to {scenario.heading}"
    shown = " ".join(f"{step.command} {step.expected}" for step in scenario.steps("diagnose"))
    short = scenario.alert.removeprefix("IcebergOffload")
    seen = words(
        f"{shown} {short} {re.sub(r'(?<=[a-z])(?=[A-Z])', ' ', short)} {' '.join(dict(scenario.labels).values())}"
    )
    assert any(words(text) & seen for text in last), f"{last} says nothing of what the diagnosis looks at: {shown}"


def names_alert(text: str, alert: str) -> bool:
    short = alert.removeprefix("IcebergOffload")
    return short in text or f"{re.sub(r'(Critical|Warning|Elevated|Fast|Slow)$', '', short)}…" in text


def words(text: str) -> set[str]:
    return {one.lower() for one in re.findall(r"[A-Za-z_]{4,}|\d{3}", text)} - {"offload", "silver_trades", "airflow"}


@pytest.mark.parametrize("scenario", all_scenarios(), ids=lambda one: one.name)
def test_the_page_of_the_alert_leads_to_the_scenario(scenario: Scenario) -> None:
    file, _, _ = reader.of_alert(scenario.alert).partition("#")
    if file != scenario.page:
        links = set(LINK.findall(plain(file)))
        near = {f"{scenario.page}#{scenario.anchor}", f"{scenario.page}#diagnosis", scenario.page}
        assert links & near, f"{file} leads nobody to {scenario.page}#{scenario.anchor}"


def test_the_times_of_the_index_are_those_of_the_pages() -> None:
    summary, targets = section(INDEX, "All runbooks").splitlines(), section(INDEX, "MTTR targets").splitlines()
    for file in RUNBOOK_FILES:
        (own,) = re.findall(r"^\| MTTR \| best (\d+) min, typical (\d+) min, worst (\d+) min", page(file).text, re.M)
        (row,) = (row for row in summary if f"]({file})" in row)
        assert " / ".join(own) in row, f"{file}: {own}, the index says {row}"
        (row,) = (row for row in targets if f"]({file})" in row)
        assert re.findall(r"(\d+) min", row) == list(own), row
        worst = max(one.mttr[2] for one in page(file).scenarios)
        assert worst <= int(own[2]), f"{file}: a scenario takes {worst} min at worst, the page says {own[2]}"


def reachable(start: str, edges: list[tuple[str, str]]) -> set[str]:
    seen, left = {start}, [start]
    while left:
        here = left.pop()
        new = {to for came, to in edges if came == here} - seen
        seen |= new
        left += new
    return seen


def test_every_error_is_an_answer_of_the_tree() -> None:
    tree = section(INDEX, "Decision tree")
    told = {number for line in tree.splitlines() if "OFL-" in line for number in re.findall(r"\b\d{3}\b", line)}
    assert told == {id.removeprefix("OFL-") for id in REGISTRY}

"""The documentation says what is there: links lead somewhere, generated pages are fresh, commands exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from docs.generate import PAGES
from include.offload.cli import app
from include.offload.error_notes import NOTES, note
from include.offload.errors import REGISTRY

ROOT = Path(__file__).resolve().parents[2]
PAGES_OF_THE_REPOSITORY = sorted(
    p.relative_to(ROOT).as_posix()
    for p in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md"))
)
LINK = re.compile(r"!?\[(?:[^\]\\]|\\.)*\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
FENCED_SHELL = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def links_of(page: str) -> list[str]:
    """The targets of a page's links; a link's text may be code, a code block holds none."""
    return LINK.findall(CODE.sub("", text_of(page)))


@cache
def anchors(page: str) -> frozenset[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} (.+)$", CODE.sub("", text_of(page)), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        found.add(re.sub(r"[^\w\- ]", "", plain).strip().replace(" ", "-"))
    return frozenset(found)


def commands_of(page: str) -> Iterator[list[str]]:
    """Every `bin/offload …` and `make …` of a page, inline or in a shell block, as words."""
    body = text_of(page)
    lines = [line for block in FENCED_SHELL.findall(body) for line in block.splitlines()]
    for line in [*INLINE.findall(CODE.sub("", body)), *lines]:
        if line.startswith(("bin/offload", "make ")):
            yield shlex.split(line, comments=True)


def every_command() -> list[tuple[str, list[str]]]:
    return [(page, words) for page in PAGES_OF_THE_REPOSITORY for words in commands_of(page)]


@cache
def make_targets() -> frozenset[str]:
    found: set[str] = set()
    for line in (ROOT / "Makefile").read_text(encoding="utf-8").splitlines():
        if match := re.match(r"^([A-Za-z0-9_. -]+):(?!=)", line):
            found.update(match[1].split())
    return frozenset(found)


def test_the_readme_leads_to_every_guide() -> None:
    linked = set(links_of("README.md"))
    assert [p for p in PAGES_OF_THE_REPOSITORY if p.startswith("docs/howto-") and p not in linked] == []


@pytest.mark.parametrize("page", PAGES_OF_THE_REPOSITORY)
def test_every_relative_link_leads_somewhere(page: str) -> None:
    dead = []
    for target in links_of(page):
        if re.match(r"^[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        if not file.exists():
            dead.append(f"{target}: no such file")
        elif anchor and file.suffix == ".md" and anchor not in anchors(file.resolve().relative_to(ROOT).as_posix()):
            dead.append(f"{target}: no such heading")
    assert not dead, f"{page}: {dead}"


def test_links_are_found_at_all() -> None:
    assert any(target.startswith("docs/architecture.md") for target in links_of("README.md"))


@pytest.mark.parametrize("page", PAGES)
def test_generated_pages_are_fresh(page: str) -> None:
    assert text_of(page) == PAGES[page](), f"{page} is stale: run `python docs/generate.py`"


def test_the_check_of_the_generator_says_when_a_page_is_stale() -> None:
    done = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_notes_are_of_known_errors() -> None:
    assert set(NOTES) <= set(REGISTRY)


@pytest.mark.parametrize("id", NOTES)
def test_the_paths_in_a_note_exist(id: str) -> None:
    assert "](" not in note(id)
    for path in re.findall(r"(?:docs|deploy)/[\w/.-]+\.(?:md|sql)", note(id)):
        assert (ROOT / path).is_file(), path


def test_every_error_has_a_heading() -> None:
    assert {id.lower() for id in REGISTRY} <= anchors("docs/errors.md")


def test_every_make_target_in_the_docs_exists() -> None:
    missing = {
        f"{page}: make {word}"
        for page, words in every_command()
        if words[0] == "make"
        for word in words[1:]
        if "=" not in word and not word.startswith("-") and word not in make_targets()
    }
    assert not missing


def test_every_command_in_the_docs_exists() -> None:
    wrong = []
    for page, words in every_command():
        if words[0] == "bin/offload" and (problem := problem_of(words[1:])):
            wrong.append(f"{page}: {' '.join(words)}: {problem}")
    assert not wrong, "\n".join(wrong)


def problem_of(words: list[str]) -> str | None:
    """What is wrong with a command line, None when the command and its options exist."""
    # typer may bring its own click: what counts is that a group has `commands`
    command: Any = typer.main.get_command(app)
    rest = list(words)
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        name = rest.pop(0)
        if name not in command.commands:
            return f"there is no command {name}"
        command = command.commands[name]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    unknown = [w for w in rest if w.startswith("--") and w.split("=")[0] not in known | {"--help"}]
    return f"no option {', '.join(unknown)}" if unknown else None


@pytest.mark.parametrize("words", [["spec", "make"], ["verify", "--everything"]])
def test_a_wrong_command_would_be_found(words: list[str]) -> None:
    assert problem_of(words)


def test_next_steps_of_errors_are_commands_that_exist() -> None:
    wrong = []
    for kind in REGISTRY.values():
        if command := kind.command_for(None):
            program, *words = command.split()
            if problem := problem_of(words) if program == "bin/offload" else f"what is {program}?":
                wrong.append(f"{kind.id}: {command}: {problem}")
    assert not wrong, "\n".join(wrong)


def test_what_to_type_next_begins_with_bin_offload() -> None:
    """`offload …` alone is in nobody's PATH."""
    files = [path for room in ("include", "dags", "spark_jobs") for path in (ROOT / room).rglob("*.py")]
    assert [str(p) for p in files if re.search(r"Next: offload |`offload [a-z]", p.read_text(encoding="utf-8"))] == []


def test_pictures_of_the_readme_exist_and_the_drawing_has_words_for_those_who_do_not_see_it() -> None:
    drawing = text_of("docs/img/flow.svg")
    assert "<title" in drawing
    assert "<desc" in drawing


@pytest.mark.parametrize("page", PAGES_OF_THE_REPOSITORY)
def test_no_page_has_a_note_to_self(page: str) -> None:
    assert not re.search(r"\b(TODO|FIXME|XXX|TBD)\b|@@", text_of(page))


RULES = range(1, 23)
MENTION = re.compile(r"\brules? (\d+(?:(?:, | and | to )\d+)*)", re.IGNORECASE)


def rules_named(text: str) -> set[int]:
    """The numbers in `rule 7`, `rules 7, 17 and 21`, `rules 14 to 17`, and in a name such as `rule_18`."""
    found: set[int] = set()
    for group in MENTION.findall(text):
        numbers = [int(n) for n in re.findall(r"\d+", group)]
        found.update(range(numbers[0], numbers[-1] + 1) if " to " in group else numbers)
    return found | {int(n) for n in re.findall(r"rule_(\d+)", text)}


def rows_of_the_rules() -> list[tuple[set[int], list[Path]]]:
    """The last table of exactly-once.md: the rules of each row, and the files that it links to."""
    table = text_of("docs/exactly-once.md").split("## Where each rule lives")[1]
    rows = []
    for line in table.splitlines():
        if match := re.match(r"^\| (\d[\d, to]*) \|", line):
            rules = rules_named(f"rules {match[1].strip()}")
            rows.append((rules, [(ROOT / "docs" / target).resolve() for target in LINK.findall(line)]))
    return rows


def test_how_rules_are_counted() -> None:
    assert rules_named("(rules 14 to 17) and rule 3; rules 7, 17 and 21; test_rule_18_x") == {
        3,
        7,
        14,
        15,
        16,
        17,
        18,
        21,
    }


def test_every_rule_has_a_place_in_the_table_and_its_code_names_it() -> None:
    rows = rows_of_the_rules()
    assert set(RULES) == {rule for rules, _ in rows for rule in rules}
    silent = []
    for rules, files in rows:
        code = [file for file in files if file.is_relative_to(ROOT / "include")]
        named = {rule for file in code for rule in rules_named(file.read_text(encoding="utf-8"))}
        silent += [f"rule {rule}: none of {[f.name for f in code]} names it" for rule in rules - named]
    assert not silent, "\n".join(silent)


def test_headings_of_the_rules_are_numbered_without_a_gap() -> None:
    numbers = [int(n) for n in re.findall(r"^(\d+)\. ", text_of("docs/exactly-once.md"), re.MULTILINE)]
    assert numbers == list(RULES)


@pytest.mark.parametrize("page", ["docs/exactly-once.md", "docs/reliability.md"])
def test_tests_that_the_rules_name_exist(page: str) -> None:
    """A link in the table reads like the test's name: `a_zombie_s_commit` is "a zombie's commit"."""
    named = 0
    missing = []
    for text, target in re.findall(r"\[([^\]`]+)\]\(\.\./(tests/[^)]+\.py)\)", text_of(page)):
        wanted = re.sub(r"[^a-z0-9]+", "_", text.lower())
        tests = re.findall(r"^def test_(\w+)\(", text_of(target), re.MULTILINE)
        known = {re.sub(r"^rules?_\d+(_\d+)*_", "", name) for name in tests}
        named += 1
        if wanted not in known:
            missing.append(f"{target}: {text}")
    assert named
    assert not missing

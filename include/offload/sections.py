"""The text about a refusal: its runbook's section where this machine has it, else its entry in docs/errors.md."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from include.offload.errors import REGISTRY
from include.offload.runbooks import FOLDER, anchor, path_of

DOCS = Path(__file__).resolve().parents[2] / "docs"
ERROR_ID = re.compile(r"\bOFL-\d{3}\b")
_COMMENT = re.compile(r"^<!--.*?-->\n?", re.DOTALL | re.MULTILINE)
_HEADING = re.compile(r"^(#{1,6}) +(.+?) *#*$")


@dataclass(frozen=True, slots=True)
class Section:
    """One heading of one page. `page`: relative to the repository; `anchor`: as GitHub makes it from the heading."""

    page: str
    anchor: str

    def __str__(self) -> str:
        return f"{self.page}#{self.anchor}"


def section(error_id: str) -> Section | None:
    """Where an error id is explained, None for an id that does not exist."""
    if error_id not in REGISTRY:
        return None
    page, _, heading = path_of(error_id).partition("#")
    runbook = Section(f"{FOLDER}/{page}", heading)
    return runbook if markdown(runbook) else Section("docs/errors.md", error_id.lower())


def error_id(message: str | None) -> str | None:
    """The first known error id in a message, as the ledger keeps it of a failed run."""
    return next((i for i in ERROR_ID.findall(message or "") if i in REGISTRY), None)


def markdown(where: Section) -> str | None:
    """The text under that heading, without the heading; None when this machine has no such page or heading."""
    path = DOCS.parent / where.page
    if not path.is_file():
        return None
    found: list[str] = []
    depth = 0
    fenced = False
    for line in path.read_text(encoding="utf-8").splitlines():
        fenced ^= line.startswith("```")
        heading = None if fenced else _HEADING.match(line)
        if heading and depth and len(heading[1]) <= depth:
            break
        if heading and not depth:
            if anchor(heading[2]) == where.anchor:
                depth = len(heading[1])
            continue
        if depth:
            found.append(line)
    # a scenario's hidden comment is for the tests, and Markdown without HTML would show it
    return _COMMENT.sub("", "\n".join(found)).strip() if depth else None

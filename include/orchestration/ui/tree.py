"""The decision tree of the runbooks as a page: one question at a time, each answer a link, down to the scenario."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse
from markupsafe import Markup, escape

from include.offload import decision_tree, sections
from include.offload.decision_tree import Question, Tree, TreeError
from include.offload.runbooks import FOLDER
from include.offload.sections import Section

COMMAND = re.compile(r"bin/offload [\w. -]+")


def add(app: FastAPI, page: Callable[..., HTMLResponse], rendered: Callable[[str], Markup]) -> None:
    """Add the route `/tree`. page: renders a template; rendered: Markdown as HTML."""

    @app.get("/tree")
    def tree(request: Request, user: GetUserDep, at: str = "") -> HTMLResponse:
        """`at`: the numbers of the answers so far, with dots between them. No answer is remembered on the server."""
        found = _read(*_stamp())
        try:
            choices = [int(number) for number in at.split(".")] if at else []
            trail, here = found.walk(choices) if found is not None else ((), None)
        except (ValueError, TreeError):
            return page(request, "elsewhere.html", 404, dag_id=at)
        ways = [".".join(map(str, choices[:count])) for count in range(len(choices) + 1)]
        steps = [(question.text, answer.text, ways[i]) for i, (question, answer) in enumerate(trail)]
        values: dict[str, Any] = {"steps": steps, "question": None, "answers": [], "scenario": None, "text": None}
        if isinstance(here, Question):
            values["question"] = with_commands(here.text)
            values["answers"] = [(one.text, f"{ways[-1]}.{i}".lstrip(".")) for i, one in enumerate(here.answers)]
        elif here is not None:
            file, _, anchor = here.path.partition("#")
            where = Section(f"{FOLDER}/{file}", anchor)
            text = sections.markdown(where)
            values |= {"scenario": here, "where": where, "text": None if text is None else rendered(text)}
        return page(request, "tree.html", missing=found is None, **values)


def with_commands(text: str) -> Markup:
    """A question, its command as code."""
    parts, last = [], 0
    for found in COMMAND.finditer(text):
        command = found[0].rstrip()
        parts += [escape(text[last : found.start()]), Markup("<code>"), escape(command), Markup("</code>")]
        last = found.start() + len(command)
    return Markup("").join([*parts, escape(text[last:])])


def _stamp() -> tuple[int, int]:
    """Changes with the index, so that an update of the pages needs no restart."""
    try:
        told = decision_tree.INDEX_FILE.stat()
    except FileNotFoundError:
        return (0, 0)
    return told.st_mtime_ns, told.st_size


@lru_cache(maxsize=1)
def _read(_mtime_ns: int, _size: int) -> Tree | None:
    return decision_tree.read()

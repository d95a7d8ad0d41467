"""Turns the Markdown pages of this repository, written for GitHub, into pages of the docs site (mkdocs.yml).

- README, CHANGELOG and the like, which are not in docs/, become pages too.
- A link to a file that is not a page keeps its text, and shows the file's path; one that leads nowhere is a warning,
  and so an error.
- Anchors are GitHub's. Mermaid draws the diagrams from a file beside the pages, not from another host.
"""

from __future__ import annotations

import logging
import posixpath
import re
from collections import Counter
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "deploy/README.md": "deploy.md",
}
"""Pages outside of docs/, by their path in the repository: their path in the site."""
SOURCES = {uri: path for path, uri in PAGES.items()}
MERMAID = "assets/javascripts/mermaid.js"

LINK = re.compile(r"(?P<image>!?)\[(?P<text>(?:[^\]\\]|\\.)*)\]\((?P<target>[^)\s]+)\)")
FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,})[^\n]*\n.*?^(?P=indent)(?P=ticks) *$", re.M | re.S)
INFO = re.compile(r"\A( *`{3,}[\w-]*)[^\n]*")
log = logging.getLogger("mkdocs.hooks.site")


SEEN: Counter[str] = Counter()
"""The anchors of the page that is being made, and how often each was given."""


def slug(heading: str, separator: str) -> str:
    """The anchor that GitHub gives to the page's next heading: one that stands twice gets a number."""
    found = re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", separator)
    SEEN[found] += 1
    return found if SEEN[found] == 1 else f"{found}-{SEEN[found] - 1}"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Anchors as on GitHub."""
    config.mdx_configs.setdefault("toc", {})["slugify"] = slug
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The pages outside of docs/, and the program that draws the diagrams."""
    for path, uri in PAGES.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / path)))
    files.append(File.generated(config, MERMAID, content=(resources("mermaidx") / "assets/mermaid.js").read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Links by `_linked`, everywhere but in code blocks; of a block's first line nothing but the language."""
    SEEN.clear()
    parts: list[str] = []
    at = 0
    for fence in FENCE.finditer(markdown):
        parts += [_text(markdown[at : fence.start()], page), INFO.sub(r"\1", fence[0])]
        at = fence.end()
    return "".join([*parts, _text(markdown[at:], page)])


def on_post_page(output: str, page: Page, **_: Any) -> str:
    """A page with a diagram loads Mermaid before the theme looks for it; the theme would fetch it from elsewhere."""
    if 'class="mermaid"' not in output:
        return output
    script = f'<script src="{posixpath.relpath(MERMAID, posixpath.dirname(page.url) or ".")}"></script>'
    return output.replace("</head>", f"{script}</head>", 1)


def _text(markdown: str, page: Page) -> str:
    markdown = markdown.replace("<details>", "<details markdown>")
    return LINK.sub(lambda match: _linked(match, page.file.src_uri), markdown)


def _linked(match: re.Match[str], uri: str) -> str:
    """A link of the page `uri` as the site needs it."""
    target, _, anchor = match["target"].partition("#")
    if not target or re.match(r"[a-z]+:", target):
        return match[0]
    here = SOURCES.get(uri, f"docs/{uri}")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(here), target))
    if path not in PAGES and (ROOT / path).is_dir() and (ROOT / path / "README.md").exists():
        path = f"{path}/README.md"
    there = PAGES.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
    if there and not there.endswith(".py"):
        relative = posixpath.relpath(there, posixpath.dirname(uri) or ".")
        return f"{match['image']}[{match['text']}]({relative}{'#' if anchor else ''}{anchor})"
    if path.startswith("..") or not (ROOT / path).exists():
        log.warning("%s: a link leads to %s, which is not there", here, target)
    return f'<abbr title="{path}">{match["text"]}</abbr>'

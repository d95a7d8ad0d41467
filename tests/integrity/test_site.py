"""The docs site: built strictly, every page in its navigation, every link there, nothing from another host."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from functools import cache, partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

import pytest
from markdown_it import MarkdownIt
from playwright.sync_api import Browser

from include.offload.runbooks import anchor
from local.paths import ROOT

PYTHON = ROOT / ".venv" / "docs" / "bin" / "python"
ELSEWHERE = {
    "README.md": "index.html",
    "CHANGELOG.md": "changelog.html",
    "CONTRIBUTING.md": "contributing.html",
    "SECURITY.md": "security.html",
    "deploy/README.md": "deploy.html",
}
PAGES = sorted([*ELSEWHERE, *(p.relative_to(ROOT).as_posix() for p in (ROOT / "docs").rglob("*.md"))])
LOADS = {("link", "href"), ("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("object", "data")}
COUNTED = {"li": "list_item_open", "tr": "tr_open", "blockquote": "blockquote_open"}
"""What GitHub's Markdown and the site's could take differently: HTML element, token of markdown-it."""


class Built(HTMLParser):
    """One built page: what it links to and loads, its anchors, and the elements of its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.ids: set[str] = set()
        self.navigation: list[str] = []
        self.elements: Counter[str] = Counter()
        self.headings: list[str] = []
        self._article = self._nav = False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        classes = (found.get("class") or "").split()
        self._article = self._article or tag == "article"
        if found.get("id"):
            self.ids.add(str(found["id"]))
        if self._article:
            self.elements[tag] += 1
            self.elements["fence"] += tag == "div" and "highlight" in classes
            self.elements["fence"] += tag == "pre" and "mermaid" in classes
            if re.fullmatch("h[1-6]", tag):
                self.headings.append(str(found.get("id")))
        for name in ("href", "src", "data"):
            if (value := found.get(name)) is not None:
                loads = (tag, name) in LOADS and found.get("rel") not in {"next", "prev", "canonical"}
                (self.loads if loads else self.links).append(value)
                if "md-nav__link" in classes:
                    self.navigation.append(value)

    def handle_endtag(self, tag: str) -> None:
        self._article = self._article and tag != "article"


def build(root: Path, out: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(PYTHON), "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)],
        cwd=root,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = build(ROOT, out)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@cache
def built(path: Path) -> Built:
    return Built(path)


def page_of(source: str) -> str:
    """The built page of a Markdown page, relative to the site."""
    path = ELSEWHERE.get(source) or source.removeprefix("docs/").removesuffix(".md") + ".html"
    return re.sub(r"README\.html$", "index.html", path)


def html(site: Path) -> list[Path]:
    return [p for p in sorted(site.rglob("*.html")) if p.name != "404.html"]


def test_every_page_is_built_and_in_the_navigation(site: Path) -> None:
    wanted = {page_of(source) for source in PAGES}
    assert {p.relative_to(site).as_posix() for p in html(site)} == wanted
    named = {
        (site / urlsplit(link).path).resolve().relative_to(site.resolve()).as_posix()
        for link in built(site / "index.html").navigation
        if urlsplit(link).path
    }
    assert wanted - named - {"index.html"} == set()


def test_every_link_and_anchor_leads_somewhere(site: Path) -> None:
    dead: list[str] = []
    for page in html(site):
        for link in built(page).links:
            parts = urlsplit(link)
            if parts.scheme or link.startswith("javascript:"):
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            there = target.is_file() and (
                not parts.fragment or target.suffix != ".html" or unquote(parts.fragment) in built(target).ids
            )
            if not there:
                dead.append(f"{page.relative_to(site)}: {link}")
    assert dead == []


def test_nothing_is_loaded_from_another_host(site: Path) -> None:
    for page in html(site):
        for load in built(page).loads:
            assert not urlsplit(load).netloc and not urlsplit(load).scheme, f"{page.name} loads {load}"
            assert (page.parent / unquote(urlsplit(load).path)).is_file(), f"{page.name} loads {load}"
    for sheet in site.rglob("*.css"):
        assert re.findall(r"url\(['\"]?(?:https?:)?//", sheet.read_text(encoding="utf-8")) == [], sheet.name


def test_a_page_with_a_diagram_brings_what_draws_it(site: Path) -> None:
    drawn = [p for p in PAGES if "\n```mermaid\n" in (ROOT / p).read_text(encoding="utf-8")]
    assert drawn, "no page has a diagram: this test proves nothing"
    for source in PAGES:
        page = built(site / page_of(source))
        brings = [load for load in page.loads if load.endswith("assets/javascripts/mermaid.js")]
        assert len(brings) == (source in drawn), source


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """A server of a test says nothing."""


def test_a_browser_draws_the_diagrams_and_asks_no_other_host(site: Path, chrome: Browser) -> None:
    drawn = [page_of(p) for p in PAGES if "\n```mermaid\n" in (ROOT / p).read_text(encoding="utf-8")]
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    home = f"http://127.0.0.1:{server.server_port}/"
    asked: list[str] = []
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        page = chrome.new_page()
        page.on("request", lambda request: asked.append(request.url))
        for path in drawn:
            page.goto(home + path)
            # the theme puts a drawing in the place of each <pre>, out of reach of scripts
            page.wait_for_function(
                """() => { document.querySelectorAll("details").forEach(d => d.open = true);
                const all = [...document.querySelectorAll(".mermaid")];
                return all.length && all.every(d => d.tagName == "DIV" && d.offsetHeight > 50) }""",
                timeout=30_000,
            )
        page.close()
    finally:
        server.shutdown()
        server.server_close()
    assert [url for url in asked if not url.startswith(home)] == []
    assert any(url.endswith("mermaid.js") for url in asked)


@pytest.mark.parametrize("source", PAGES)
def test_a_page_is_what_github_shows(site: Path, source: str) -> None:
    """Lists, tables, code blocks and anchors: two kinds of Markdown must agree about them."""
    page = built(site / page_of(source))
    tokens = MarkdownIt("commonmark").enable("table").parse((ROOT / source).read_text(encoding="utf-8"))
    wanted = Counter(token.type for token in tokens)
    assert {tag: page.elements[tag] for tag in COUNTED} == {tag: wanted[kind] for tag, kind in COUNTED.items()}
    assert page.elements["fence"] == wanted["fence"]
    assert wanted["code_block"] == 0, "GitHub shows an indented paragraph as code"
    texts = [
        anchor("".join(c.content for c in tokens[i + 1].children or [] if c.type in {"text", "code_inline"}))
        for i, token in enumerate(tokens)
        if token.type == "heading_open"
    ]
    # GitHub numbers what stands twice
    assert page.headings == [t + f"-{texts[:i].count(t)}" * (t in texts[:i]) for i, t in enumerate(texts)]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A site of few pages, made as the real one is."""
    for source in ELSEWHERE:
        (tmp_path / source).parent.mkdir(exist_ok=True)
        (tmp_path / source).write_text("# A page\n", encoding="utf-8")
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "site_hooks.py", tmp_path / "docs")
    settings, _, _ = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")
    pages = [*(name.replace(".html", ".md") for name in ELSEWHERE.values()), "tutorial.md"]
    nav = "".join(f"  - {page}\n" for page in pages)
    (tmp_path / "mkdocs.yml").write_text(f"{settings}\nnav:\n{nav}", encoding="utf-8")
    return tmp_path


def test_the_build_refuses_what_is_wrong(small: Path) -> None:
    wrong = ("no-such.md", "#no-such-anchor", "../no/such.py", "#no-such-heading")
    links = "\n\n".join(f"[x]({'security.md' * link.endswith('-anchor')}{link})" for link in wrong)
    (small / "docs" / "tutorial.md").write_text(f"# T\n\n{links}\n", encoding="utf-8")
    (small / "docs" / "left-out.md").write_text("# Left out\n", encoding="utf-8")
    done = build(small, small / "out")
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert [what for what in (*wrong, "left-out.md") if what not in said] == []
    assert f"Aborted with {len(wrong) + 1} warnings in strict mode" in said

"""Write the generated pages: `python docs/generate.py`. With `--check` nothing is written; exit 1 when one is stale.

The sources are the registries `include/offload/errors.py` and `include/offload/metrics.py`, the tested cases of
`docs/type_cases.py`, and the record of `make torture`, `tests/torture/record.json`. The page of the table specs has its
own generator, `python -m include.offload.spec.schema`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from docs import reliability_page  # noqa: E402
from docs.error_notes import NOTES  # noqa: E402
from docs.type_cases import types_page  # noqa: E402
from include.offload import errors, metrics  # noqa: E402

HEADER = "<!-- Made by `python docs/generate.py`; do not edit. -->"
GROUPS = {
    "1": "The spec and the settings",
    "2": "The source, ClickHouse",
    "3": "The target, Iceberg and its catalog",
    "4": "The protocol",
    "5": "The ledger and the machine",
}
"""By the first digit of an id."""
WORDS_AFTER_A_COMMAND = ("shows", "names", "lists")
"""A next step may go on after its command: `bin/offload plan TABLE shows both; …`."""


def errors_page() -> str:
    """docs/errors.md."""
    parts = [
        "# Error ids\n",
        HEADER + "\n",
        "Every refusal has an id, names its table and its cause, and ends with the next thing to type. The last lines"
        " of a failed task's log have all of it; `bin/offload errors ID` prints one entry of this page.\n",
        "**Retry** says whether the same task may succeed when it is simply run again. Airflow retries those by itself"
        " and fails the others at once. No refusal leaves half a commit: a plan is in the Iceberg table as a whole, or"
        " not at all ([exactly-once.md](exactly-once.md)).\n",
        "| id | what happened | retry | next |",
        "| --- | --- | --- | --- |",
        *(
            f"| [{k.id}](#{k.id.lower()}) | {k.title} | {'yes' if k.retry else ''} | {_next(k.next_step)} |"
            for k in errors.REGISTRY.values()
        ),
    ]
    group = ""
    for kind in errors.REGISTRY.values():
        digit = kind.id.removeprefix("OFL-")[0]
        if digit != group:
            group = digit
            parts.append(f"\n## {GROUPS[digit]}")
        parts.append(f"\n### {kind.id}\n\n**{kind.title[0].upper()}{kind.title[1:]}.**\n")
        if kind.id in NOTES:
            parts.append(" ".join(NOTES[kind.id].split()) + "\n")
        again = "yes, Airflow does it by itself" if kind.retry else "no, running it again changes nothing"
        parts.append(f"- Next: {_next(kind.next_step)}\n- Retry: {again}")
    return "\n".join(parts) + "\n"


def _next(step: str) -> str:
    """A step as Markdown: a command as code, a sentence as it is."""
    step = step.replace("{table}", "TABLE")
    if not step.startswith("bin/offload"):
        return step
    words = step.split(" ")
    end = next((i for i, word in enumerate(words) if word in WORDS_AFTER_A_COMMAND), len(words))
    return " ".join([f"`{' '.join(words[:end])}`", *words[end:]])


def metrics_page() -> str:
    """docs/metrics.md."""
    return "\n".join(
        [
            "# Metrics\n",
            HEADER + "\n",
            "What the pipeline says of itself, sent over StatsD and served to Prometheus by `statsd_exporter` with"
            " [`monitoring/statsd-mapping.yaml`](../monitoring/statsd-mapping.yaml). Ages, lag and rates are not sent:"
            " a gauge that holds an age freezes when its sender dies. Instants are sent, ages computed from them.\n",
            metrics.markdown(),
        ]
    )


PAGES = {
    "docs/errors.md": errors_page,
    "docs/metrics.md": metrics_page,
    "docs/reliability.md": lambda: reliability_page.page(HEADER),
    "docs/types.md": lambda: types_page(HEADER),
}


def main() -> int:
    """Write or check all pages; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a page is stale")
    check = parser.parse_args().check
    stale = []
    for name, make in PAGES.items():
        path, text = ROOT / name, make()
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not check:
            path.write_text(text, encoding="utf-8")
    for name in stale:
        sys.stdout.write(f"{name} {'is stale: run `python docs/generate.py`' if check else 'written'}\n")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())

"""Looks for secrets where they must not be: in process lists, files, databases, pages and the lake."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

SAMPLE_S = 0.02
"""Between two looks at the process list: a JVM's command line stands for seconds, a shell's for 50 ms."""


def forms(value: str) -> set[bytes]:
    """A secret as it is, as a URI or JSON holds it, and in base64 at each of its three offsets."""
    text = value.encode()
    out = {text, quote(value, safe="").encode(), quote(value).encode()}
    for shift in range(3):
        # a header holds `user:password` in base64: only the digits that do not mix with the neighbours' bytes count
        whole = base64.b64encode(b"\0" * shift + text)
        out.add(whole[-(-shift * 8 // 6) : len(whole) - 4])
    return {f for f in out if len(f) >= 8}


@dataclass
class Canaries:
    """Secrets by name. `find` gives the names of those that are somewhere in a text or a file's bytes."""

    values: Mapping[str, str]
    _forms: dict[str, set[bytes]] = field(init=False)

    def __post_init__(self) -> None:
        self._forms = {name: forms(value) for name, value in self.values.items()}

    def find(self, text: str | bytes) -> set[str]:
        data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
        return {name for name, known in self._forms.items() if any(form in data for form in known)}

    def in_files(self, folder: Path) -> dict[Path, set[str]]:
        """Every file below `folder` that holds one, whatever its format."""
        out = {}
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink():
                try:
                    found = self.find(path.read_bytes())
                except FileNotFoundError:
                    # a temporary file of a server that runs
                    continue
                if found:
                    out[path] = found
        return out


class ProcessWatch:
    """Reads every command line of this machine, again and again, until the block ends."""

    def __init__(self, canaries: Canaries) -> None:
        self._canaries = canaries
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.leaks: dict[str, set[str]] = {}
        self.seen: set[str] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(SAMPLE_S):
            for line in _command_lines():
                if line not in self.seen:
                    self.seen.add(line)
                    if found := self._canaries.find(line):
                        self.leaks[line] = found


def _command_lines() -> Iterable[str]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                yield (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "surrogateescape")
            except OSError:
                continue

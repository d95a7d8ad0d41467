"""Collects, cleans, checks and packs: one tar.gz of mode 0600, written only when no known secret is in it."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from include.offload.errors import BUNDLE_LEAKS, OffloadError
from include.offload.redact import Redactor, known_secrets
from include.offload.settings import Settings
from include.offload.support.collect import COLLECTORS, Collector, Part

MANIFEST = "MANIFEST.txt"
LARGEST = 50 << 20
"""Bytes of text that go in, before compression; what comes later is left out, and the manifest says so."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A bundle. files: name to bytes before compression; missing: what could not be had, and why."""

    path: Path
    bytes: int
    files: dict[str, int]
    missing: tuple[str, ...]
    removed: int
    """How many known secrets were looked for."""


def pack(settings: Settings, out: Path | None = None, collectors: Iterable[Collector] = COLLECTORS) -> Packed:
    """Write the bundle to `out`, else to `offload-support-<instant>.tar.gz` in the working directory.

    Raises OFL-506, and writes nothing, when a known secret would be in it; FileExistsError for a file that is there.
    """
    now = datetime.now(UTC)
    path = out or Path(f"offload-support-{now:%Y%m%dT%H%M%SZ}.tar.gz")
    secrets = known_secrets(settings)
    redactor = Redactor(secrets)
    parts: dict[str, bytes] = {}
    missing: list[str] = []
    room = LARGEST
    for collector in collectors:
        for part in _collected(collector, settings, missing):
            data = redactor.clean(part.text).encode()
            name = redactor.clean(part.name)
            if len(data) > room:
                missing.append(f"{name}: left out, the bundle is full")
                continue
            room -= len(data)
            parts[name] = data
    missing = [redactor.clean(line) for line in missing]
    parts = {MANIFEST: _manifest(now, parts, missing, len(secrets)).encode(), **parts}
    for name, data in parts.items():
        if leaked := redactor.leaks(data) | redactor.leaks(name.encode()):
            raise OffloadError(BUNDLE_LEAKS, f"{name} holds what stands in {', '.join(sorted(leaked))}")
    size = _write(path, parts, now)
    return Packed(path.resolve(), size, {n: len(d) for n, d in parts.items()}, tuple(missing), len(secrets))


def _collected(collector: Collector, settings: Settings, missing: list[str]) -> Iterable[Part]:
    """The parts of one collector; one that fails is named in the manifest: a bundle is made when things are broken."""
    try:
        return list(collector.collect(settings, missing))
    except Exception as error:  # noqa: BLE001 - the bundle says what is missing
        missing.append(f"{collector.name}: {type(error).__name__}: {error}")
        return []


def _manifest(now: datetime, parts: dict[str, bytes], missing: list[str], secrets: int) -> str:
    lines = [
        f"Support bundle of clickhouse-iceberg-offload, made {now:%Y-%m-%dT%H:%M:%SZ}.",
        f"{secrets} secrets that this installation knows, and what looks like one, were replaced by [removed].",
        "Table names, column names, host names and error texts are in it. Rows of tables are not, but single"
        " values are: the ledger's plans hold instants, and for identity partitions values of the column.",
        "",
        *(f"{len(data):>10}  {name}" for name, data in parts.items()),
        "",
        *(["Missing:", *(f"  {line}" for line in missing)] if missing else ["Nothing is missing."]),
    ]
    return "\n".join(lines) + "\n"


def _write(path: Path, parts: dict[str, bytes], now: datetime) -> int:
    """The size of the file. It is its owner's alone from the first byte on."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        # no file name and no owner in the headers
        with gzip.GzipFile("", "wb", fileobj=file) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
            for name, data in parts.items():
                info = tarfile.TarInfo(f"offload-support/{name}")
                info.size, info.mtime, info.mode = len(data), int(now.timestamp()), 0o600
                tar.addfile(info, io.BytesIO(data))
        return file.tell()

"""What the manifest of a support bundle promises."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from include.offload.settings import load
from include.offload.support import pack
from include.offload.support.collect import Collector, Part


def test_the_manifest_owns_up_to_values_of_columns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OFFLOAD_HOME", str(tmp_path))
    plans = Collector("ledger", lambda *_: [Part("ledger/plan_documents.json", '[{"partition": {"symbol": "BTC"}}]')])
    packed = pack(load(), tmp_path / "b.tar.gz", [plans])
    with tarfile.open(packed.path) as tar:
        file = tar.extractfile("offload-support/MANIFEST.txt")
        assert file is not None
        said = file.read().decode()
    assert "for identity partitions values of the column" in said
    assert "rows of tables are not." not in said

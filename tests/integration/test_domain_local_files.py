"""A trial without object store and catalog server: deploy/catalogs/local-files.yaml, two runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table.snapshots import Operation

from include.offload.settings import ROOT, load
from tests.support.domain import MakeDomainTable

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The example as this process finds it, in a directory of its own."""
    document = yaml.safe_load((ROOT / "deploy" / "catalogs" / "local-files.yaml").read_text())
    lake = document["catalog"]["lake"]
    assert lake["uri"].startswith("sqlite:////")
    assert lake["warehouse"].startswith("file:///")
    lake |= {"uri": f"sqlite:///{tmp_path}/catalog.db", "warehouse": f"file://{tmp_path}/warehouse"}
    (tmp_path / ".pyiceberg.yaml").write_text(yaml.safe_dump(document))
    monkeypatch.setenv("PYICEBERG_HOME", str(tmp_path))
    return tmp_path


def test_a_directory_is_lake_enough(trial: Path, table: MakeDomainTable) -> None:
    t = table(settings=load())
    t.unverifiable = "ClickHouse may not read the directory, which goes with this test"
    assert isinstance(t.ctx.catalog, SqlCatalog)
    t.fill(0, 1, 2)
    assert t.run().rows == 30
    assert t.lake().location().startswith(f"file://{trial}/warehouse/")
    t.insert(1, rows=2)
    assert t.run().rows == 12
    assert t.operations() == [Operation.APPEND, Operation.OVERWRITE]
    assert t.lake_ids() == t.source_ids()
    assert list(trial.rglob("*.parquet"))
    # PyIceberg alone: the stack's ClickHouse may read no files of this machine
    assert len(t.lake_ids()) == 32
    t.consistent()

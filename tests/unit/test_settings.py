"""Where settings come from, which source wins, and that no secret shows."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from include.offload.errors import SETTING_MISSING, OffloadError
from include.offload.settings import ROOT, Settings, home, load

PASSWORD = "hunter2-and-more"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home of its own and no setting from outside; the secrets directory."""
    for name in [n for n in os.environ if n.startswith(("OFFLOAD_", "PYICEBERG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OFFLOAD_HOME", str(tmp_path))
    # so that what `load` sets is taken back
    monkeypatch.setenv("PYICEBERG_HOME", "")
    monkeypatch.delenv("PYICEBERG_HOME")
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    return secrets


def uri(where: str) -> str:
    return f"postgresql://offload:{PASSWORD}@{where}:5432/offload"


def test_each_source_wins_over_the_next(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clean: Path) -> None:
    """Keyword, environment, the file of OFFLOAD_SECRETS_FILE, one file a setting in the secrets directory."""
    with pytest.raises(OffloadError) as refused:
        load().ledger()
    assert refused.value.kind is SETTING_MISSING

    (clean / "offload_ledger_uri").write_text(uri("directory") + "\n")
    assert load().ledger() == uri("directory")

    dotenv = tmp_path / "job.env"
    dotenv.write_text(f"OFFLOAD_LEDGER_URI={uri('file')}\n")
    monkeypatch.setenv("OFFLOAD_SECRETS_FILE", str(dotenv))
    assert load().ledger() == uri("file")

    monkeypatch.setenv("OFFLOAD_LEDGER_URI", uri("environment"))
    assert load().ledger() == uri("environment")

    assert load(ledger_uri=uri("keyword")).ledger() == uri("keyword")


def test_sources_mix_setting_by_setting(monkeypatch: pytest.MonkeyPatch, clean: Path) -> None:
    (clean / "offload_ledger_uri").write_text(uri("directory"))
    (clean / "offload_statsd_port").write_text("9125\n")
    monkeypatch.setenv("OFFLOAD_CATALOG", "lake_sql")
    settings = load()
    assert (settings.ledger(), settings.statsd_port, settings.catalog) == (uri("directory"), 9125, "lake_sql")


def test_defaults_need_no_secrets_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OFFLOAD_HOME", str(tmp_path / "nowhere"))
    settings = load()
    assert (settings.catalog, settings.statsd_port, settings.tables) == ("lake", None, ROOT / "dags" / "tables")


def test_a_value_with_an_equals_sign_a_hash_and_quotes_survives_the_secrets_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    value = "http://offload:a=b%23c%27@127.0.0.1:8123/"
    dotenv = tmp_path / "job.env"
    dotenv.write_text(f"OFFLOAD_CLICKHOUSE_URI='{value}'\n")
    monkeypatch.setenv("OFFLOAD_SECRETS_FILE", str(dotenv))
    assert load().clickhouse_uris() == (value,)


def test_what_is_not_ours_in_the_secrets_file_is_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    dotenv = tmp_path / "job.env"
    dotenv.write_text("OFFLOAD_OF_TOMORROW=1\nAWS_SECRET_ACCESS_KEY=x\n")
    monkeypatch.setenv("OFFLOAD_SECRETS_FILE", str(dotenv))
    load()


def test_replicas_are_separated_by_commas() -> None:
    settings = load(clickhouse_uri="http://a:1/, http://b:2/ ,")
    assert settings.clickhouse_uris() == ("http://a:1/", "http://b:2/")


@pytest.mark.parametrize("show", [repr, str, lambda s: s.model_dump_json(), lambda s: str(s.model_dump())])
def test_no_secret_shows(show: object) -> None:
    settings = load(ledger_uri=uri("h"), clickhouse_uri=f"http://offload:{PASSWORD}@h/")
    text = show(settings)  # type: ignore[operator]
    assert PASSWORD not in text
    assert "ledger_uri" in text


@pytest.mark.parametrize("name", ["ledger_uri", "clickhouse_uri"])
def test_a_missing_setting_is_refused_with_the_places_to_put_it(name: str, clean: Path) -> None:
    settings = load()
    with pytest.raises(OffloadError) as refused:
        settings.ledger() if name == "ledger_uri" else settings.clickhouse_uris()
    assert refused.value.kind is SETTING_MISSING
    assert f"OFFLOAD_{name.upper()}" in str(refused.value)
    assert str(clean) in str(refused.value)


def test_settings_do_not_change_once_they_are_read() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().catalog = "other"  # type: ignore[misc]


def test_pyiceberg_is_pointed_at_the_same_secrets_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, clean: Path
) -> None:
    load()
    assert os.environ["PYICEBERG_HOME"] == str(clean)
    monkeypatch.setenv("PYICEBERG_HOME", "/elsewhere")
    load()
    assert os.environ["PYICEBERG_HOME"] == "/elsewhere"


def test_home_is_beside_the_code_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert home() == tmp_path
    for value in ("", None):
        if value is None:
            monkeypatch.delenv("OFFLOAD_HOME")
        else:
            monkeypatch.setenv("OFFLOAD_HOME", value)
        assert home() == ROOT / ".run"


@pytest.mark.parametrize("seconds", ["59", "soon"])
def test_a_job_time_out_that_is_no_time_out_is_refused(monkeypatch: pytest.MonkeyPatch, seconds: str) -> None:
    monkeypatch.setenv("OFFLOAD_JOB_TIMEOUT_S", seconds)
    with pytest.raises(ValueError, match="job_timeout_s"):
        load()
    assert Settings(job_timeout_s=60).job_timeout_s == 60

"""Where the servers are: one settings object for Airflow tasks, the Spark job and the command line.

Order of precedence: keyword, environment (`OFFLOAD_*`), the 0600 file named by `OFFLOAD_SECRETS_FILE`
(dotenv format, how a Spark job gets its secrets), then one file a setting in `$OFFLOAD_HOME/secrets/`.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from include.offload.errors import SETTING_MISSING, OffloadError
from include.offload.runbooks import FOLDER

ROOT = Path(__file__).resolve().parents[2]
TLS_FILES = ("ca_cert", "client_cert", "client_cert_key")
"""What a ClickHouse URI or connection may say beside `verify`: paths of PEM files, by clickhouse-connect's names."""


def home() -> Path:
    """The state directory of this installation: `OFFLOAD_HOME`, else `.run/` beside the code."""
    return Path(os.environ.get("OFFLOAD_HOME") or ROOT / ".run").resolve()


class Settings(BaseSettings):
    """Connections and limits. Secret parts never show in `repr` or logs.

    clickhouse_uri: `http[s]://user:password@host:port/[?ca_cert=…]` or several, comma-separated, one a replica.
    clickhouse_guard_uri: the same servers with a user that may do nothing but `SYSTEM TTL MERGES`; only tables with
    `ttl_guard: stop` need it.
    clickhouse_view_uri: the same servers with a user that may create views; only `bin/offload view --apply` needs it.
    watermark_uri: another pipeline's PostgreSQL, as `ledger_uri`; only `bin/offload adopt --watermark-from` reads it.
    airflow_url, metrics_url, prometheus_url, alertmanager_url: `http[s]://[user:password@]host:port`, asked by `health`
    and `alerts`; empty or missing: there is none. metrics_url is that of statsd_exporter.
    ledger_uri: `postgresql://user:password@host:port/offload[?sslmode=verify-full&sslrootcert=…]`.
    catalog: the name of the catalog in PyIceberg's own configuration (`.pyiceberg.yaml`, found through
    `PYICEBERG_HOME`, which defaults to the secrets directory).
    """

    model_config = SettingsConfigDict(env_prefix="OFFLOAD_", extra="ignore", frozen=True)

    clickhouse_uri: SecretStr | None = None
    ledger_uri: SecretStr | None = None
    catalog: str = "lake"
    statsd_host: str = "127.0.0.1"
    statsd_port: int | None = None
    airflow_url: SecretStr | None = None
    metrics_url: SecretStr | None = None
    prometheus_url: SecretStr | None = None
    alertmanager_url: SecretStr | None = None
    tables: Path = ROOT / "dags" / "tables"
    env: str | None = Field(default=None, description="name of the spec overlay")
    clickhouse_guard_uri: SecretStr | None = None
    clickhouse_view_uri: SecretStr | None = None
    watermark_uri: SecretStr | None = None
    survey_every_s: int = Field(
        default=3600, ge=0, description="how often windows older than the horizon are counted, seconds"
    )
    job_timeout_s: int = Field(default=3600, ge=60, description="the longest an offload job may run, seconds")
    iceberg_jars: str = Field(
        default="", description="jars of Iceberg's runtime for maintenance, comma-separated; empty: Spark has them"
    )
    notify: str = Field(default="", description="Airflow connections that are told of a failed task, comma-separated")
    runbooks_url: str = Field(default=FOLDER, description="where the runbooks are read: a URL, or a folder")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, dotenv_settings, file_secret_settings

    def clickhouse_uris(self) -> tuple[str, ...]:
        """One URI a replica. Raises OFL-102 when none is configured."""
        return _listed(self._require("clickhouse_uri"))

    def ledger(self) -> str:
        """The ledger's URI. Raises OFL-102 when it is not configured."""
        return self._require("ledger_uri")

    def guard_uris(self) -> tuple[str, ...]:
        """One URI a replica, of a user that may stop and start TTL merges. Raises OFL-102 when none is configured."""
        return _listed(self._require("clickhouse_guard_uri"))

    def view_uris(self) -> tuple[str, ...]:
        """One URI a replica, of a user that may create views. Raises OFL-102 when none is configured."""
        return _listed(self._require("clickhouse_view_uri"))

    def jars(self) -> tuple[str, ...]:
        """Paths or URLs of the jars that a maintenance job takes along."""
        return _listed(self.iceberg_jars)

    def watermark(self) -> str:
        """The URI of another pipeline's PostgreSQL. Raises OFL-102 when it is not configured."""
        return self._require("watermark_uri")

    def channels(self) -> tuple[str, ...]:
        """The ids of the Airflow connections that are told of a failed task."""
        return tuple(dict.fromkeys(_listed(self.notify)))

    def server(self, name: str) -> str | None:
        """The address of `airflow`, `metrics`, `prometheus` or `alertmanager`; None when there is none."""
        value: SecretStr | None = getattr(self, f"{name}_url")
        return (value.get_secret_value().strip().rstrip("/") or None) if value is not None else None

    def required_server(self, name: str) -> str:
        """The same. Raises OFL-102 when there is none."""
        return self.server(name) or self._require(f"{name}_url")

    def _require(self, name: str) -> str:
        value = getattr(self, name)
        if value is None or not str(value.get_secret_value()).strip():
            raise OffloadError(
                SETTING_MISSING,
                f"neither OFFLOAD_{name.upper()} nor {home() / 'secrets' / name} is set",
            )
        return str(value.get_secret_value())


def _listed(text: str) -> tuple[str, ...]:
    """The parts of a comma-separated list that are not empty."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def load(**overrides: object) -> Settings:
    """The settings of this process, and PyIceberg pointed at the same secrets directory."""
    secrets = home() / "secrets"
    os.environ.setdefault("PYICEBERG_HOME", str(secrets))
    return Settings(
        _env_file=os.environ.get("OFFLOAD_SECRETS_FILE"),
        _secrets_dir=secrets if secrets.is_dir() else None,
        **overrides,  # type: ignore[arg-type]
    )

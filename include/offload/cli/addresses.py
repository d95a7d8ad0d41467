"""Where ClickHouse and the ledger are for Airflow, and where for this command line: two settings that can differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from include.offload.settings import Settings
    from include.offload.spec.model import TableSpec

SAME, OTHER, ELSEWHERE = "the same", "another address", "not in Airflow's database"
PORTS = {"clickhouse": 8123, "clickhouse over TLS": 8443, "http": 8123, "https": 8443, "postgres": 5432}
"""What Airflow's tasks assume where a connection names no port."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A connection on both sides. `movable`: it leads elsewhere, and is simple enough to be changed by a command."""

    connection: str
    airflow: str | None
    here: str
    verdict: str
    movable: bool


@dataclass(frozen=True, slots=True)
class Address:
    """What the command line uses in place of an Airflow connection. `several`: it names replicas."""

    connection: str
    host: str
    port: int
    several: bool = False

    def beside(self, found: Mapping[str, Any] | None) -> Compared:
        """Compared with Airflow's; None: a variable or a secrets backend holds it, which Airflow does not show."""
        here = f"{self.host}:{self.port}" + (" and more" if self.several else "")
        if found is None:
            return Compared(self.connection, None, here, ELSEWHERE, False)
        kind, extra = str(found.get("conn_type")), str(found.get("extra") or "")
        port = found.get("port") or PORTS.get("clickhouse over TLS" if '"secure"' in extra else kind, 0)
        theirs = f"{found.get('host') or '-'}:{port}"
        replicas = '"replicas"' in extra or self.several
        same = theirs == f"{self.host}:{self.port}" and not replicas
        verdict = "names replicas" if replicas else SAME if same else OTHER
        return Compared(self.connection, theirs, here, verdict, not (same or replicas))


def used_here(settings: Settings, spec: TableSpec) -> tuple[Address, ...]:
    """The addresses of ClickHouse and the ledger. Raises OFL-102."""
    from include.offload.source.client import parse_uri

    replicas = [parse_uri(uri) for uri in settings.clickhouse_uris()]
    ledger = urlsplit(settings.ledger())
    return (
        Address(spec.connections.clickhouse, replicas[0].host, replicas[0].port, len(replicas) > 1),
        Address(spec.connections.ledger, ledger.hostname or "", ledger.port or PORTS["postgres"]),
    )

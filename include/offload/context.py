"""What every step needs at hand: settings, ledger, catalog; opened when first used."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from functools import cached_property

from pyiceberg.catalog import Catalog

from include.offload.errors import SOURCE_UNREACHABLE, OffloadError
from include.offload.lake.catalog import open_catalog
from include.offload.ledger import Ledger
from include.offload.metrics import Metrics
from include.offload.settings import Settings
from include.offload.source.client import WHOLE_ANSWER, Client, Endpoint, parse_uri
from include.offload.spec.model import TableSpec


@dataclass
class Context:
    """The servers of one process."""

    settings: Settings

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger(self.settings.ledger())

    @cached_property
    def catalog(self) -> Catalog:
        return open_catalog(self.settings.catalog)

    @cached_property
    def metrics(self) -> Metrics:
        return Metrics(self.settings)

    @cached_property
    def pipeline(self) -> uuid.UUID:
        return self.ledger.pipeline()

    def close(self) -> None:
        """Close what was opened; the context opens it again when asked."""
        for name in ("ledger", "catalog", "metrics"):
            opened = self.__dict__.pop(name, None)
            if opened is not None:
                opened.close()

    def endpoints(self, spec: TableSpec) -> tuple[Endpoint, ...]:
        """The replicas in the order this table tries them: tables spread over all of them (rule 11)."""
        found = [parse_uri(uri) for uri in self.settings.clickhouse_uris()]
        first = uuid.uuid5(uuid.NAMESPACE_OID, spec.identity).int % len(found)
        return tuple(found[first:] + found[:first])

    def endpoint(self, spec: TableSpec, replica: str) -> Endpoint:
        """The replica that a plan pinned. Raises OFL-201 when it is no longer configured."""
        for endpoint in self.endpoints(spec):
            if endpoint.name == replica:
                return endpoint
        raise OffloadError(
            SOURCE_UNREACHABLE, f"the plan pinned replica {replica}, which is not configured", table=spec.identity
        )

    def connect(self, spec: TableSpec, comment: str, replica: str | None = None) -> Client:
        """A client of the pinned replica, else of the first that answers. Raises OFL-201 when none does."""
        endpoints = self.endpoints(spec) if replica is None else (self.endpoint(spec, replica),)
        failures: list[OffloadError] = []
        for endpoint in endpoints:
            try:
                return Client(endpoint, settings=limits(spec), comment=comment, table=spec.identity)
            except OffloadError as error:
                if error.kind is not SOURCE_UNREACHABLE:
                    raise
                failures.append(error)
        raise (
            failures[0]
            if len(failures) == 1
            else OffloadError(SOURCE_UNREACHABLE, "; ".join(f.cause for f in failures), table=spec.identity)
        )


def limits(spec: TableSpec) -> dict[str, object]:
    """The ClickHouse settings that bound every query of a table, and forbid half an answer."""
    return {
        **WHOLE_ANSWER,
        "max_threads": spec.source.limits.threads,
        "max_memory_usage": spec.source.limits.memory,
        "max_execution_time": spec.source.limits.timeout_s,
    }


def open_context(settings: Settings) -> Context:
    """A context; nothing is opened yet."""
    return Context(settings)

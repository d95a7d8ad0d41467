"""Every example in deploy/catalogs/ opens, and what it sends is what the catalog's documentation asks for.

PyIceberg's own loader and catalog classes read the file; only the host is replaced, by a server in this process that
speaks as much of Iceberg's REST protocol, or of Glue's, as opening a table needs. No catalog itself was asked.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.glue import GlueCatalog
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC
from pyiceberg.schema import Schema
from pyiceberg.table.metadata import new_table_metadata
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER
from pyiceberg.types import LongType, NestedField
from pyspark.cloudpickle import dumps

from include.offload.lake.catalog import open_catalog
from include.offload.settings import ROOT

EXAMPLES = ROOT / "deploy" / "catalogs"
LOGIN = "Bearer the-token"
VENDED = {"s3.access-key-id": "vended-id", "s3.secret-access-key": "vended-secret", "s3.session-token": "vended-token"}
PREFIX = "of/this%7Cwarehouse"


@dataclass(frozen=True)
class Request:
    """What a catalog was asked."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: str


@dataclass
class Fake:
    """A server that knows one table. `asked`: all requests, in order."""

    port: int = 0
    asked: list[Request] = field(default_factory=list)

    def only(self, path: str) -> Request:
        (found,) = [r for r in self.asked if r.path == path]
        return found


def _metadata() -> dict[str, Any]:
    made = new_table_metadata(
        Schema(NestedField(1, "id", LongType(), required=True)),
        UNPARTITIONED_PARTITION_SPEC,
        UNSORTED_SORT_ORDER,
        "s3://example-bucket/k2/trades",
        {"format-version": "2"},
    )
    found: dict[str, Any] = json.loads(made.model_dump_json())
    return found


def _answer(request: Request) -> dict[str, Any] | None:
    if request.path.endswith(("/tokens", "/token")):
        return {"access_token": "the-token", "token_type": "bearer", "expires_in": 3600}
    if request.headers.get("x-amz-target") == "AWSGlue.GetDatabases":
        return {"DatabaseList": [{"Name": "k2"}]}
    if request.path.endswith("/v1/config"):
        return {"defaults": {}, "overrides": {"prefix": PREFIX}}
    if request.path.endswith(f"/v1/{PREFIX}/namespaces"):
        return {"namespaces": [["k2"]]}
    if request.path.endswith(f"/v1/{PREFIX}/namespaces/k2/tables/trades"):
        return {
            "metadata-location": "s3://example-bucket/k2/trades/metadata/0.json",
            "metadata": _metadata(),
            "config": VENDED,
        }
    return None


@contextmanager
def _serving() -> Iterator[Fake]:
    fake = Fake()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            request = Request(
                self.command,
                parts.path,
                parse_qs(parts.query),
                {k.lower(): v for k, v in self.headers.items()},
                self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode(),
            )
            fake.asked.append(request)
            found = _answer(request)
            text = json.dumps(found or {"error": {"message": "no such thing", "type": "NoSuch", "code": 404}}).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_POST = do_GET  # noqa: N815 - http.server's name

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the test's output is its own."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        fake.port = server.server_address[1]
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield fake
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def fake() -> Iterator[Fake]:
    with _serving() as server:
        yield server


Open = Callable[[str], Catalog]


@pytest.fixture
def opened(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Opens an example as the offload does, its hosts replaced by the fake's."""
    monkeypatch.setenv("PYICEBERG_HOME", str(tmp_path))
    for name, value in {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "wJalrEXAMPLE"}.items():
        monkeypatch.setenv(name, value)
    # neither a profile of this machine nor its metadata service
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    here = f"http://127.0.0.1:{fake.port}"

    def open_it(name: str) -> Catalog:
        document = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())
        lake = document["catalog"]["lake"]
        for key in ("uri", "oauth2-server-uri"):
            if str(lake.get(key, "")).startswith("https://"):
                lake[key] = here + urlsplit(lake[key]).path
        if lake["type"] == "glue":
            lake["glue.endpoint"] = here
        if lake["type"] == "sql":
            lake |= {"uri": f"sqlite:///{tmp_path}/catalog.db", "warehouse": f"file://{tmp_path}/warehouse"}
        (tmp_path / ".pyiceberg.yaml").write_text(yaml.safe_dump(document))
        return open_catalog("lake")

    return open_it


KINDS = {
    "glue": GlueCatalog,
    "s3-tables": RestCatalog,
    "polaris": RestCatalog,
    "nessie": RestCatalog,
    "unity": RestCatalog,
    "lakekeeper": RestCatalog,
    "local-files": SqlCatalog,
}


def test_every_example_is_tested() -> None:
    assert {p.stem for p in EXAMPLES.glob("*")} == set(KINDS)


@pytest.mark.parametrize("name", sorted(KINDS))
def test_an_example_opens_as_the_catalog_it_is_for(name: str, opened: Open) -> None:
    catalog = opened(name)
    assert type(catalog) is KINDS[name]
    assert catalog.name == "lake"


@pytest.mark.parametrize(
    ("name", "base", "warehouse", "token_path", "scope"),
    [
        ("polaris", "/api/catalog", "example_catalog", "/api/catalog/v1/oauth/tokens", "PRINCIPAL_ROLE:ALL"),
        ("nessie", "/iceberg/main", "warehouse", "/realms/lake/protocol/openid-connect/token", "openid"),
        ("unity", "/api/2.1/unity-catalog/iceberg-rest", "example_catalog", "/oidc/v1/token", "all-apis"),
        (
            "lakekeeper",
            "/catalog",
            "example_warehouse",
            "/realms/iceberg/protocol/openid-connect/token",
            "lakekeeper",
        ),
    ],
)
def test_a_rest_catalog_is_asked_for_its_warehouse_with_a_token(
    name: str, base: str, warehouse: str, token_path: str, scope: str, opened: Open, fake: Fake
) -> None:
    assert opened(name).list_namespaces() == [("k2",)]
    form = parse_qs([r for r in fake.asked if r.path == token_path][0].body)
    assert form["grant_type"] == ["client_credentials"]
    assert (form["client_id"], form["client_secret"]) == (["client-id"], ["client-secret"])
    assert form["scope"] == [scope]
    asked = fake.only(f"{base}/v1/config")
    assert asked.query == {"warehouse": [warehouse]}
    assert asked.headers["authorization"] == LOGIN
    # the prefix that the catalog answered with stands in every later request, as it was given
    assert fake.only(f"{base}/v1/{PREFIX}/namespaces").headers["authorization"] == LOGIN


def test_s3_tables_are_asked_with_signed_requests(opened: Open, fake: Fake) -> None:
    assert opened("s3-tables").list_namespaces() == [("k2",)]
    asked = fake.only("/iceberg/v1/config")
    assert asked.query == {"warehouse": ["arn:aws:s3tables:eu-central-1:111122223333:bucket/example-bucket"]}
    for request in (asked, fake.only(f"/iceberg/v1/{PREFIX}/namespaces")):
        signed = request.headers["authorization"]
        assert signed.startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")
        assert "/eu-central-1/s3tables/aws4_request" in signed


def test_glue_is_asked_for_this_account(opened: Open, fake: Fake) -> None:
    assert opened("glue").list_namespaces() == [("k2",)]
    (asked,) = fake.asked
    assert asked.headers["x-amz-target"] == "AWSGlue.GetDatabases"
    assert "/eu-central-1/glue/aws4_request" in asked.headers["authorization"]
    assert json.loads(asked.body)["CatalogId"] == "111122223333"


@pytest.mark.parametrize("name", sorted(n for n, kind in KINDS.items() if kind is RestCatalog))
def test_credentials_that_a_catalog_vends_reach_spark_s_workers(name: str, opened: Open) -> None:
    """Tasks get the table's properties as Spark sends them: pickled, with whatever object the catalog keeps in them."""
    table = opened(name).load_table(("k2", "trades"))
    sent = pickle.loads(dumps(dict(table.io.properties)))  # noqa: S301 - our own bytes
    assert {k: sent[k] for k in VENDED} == VENDED
    assert sent["s3.region"] == "eu-central-1"

"""Rule 11: which replica an attempt reads. The questions go to a real engine; who answers them is the test's to say."""

from __future__ import annotations

import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Self

import pytest

from include.offload.context import Context
from include.offload.errors import REPLICA_LAGS, SOURCE_REFUSED_LOGIN, SOURCE_UNREACHABLE, OffloadError
from include.offload.model import Plan, Projection, Target
from include.offload.replicas import check_lag, standing_in
from include.offload.settings import load
from include.offload.source.client import Endpoint, parse_uri
from include.offload.source.describe import describe
from include.offload.spec.model import TableSpec
from include.offload.windows import Span
from tests.support.chdb_engine import Engine

THREE = "http://u:p@one:1/,http://u:p@two:2/,http://u:p@three:3/"
AWAY = OffloadError(SOURCE_UNREACHABLE, "nobody there")


def spec(identity: str = "rep.t") -> TableSpec:
    return TableSpec.model_validate({"identity": identity, "cursor": "ts", "settle": "2s"})


@dataclass
class Asked:
    """The engine as a client of one replica. The engine has no replicated tables: it is told how far it is behind."""

    engine: Engine
    endpoint: Endpoint
    lag_s: int = 0

    def query(self, sql: str, params: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        told = sql.replace(
            "max(absolute_delay) FROM system.replicas", f"max(toUInt64({self.lag_s})) FROM system.tables"
        )
        return self.engine.query(told, params)

    def close(self) -> None:
        """Nothing is open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""


@dataclass
class Replicas(Context):
    """Replicas that answer, or refuse, as the test says, by name."""

    engine: Engine = field(kw_only=True)
    refusals: dict[str, OffloadError] = field(default_factory=dict)
    lags_s: dict[str, int] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def connect(self, spec: TableSpec, comment: str, replica: str | None = None) -> Any:
        endpoint = self.endpoint(spec, str(replica))
        self.asked.append(endpoint.name)
        if endpoint.name in self.refusals:
            raise self.refusals[endpoint.name]
        return Asked(self.engine, endpoint, self.lags_s.get(endpoint.name, 0))


@pytest.fixture(scope="module")
def tables(engine: Engine) -> Engine:
    """The engine, with the table."""
    engine.raw("CREATE DATABASE IF NOT EXISTS rep")
    engine.raw("CREATE TABLE rep.t (ts DateTime64(6, 'UTC')) ENGINE = MergeTree ORDER BY ts")
    return engine


@pytest.fixture
def replicas(tables: Engine) -> Replicas:
    return Replicas(load(clickhouse_uri=THREE), engine=tables)


def order(replicas: Replicas) -> list[str]:
    """The replicas in the order in which `rep.t` tries them."""
    return [e.name for e in replicas.endpoints(spec())]


def plan(replicas: Replicas, replica: str | None = None, identity: str | None = None) -> Plan:
    found = describe(replicas.engine, "rep", "t").identity
    return Plan(
        plan_id=uuid.uuid4(), pipeline=uuid.uuid4(), table="rep.t", run_id="r", generation=1, predecessor=None,
        source_identity=identity or found, replica=replica or order(replicas)[0],
        target=Target("n", "t", None, None, None), projection=Projection((), ""), partition=(), sort=(), cursor="ts",
        cursor_type="DateTime64(6, 'UTC')", width_us=10, append=(Span(0, 10),), scan=Span(0, 10), windows=(), slices=(),
        origin_us=0, watermark_before=None, watermark_after=10, max_sequence=None, spec_json="{}", created_us=0,
    )  # fmt: skip


def test_tables_are_spread_over_the_replicas_and_each_keeps_its_order(replicas: Replicas) -> None:
    orders = {f"k2.t{i}": tuple(e.name for e in replicas.endpoints(spec(f"k2.t{i}"))) for i in range(300)}
    first = Counter(names[0] for names in orders.values())
    assert len(first) == 3
    assert all(60 < count < 140 for count in first.values()), first
    assert all(set(names) == {"one:1", "two:2", "three:3"} for names in orders.values())
    again = Replicas(load(clickhouse_uri=THREE), engine=replicas.engine)
    assert all(tuple(e.name for e in again.endpoints(spec(name))) == names for name, names in orders.items())


def test_the_pinned_replica_is_read_while_it_answers(replicas: Replicas) -> None:
    pinned = plan(replicas)
    assert standing_in(replicas, spec(), pinned) is pinned
    assert replicas.asked == [pinned.replica]


def test_of_one_replica_nothing_is_asked(tables: Engine) -> None:
    """The usual case pays for none of this."""
    alone = Replicas(load(clickhouse_uri="http://u:p@one:1/"), engine=tables, refusals={"one:1": AWAY})
    pinned = plan(alone)
    assert standing_in(alone, spec(), pinned) is pinned
    assert alone.asked == []


def test_another_stands_in_while_the_pinned_one_is_away(replicas: Replicas) -> None:
    first, second, _ = order(replicas)
    pinned = plan(replicas)
    replicas.refusals = {first: AWAY}
    found = standing_in(replicas, spec(), pinned)
    assert found.replica == second
    assert found.plan_id == pinned.plan_id
    assert pinned.replica == first, "the frozen plan stays as it is"


def test_one_that_lags_more_than_settle_is_passed_over(replicas: Replicas) -> None:
    first, second, third = order(replicas)
    replicas.refusals = {first: AWAY}
    replicas.lags_s = {second: 3, third: 2}
    assert standing_in(replicas, spec(), plan(replicas)).replica == third


def test_none_fits_and_each_says_why(replicas: Replicas) -> None:
    first, second, third = order(replicas)
    replicas.refusals = {first: AWAY, third: OffloadError(SOURCE_UNREACHABLE, "nor here")}
    replicas.lags_s = {second: 3}
    with pytest.raises(OffloadError) as refused:
        standing_in(replicas, spec(), plan(replicas))
    assert refused.value.kind is SOURCE_UNREACHABLE
    assert refused.value.kind.retry
    assert refused.value.cause == f"nobody there; {second} is 3 s behind, settle is 2 s; nor here"


def test_a_server_with_another_table_of_that_name_is_no_replica(replicas: Replicas) -> None:
    replicas.refusals = {order(replicas)[0]: AWAY}
    with pytest.raises(OffloadError, match="holds another table, uuid:") as refused:
        standing_in(replicas, spec(), plan(replicas, identity="uuid:of-the-one-that-is-away"))
    assert refused.value.kind is SOURCE_UNREACHABLE


def test_a_refusal_that_is_none_of_the_network_is_not_gone_around(replicas: Replicas) -> None:
    """A wrong password would lock the account on every replica."""
    pinned = plan(replicas)
    replicas.refusals = {pinned.replica: OffloadError(SOURCE_REFUSED_LOGIN, "wrong password")}
    with pytest.raises(OffloadError, match="wrong password"):
        standing_in(replicas, spec(), pinned)
    assert replicas.asked == [pinned.replica]


def test_a_replica_that_left_the_configuration_is_not_replaced(replicas: Replicas) -> None:
    pinned = plan(replicas, "gone:9")
    assert standing_in(replicas, spec(), pinned) is pinned
    assert replicas.asked == []


@pytest.mark.parametrize(("lag_s", "refused"), [(0, False), (2, False), (3, True)])
def test_how_far_a_replica_may_be_behind(tables: Engine, lag_s: int, refused: bool) -> None:
    client: Any = Asked(tables, parse_uri("http://u:p@one:1/"), lag_s)
    if not refused:
        assert check_lag(client, spec()) == lag_s
        return
    with pytest.raises(OffloadError) as error:
        check_lag(client, spec())
    assert error.value.kind is REPLICA_LAGS

"""Verification as a habit: what is recorded, what is an alarm and what is none, and that every window has its turn."""

from __future__ import annotations

import socket

import pytest

from include.offload import sampling
from include.offload import verify as verifying
from include.offload.errors import VERIFY_FAILED, OffloadError
from include.offload.ledger import verified
from include.offload.ledger.verified import Candidate, Verification
from include.offload.sampling import must_be_equal, rounds, verify_sample
from include.offload.settings import load
from include.offload.verify import verify
from include.offload.windows import Span
from tests.integration.test_cli_repair import append_again, known, repair
from tests.integration.test_domain_findings import fates
from tests.integration.test_domain_metrics import receiver, told
from tests.support.domain import DomainTable, MakeDomainTable

__all__ = ["receiver"]
pytestmark = pytest.mark.timeout(300)
FULL = "verify: {sample: full}\n"


def seen(t: DomainTable) -> list[Candidate]:
    head = t.ctx.ledger.head(t.identity)
    assert head is not None
    return verified.candidates(t.ctx.ledger, head.table_id)


def results(t: DomainTable) -> list[bool | None]:
    """Of each shipped window, in order: was it equal; None when it was not verified since it was shipped."""
    return [c.equal for c in seen(t)]


def last(t: DomainTable) -> Verification:
    head = t.ctx.ledger.head(t.identity)
    assert head is not None
    return verified.verifications(t.ctx.ledger, head.table_id)[0]


def test_a_sound_table_is_recorded_window_by_window(table: MakeDomainTable, receiver: socket.socket) -> None:
    t = table(FULL, settings=load(statsd_port=receiver.getsockname()[1]))
    assert verify_sample(t.ctx, t.spec) is None, "nothing was offloaded yet"
    t.fill(0, 1, 5)
    t.run()
    assert results(t) == [None, None, None]
    report = verify_sample(t.ctx, t.spec)
    assert report is not None
    must_be_equal(report)
    assert results(t) == [True, True, True]
    assert (last(t).windows, last(t).differing, last(t).equal) == (3, 0, True)
    sent = told(receiver, t.identity)
    assert sent["offload_verify_mismatched_windows"] == 0
    assert sent["offload_verify_last_timestamp"] > 1.7e9


def test_a_spoiled_window_is_known_until_it_was_repaired(table: MakeDomainTable, receiver: socket.socket) -> None:
    t = table(FULL, settings=load(statsd_port=receiver.getsockname()[1])).fill(0, 1, 2)
    t.run()
    append_again(t, [11, 12])
    report = verify_sample(t.ctx, t.spec)
    assert report is not None
    with pytest.raises(OffloadError) as refused:
        must_be_equal(report)
    assert refused.value.kind is VERIFY_FAILED
    assert results(t) == [True, False, True]
    assert (last(t).windows, last(t).differing, last(t).equal) == (3, 1, False)
    assert told(receiver, t.identity)["offload_verify_mismatched_windows"] >= 1
    assert known(t) >= 1
    assert [f.value for f in fates(t, Span(t.at(0), t.at(3)))] == ["shipped", "differs", "shipped"]
    repair(t, 1, "--yes")
    after = verify_sample(t.ctx, t.spec)
    assert after is not None
    must_be_equal(after)
    assert (results(t), known(t)) == ([True] * 3, 0)
    assert told(receiver, t.identity)["offload_verify_mismatched_windows"] == 0


def test_the_command_records_the_same(table: MakeDomainTable) -> None:
    t = table().fill(0, 1)
    t.run()
    assert verify(t.ctx, t.spec, t.at(0), t.at(1)).ok
    assert results(t) == [True, None]


@pytest.mark.parametrize("sample", ["25%", "3"])
def test_all_windows_are_seen_within_the_stated_number_of_verifications(table: MakeDomainTable, sample: str) -> None:
    t = table(f"verify: {{sample: {sample}}}\n").fill(*range(0, 20, 2), rows=2)
    t.run()
    needed = rounds(t.spec.verify.sample, 10)
    assert needed == 4
    for turn in range(needed):
        if turn < needed - 1:
            assert None in results(t), "not all at once"
        report = verify_sample(t.ctx, t.spec)
        assert report is not None and report.ok
        assert results(t)[-1] is True, "the newest is always among them"
        assert report.windows <= 4
    assert results(t) == [True] * 10
    first = seen(t)
    for _ in range(needed):
        assert verify_sample(t.ctx, t.spec) is not None
    for before, after in zip(first, seen(t), strict=True):
        assert before.verified_at is not None and after.verified_at is not None
        assert after.verified_at > before.verified_at, "all have their turn again"


def test_rows_that_come_late_are_no_alarm_and_wait_for_the_next_run(table: MakeDomainTable) -> None:
    t = table(FULL).fill(0, 1)
    t.run()
    t.insert(0, rows=3)
    report = verify_sample(t.ctx, t.spec)
    assert report is not None and report.ok, report.findings()
    assert results(t) == [None, True]
    assert known(t) == 0
    t.run()
    assert verify_sample(t.ctx, t.spec) is not None
    assert results(t) == [True, True]


@pytest.mark.parametrize("step", ["planned", "shipped", "recorded"])
def test_an_offload_at_the_same_moment_is_no_alarm(
    table: MakeDomainTable, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """A replace that gets so far between the reading of the table's metadata and that of its rows."""
    t = table(FULL).fill(0, 1)
    t.run()
    real, came = verifying.eras, []

    def eras(*args: object) -> object:
        if not came:
            came.append(True)
            t.insert(0, rows=3)
            plan_id = t.check().plan.plan_id
            if step != "planned":
                t.ship(plan_id)
            if step == "recorded":
                t.watermark(plan_id)
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(verifying, "eras", eras)
    report = verify_sample(t.ctx, t.spec)
    assert came
    assert report is not None and report.ok, report.findings()
    assert known(t) == 0
    monkeypatch.undo()
    t.run()
    assert sampling.verify_sample(t.ctx, t.spec) is not None
    assert results(t) == [True, True]

"""Twenty rounds of random faults over random tables (rules 1 to 22): nothing lost, nothing twice.

`make torture N=500` plays more of them; docs/reliability.md has the record.
"""

from __future__ import annotations

import pytest

from tests.support.stack import Servers
from tests.torture.__main__ import again
from tests.torture.report import summary
from tests.torture.runner import one_round

SEED, ROUNDS = 2026, 20


@pytest.mark.timeout(900)
def test_twenty_rounds_of_random_faults_lose_nothing_and_double_nothing(data_stack: Servers) -> None:
    results = []
    for number in range(ROUNDS):
        results.append(one_round(data_stack, SEED, number))
        assert results[-1].ok, f"{results[-1].error}\nagain: {again(results[-1])}"
    figures = summary(results)
    assert (figures["lost"], figures["doubled"], figures["stale"], figures["failed"]) == (0, 0, 0, 0)
    # a round that did nothing would prove nothing
    assert figures["injected"] >= 2 * ROUNDS
    assert figures["lake_rows"] > 1_000

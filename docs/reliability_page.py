"""docs/reliability.md: the promises with the tests that stand for them, and the record of `make torture`.

The record is tests/torture/record.json, written by `python -m tests.torture --record`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RECORD = Path(__file__).resolve().parents[1] / "tests" / "torture" / "record.json"

_WORDS = """
The rules that the code follows are in [exactly-once.md](exactly-once.md); its last section names, for each of
the 22 rules, the [code and the tests](exactly-once.md#where-each-rule-lives). This page is about the three
promises that they add up to, about what was tried to break them, and about what was not tried.

## Each promise, and the test that proves it

| promise | rules | tests |
| --- | --- | --- |
| no row is lost | 5 to 9, 12, 15, 18, 19, 22 | \
[the same step tried again finishes](../tests/faults/test_crash_points.py)<br>\
[the next run picks up what the dead one left](../tests/faults/test_crash_points.py)<br>\
[a lost ledger is rebuilt and the next run neither skips nor doubles](../tests/integration/test_domain_recovery.py)<br>\
[an expiring window is never replaced](../tests/integration/test_domain_shapes.py)<br>\
[twenty rounds of random faults lose nothing and double nothing](../tests/faults/test_torture.py) |
| no row is written twice | 1 to 4, 13, 14, 16, 17, 20, 21 | \
[of two plans for the same windows one lands](../tests/integration/test_domain_protocol.py)<br>\
[two runs of one plan at once land it once](../tests/integration/test_domain_protocol.py)<br>\
[an answer that is lost after the commit is found in the table](../tests/integration/test_domain_protocol.py)<br>\
[no order of steps brings the ledger off](../tests/integration/test_ledger_states.py)<br>\
[twenty rounds of random faults lose nothing and double nothing](../tests/faults/test_torture.py) |
| it says so when data is at risk | 4, 5, 10, 11, 18, 19 | \
[every window that differs is shipped or reported](../tests/unit/test_planning.py)<br>\
[a shrunk window is reported and not replaced](../tests/unit/test_planning.py)<br>\
[a table that was rolled back is refused until the ledger is rebuilt](../tests/integration/test_domain_protocol.py)<br>\
[a ledger restored from an old backup is refused until it is rebuilt](../tests/integration/test_domain_recovery.py) |

## Faults with a test of their own

Each ends with both verifiers and a ledger that agrees with the lake.

| fault | what is seen | how it goes on | test, and what of it is made up |
| --- | --- | --- | --- |
| S3 refuses, is full, breaks off, never answers | [OFL-307](errors.md#ofl-307) | \
the next attempt; a moment's overload within the attempt | \
[`test_store_and_catalog.py`](../tests/faults/test_store_and_catalog.py); \
a proxy in front of the real S3 |
| S3 has less of a file than was written | [OFL-403](errors.md#ofl-403) | the next attempt | the same |
| the catalog answers 5xx after it committed | nothing: the table is asked | by itself | the same; a proxy |
| the catalog answers 5xx before, or is then gone | [OFL-404](errors.md#ofl-404) | the next attempt looks first \
| the same |
| PostgreSQL is killed: planning, reading, recording, committing, in the middle of the watermark | \
[OFL-501](errors.md#ofl-501) | the same step again, or the next run | \
[`test_ledger_dies.py`](../tests/faults/test_ledger_dies.py); a real SIGKILL of a server of the test's own |
| disk full | [OFL-503](errors.md#ofl-503) | the next attempt, with room | \
[`test_disk_full.py`](../tests/faults/test_disk_full.py); no file system is filled: data files go to \
`/dev/full`, Spark's driver \
meets the largest size that a process may write |
| ClickHouse is killed between two slices or in the middle of one; a query fails after it answered 200, at its \
memory limit too | [OFL-201](errors.md#ofl-201), [OFL-208](errors.md#ofl-208), no file | the next attempt; with more \
memory in the spec, the next run | [`test_between_slices.py`](../tests/faults/test_between_slices.py); a real SIGKILL, \
`KILL QUERY`, rows of 60 MB |
| rows change, move to another partition, come or are merged between two slices | the window stays pending, or \
nothing; `run` exits with 1 | the next run | the same |
| a Python worker of Spark is killed | [OFL-504](errors.md#ofl-504) | the next attempt | \
[`test_crash_points.py`](../tests/faults/test_crash_points.py) |
| a worker of a Spark cluster is killed, with all on it | a warning, `Lost executor`; a file that no snapshot names \
| by itself: another worker reads its slices again | \
[`test_spark_standalone.py`](../tests/faults/test_spark_standalone.py); a real SIGKILL of one of two workers on one \
machine |
| a replica lags more than `settle` | [OFL-210](errors.md#ofl-210), nothing planned | when it caught up, or \
without it | \
[`test_lagging_replica.py`](../tests/faults/test_lagging_replica.py); a proxy puts in the number that \
ClickHouse would say |
| the pinned replica is killed under the job | [OFL-201](errors.md#ofl-201), [OFL-208](errors.md#ofl-208), no file \
| the next attempt reads another replica; what it holds otherwise than planned waits for the next run | \
[`test_two_replicas.py`](../tests/faults/test_two_replicas.py); a real SIGKILL of one of two servers with the same \
rows, without replication between them |
| a fail-over to a replica that lacks data | its windows are left alone for that run | by itself | \
[`test_other_replica.py`](../tests/faults/test_other_replica.py); the same server behind a proxy that hides a block |
| an answer of ClickHouse is lost, what comes says 200 and is empty | [OFL-208](errors.md#ofl-208), nothing planned | \
the next attempt; one alone within it | [`test_empty_answers.py`](../tests/faults/test_empty_answers.py); a proxy |
| the scheduler is killed | its workers and jobs die with it; after half a minute a second try of the task | \
by itself, whatever `retries` is | [`test_airflow_deaths.py`](../tests/faults/test_airflow_deaths.py) |
| a worker is killed | after a minute the task fails, or is retried | by a retry, or by clearing `offload` | the same |
| a run is cleared while its job runs | the job is stopped, or passed; planning begins anew | by itself | the same |

The scheduler must run so that nothing outlives it, as in a container or a systemd service. Workers of a LocalExecutor
that live on hold the dead scheduler's database connection; died it within its scheduling lock, the next scheduler
plans nothing until they are gone. On one machine [`local/keeper.py`](../local/keeper.py) sees to that.

## The harness can fail

A test that can't fail proves nothing. [`test_mutations.py`](../tests/faults/test_mutations.py) takes one
protection at a time out of a copy of the code (the predecessor check, the audit, the compare-and-swap of the
commit, that of the ledger, the expiry rule, the second look at a window that several queries read) and demands that the
tests which stand for it fail.

## Rounds of random faults

`make torture` plays stories. A story is a random table (MergeTree, or ReplacingMergeTree read with FINAL; eight
partition specs; windows of one to fifteen minutes; with and without sequence, sort order, TTL and followed
deletes) and a list of what happens to it: rows that arrive late, out of order and in the future, mutations,
deletes, merges, and faults. A seed and a number give the same story on every machine. A round drives the three
steps and the ledger without Airflow; every tenth round has a real Spark job.

A refused step is recovered as an operator would: by the command that the error names. When the story is over,
runs go by until one has nothing left to do. Then a model in Python says which ids the lake must hold and with
which content, both verifiers read the table, and the ledger is compared with the lake, window by window.

```sh
make torture                    # 20 rounds of seed 1
make torture N=500 SEED=11      # as many as are missing of 500; stop it and go on at any time
make torture SEED=11 ROUND=42   # this round again
```

What was played is kept in `.run/torture.jsonl`. CI plays 20 rounds of another seed in every run
([`test_torture.py`](../tests/faults/test_torture.py)).
"""

_NOT_SHOWN = """
## What this does not show

- A process is killed, not the machine: what the kernel had not written to the disk is not lost here.
  PostgreSQL's sessions are ended and its data is lost or set back; its server is killed in a test of its own.
- Two things break at the same moment only where a fault is made of two. Tables hold thousands of rows, not
  millions.
- The faults of the wire below HTTP, of Airflow and of Spark's workers have tests of their own, and are not in
  these rounds. So have a TTL that bites, a dropped partition, a source that is made again, a new schema, an update
  between two slices, rows that are older than the horizon, and a check while another run reads.
- Two rounds (184 and 188) were red at first: the harness did not know that a take-over, like a rebuild, keeps
  windows that the plan names. They were played again after that was mended; no row was lost or doubled in them.
"""


def page(header: str) -> str:
    """The whole page."""
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    return f"# Reliability\n\n{header}\n{_WORDS}\n{_figures(record)}{_NOT_SHOWN}"


def _figures(record: Mapping[str, Any]) -> str:
    seeds = "; ".join(f"seed {seed}: rounds {rounds}" for seed, rounds in record["seeds"].items())
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    lines = [
        "### The record\n",
        f"Made on {record['date']} in parts, on two cores shared with other work: {seeds}."
        f" Python {record['python']}, {versions}.\n",
        "| | |",
        "| --- | --- |",
        f"| rounds | {record['rounds']:,} |",
        f"| faults | {record['injected']:,} |",
        f"| rows that arrived in ClickHouse | {record['rows']:,} |",
        f"| rows in the lake at the end | {record['lake_rows']:,} |",
        f"| rows in windows that were kept as they are, and said | {record.get('kept', 0):,} |",
        f"| **lost** | **{record['lost']}** |",
        f"| **doubled** | **{record['doubled']}** |",
        f"| with an older content | {record['stale']} |",
        f"| rounds that failed in any way | {record['failed']} |",
        f"| hours | {record['seconds'] / 3600:.1f} |",
        "\nRows that arrived and are not in the lake lie in the future, or were deleted under `deletes: follow`.\n",
        "| fault | times |",
        "| --- | --- |",
        *(f"| {kind} | {times:,} |" for kind, times in record["faults"].items()),
        "\nRefusals on the way, each recovered by the step that it names:"
        f" {', '.join(f'[{id}](errors.md#{id.lower()}) {n:,}' for id, n in record['recovered'].items())}.\n",
    ]
    return "\n".join(lines)

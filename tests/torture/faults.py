"""Every kind of fault that a story can name, and what does it to a world; it says whether it really happened."""

from __future__ import annotations

from collections.abc import Callable

from tests.torture import foreign, jobs, servers
from tests.torture.story import KILLS, SPARK, Fault
from tests.torture.world import World

Break = Callable[[World, Fault], bool]

BREAKS: dict[str, Break] = dict.fromkeys(KILLS, jobs.kill) | {
    SPARK: jobs.spark,
    "zombie lands first": jobs.zombie_first,
    "zombie wakes late": jobs.zombie_late,
    "zombie in flight": jobs.zombie_in_flight,
    "zombie after a rebuild": jobs.zombie_after_rebuild,
    "one plan in two jobs": jobs.one_plan_twice,
    "two plans at once": jobs.two_plans,
    "watermark twice at once": jobs.watermark_twice,
    "ledger lost": jobs.ledger_lost,
    "ledger restored": jobs.ledger_restored,
    "PostgreSQL backends terminated": jobs.backends,
    "answer lost": jobs.answer_lost,
    "request lost": jobs.request_lost,
    "foreign append and removal": foreign.foreign_append,
    "foreign commit in between": foreign.foreign_between,
    "foreign compaction": foreign.compaction,
    "marker deleted": foreign.marker_deleted,
    "snapshots expired": foreign.expired,
    "rolled back": foreign.rolled_back,
    "ClickHouse killed": servers.server_killed,
    "SeaweedFS killed": servers.server_killed,
    "rows while reading": jobs.rows_while_reading,
    "merge while reading": jobs.merge_while_reading,
    "range forced": jobs.forced,
    "run cleared": jobs.cleared,
}

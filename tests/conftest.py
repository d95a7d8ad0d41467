"""For all tests: the servers that they may ask for, and Hypothesis with the same examples on every machine
(`HYPOTHESIS_PROFILE=search` looks further)."""

import os
import signal

from hypothesis import HealthCheck, settings

from tests.support.fixtures import airflow, data_stack, full_stack, make_table

__all__ = ["airflow", "data_stack", "full_stack", "make_table"]

# a shell without job control starts what it puts into the background deaf to Ctrl-C, and so every process that we start
signal.signal(signal.SIGINT, signal.default_int_handler)

# no deadline: the time of one example says nothing on a shared machine
settings.register_profile(
    "repeatable", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("search", max_examples=2_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

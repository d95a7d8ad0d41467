"""Hypothesis for all tests: the same examples on every machine; `HYPOTHESIS_PROFILE=search` looks further."""

import os

from hypothesis import HealthCheck, settings

# no deadline: the time of one example says nothing on a shared machine
settings.register_profile(
    "repeatable", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("search", max_examples=2_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

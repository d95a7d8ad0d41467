"""Faults of iceberg-offload-failure.md."""

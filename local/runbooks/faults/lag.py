"""Faults of iceberg-offload-lag.md."""

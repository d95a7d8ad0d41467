"""Faults of iceberg-offload-data-at-risk.md."""

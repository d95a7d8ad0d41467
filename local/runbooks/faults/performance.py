"""Faults of iceberg-offload-performance.md."""

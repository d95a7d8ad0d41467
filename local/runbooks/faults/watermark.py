"""Faults of iceberg-offload-watermark-recovery.md."""

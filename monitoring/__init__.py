"""Alerts and recording rules for Prometheus, made from one table of values: `python -m monitoring.generate`."""

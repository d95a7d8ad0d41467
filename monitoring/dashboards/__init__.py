"""Grafana dashboards, made by code from the alerts' own expressions and values."""

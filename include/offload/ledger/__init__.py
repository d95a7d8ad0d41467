"""The ledger: plans, windows and watermarks in PostgreSQL. Iceberg is the truth; this can be rebuilt from it."""

from include.offload.ledger.store import Head, Ledger, Promotion

__all__ = ["Head", "Ledger", "Promotion"]

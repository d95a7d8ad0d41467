"""The Offload page inside Airflow: a small FastAPI application over the ledger, under Airflow's own permissions."""

"""Table specs: one YAML file, one table, one DAG. Parsing needs no network and no server."""

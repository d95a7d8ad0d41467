"""Care for the lake: what a table's metadata shows to be done, decided here and done by Iceberg's own procedures."""

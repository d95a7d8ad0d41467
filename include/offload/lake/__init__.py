"""The lake: the Iceberg side. The table from the spec, the commit marker, the files, the one atomic commit."""

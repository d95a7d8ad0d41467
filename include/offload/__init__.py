"""The domain: how a row gets from ClickHouse into Apache Iceberg exactly once.

Nothing in this package imports Airflow or Spark (a test blocks both and imports every module), so the
same code plans inside an Airflow task, ships inside a Spark executor and repairs from the command line.

Data walks one way: spec -> extent -> plan -> slices -> files -> commit -> ledger -> metrics.
"""

__version__ = "0.1.0"

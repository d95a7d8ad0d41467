"""The servers that integration tests share: one stack a session, and both verifiers after every test."""

from tests.support.fixtures import airflow, full_stack, make_table

__all__ = ["airflow", "full_stack", "make_table"]

-- Runs once, on an empty data directory. psql reads each password from its secret file.
\set airflow_password `cat /run/secrets/airflow_db_password`
\set ledger_password `cat /run/secrets/ledger_password`

CREATE ROLE airflow LOGIN PASSWORD :'airflow_password';
CREATE DATABASE airflow OWNER airflow;
REVOKE ALL ON DATABASE airflow, postgres, template1 FROM PUBLIC;
\i /opt/sql/postgres.sql

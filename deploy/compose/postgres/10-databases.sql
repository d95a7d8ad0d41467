-- Runs once, on an empty data directory. psql reads each password from its secret file.
\set airflow_password `cat /run/secrets/airflow_db_password`
\set ledger_password `cat /run/secrets/ledger_password`

CREATE ROLE airflow LOGIN PASSWORD :'airflow_password';
CREATE ROLE offload_ledger LOGIN PASSWORD :'ledger_password';
CREATE DATABASE airflow OWNER airflow;
CREATE DATABASE offload OWNER offload_ledger;
REVOKE ALL ON DATABASE airflow FROM PUBLIC;
REVOKE ALL ON DATABASE offload FROM PUBLIC;

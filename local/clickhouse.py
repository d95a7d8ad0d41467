"""How the ClickHouse front is started; kept apart from it, so that nothing here loads the engine."""

from __future__ import annotations

from local import ports
from local.paths import Home, python


def command(home: Home) -> list[str]:
    return [
        python(),
        "-m",
        "local.clickhouse_front",
        f"--port={ports.port('CLICKHOUSE')}",
        f"--data={home.clickhouse}",
        f"--passwords={home.secrets / 'clickhouse_passwords.json'}",
    ]

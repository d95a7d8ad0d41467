"""Every port of the one-machine stack, all on loopback, all movable.

`OFFLOAD_PORT_BASE` (default 18100) moves all of them at once, `OFFLOAD_PORT_<NAME>` moves one. The
defaults stay below 32768, where Linux begins to hand out ports to outgoing connections by itself.
"""

from __future__ import annotations

import os
import socket

HOST = "127.0.0.1"
DEFAULT_BASE = 18100

OFFSETS: dict[str, int] = {
    "POSTGRES": 0,
    "CLICKHOUSE": 1,
    "S3": 2,
    "ICEBERG": 3,
    "STATSD": 4,
    "STATSD_METRICS": 5,
    "AIRFLOW": 6,
    "WEED_MASTER": 10,
    "WEED_FILER": 11,
    "WEED_VOLUME": 12,
    "WEED_ADMIN": 13,
    "WEED_MASTER_GRPC": 20,
    "WEED_FILER_GRPC": 21,
    "WEED_VOLUME_GRPC": 22,
    "WEED_S3_GRPC": 23,
    "WEED_ADMIN_GRPC": 24,
    "PROMETHEUS": 30,
    "ALERTMANAGER": 31,
}
UDP = frozenset({"STATSD"})


def port(name: str) -> int:
    """The port of one server. Raises ValueError with the variable's name when it is not a port number."""
    variable = variable_of(name)
    text = os.environ.get(variable)
    if text is None:
        text = str(_number("OFFLOAD_PORT_BASE", os.environ.get("OFFLOAD_PORT_BASE", str(DEFAULT_BASE))) + OFFSETS[name])
    return _number(variable, text)


def variable_of(name: str) -> str:
    """The environment variable that moves the port `name`."""
    if name not in OFFSETS:
        raise ValueError(f"no port is called {name}; there are {', '.join(OFFSETS)}")
    return f"OFFLOAD_PORT_{name}"


def is_free(name: str) -> bool:
    """Whether the port can be bound on loopback now."""
    kind = socket.SOCK_DGRAM if name in UDP else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as probe:
        if name not in UDP:
            # as servers do: a connection in TIME_WAIT does not count as taken
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port(name)))
        except OSError:
            return False
    return True


def _number(variable: str, text: str) -> int:
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise ValueError(f"{variable}={text!r} is not a port number (1 to 65535)")
    return int(text)

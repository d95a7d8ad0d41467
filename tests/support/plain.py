"""Values of any reader in one plain form that JSON can carry and that tells apart what must not be the same.

Imports nothing of the project: Spark's Python runs it too.
"""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from typing import Any


def plain(value: Any, bytes_are_text: bool = False) -> Any:
    """The plain form. A struct is a dict, a map a list of pairs; `bytes_are_text`: for a reader that gives bytes."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return f"int {value}"
    if isinstance(value, float):
        return f"float {value.hex()}"
    if isinstance(value, decimal.Decimal):
        # 1.50 and 1.5 are one value
        text = f"{value:f}"
        return f"decimal {text.rstrip('0').rstrip('.') if '.' in text else text}"
    if isinstance(value, str | uuid.UUID):
        return f"bytes {str(value).encode().hex()}" if bytes_are_text else f"text {value}"
    if isinstance(value, bytes | bytearray):
        return f"bytes {bytes(value).hex()}"
    if isinstance(value, dt.datetime):
        utc = value.astimezone(dt.UTC).replace(tzinfo=None) if value.tzinfo else value
        return f"at {utc.isoformat()}"
    if isinstance(value, dt.date):
        return f"day {value.isoformat()}"
    if isinstance(value, dict):
        return {str(k): plain(v, bytes_are_text) for k, v in value.items()}
    return _sequence(value, bytes_are_text)


def _sequence(value: Any, bytes_are_text: bool) -> list[Any]:
    parts = [[plain(v, bytes_are_text) for v in p] if isinstance(p, tuple) else plain(p, bytes_are_text) for p in value]
    # the order of a map's pairs means nothing
    return sorted(parts, key=repr) if value and all(isinstance(p, tuple) for p in value) else parts

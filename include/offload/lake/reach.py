"""What a catalog or an object store throws when it is away or refuses, as one of our refusals.

Workers import this: it knows the libraries' exceptions by their module, so that neither requests nor SQLAlchemy is
imported for their sake.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from include.offload.errors import (
    CATALOG_UNREACHABLE,
    DISK_FULL,
    STORE_REFUSED,
    TLS_UNTRUSTED,
    ErrorKind,
    OffloadError,
)
from include.offload.trust import is_untrusted

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""The disk, the user's share of it, or the largest file that the process may write."""


def is_disk_full(error: BaseException) -> bool:
    """Whether a file could not be written for want of room; also in what Spark's JVM says of its own files."""
    if isinstance(error, OSError) and error.errno in FULL:
        return True
    return any(os.strerror(number) in str(error) for number in FULL)


@contextmanager
def reaching(table: str | None = None) -> Iterator[None]:
    """Raises OFL-301 for a catalog that does not answer well, OFL-307 for a store, OFL-503 for a full disk.

    Raises OFL-103 when the certificate of either is not trusted.
    """
    try:
        yield
    except OffloadError:
        raise
    except Exception as error:
        kind = _kind(error)
        if kind is None:
            raise
        text = str(error).strip().replace("\n", " ")[:500]
        kind = TLS_UNTRUSTED if is_untrusted(error) else kind
        raise OffloadError(kind, f"{type(error).__name__}: {text}", table=table) from error


def _kind(error: Exception) -> ErrorKind | None:
    for cls in type(error).__mro__:
        name = f"{cls.__module__}.{cls.__name__}"
        if name in {
            "requests.exceptions.RequestException",
            "pyiceberg.exceptions.RESTError",
            "sqlalchemy.exc.SQLAlchemyError",
        }:
            return CATALOG_UNREACHABLE
    if isinstance(error, OSError):
        return DISK_FULL if error.errno in FULL else STORE_REFUSED
    return None

"""Whether a failure to connect means that a server's certificate was not trusted: asking again would not help."""

from __future__ import annotations

import re

_SIGNS = re.compile(
    r"certificate.verify.failed"  # OpenSSL, in Python and in libpq
    r"|root certificate file"  # libpq: the CA file is missing
    r"|certificate .{0,200}does not match host"  # libpq
    r"|hostname mismatch|hostname .{0,200}doesn't match"  # OpenSSL, urllib3
    r"|SSL peer certificate|SSL CA cert"  # curl, in Arrow's S3 client
    r"|TLS CA certificate bundle",  # requests: no such CA file
    re.IGNORECASE,
)


def is_untrusted(error: BaseException) -> bool:
    """Whether the error, or what caused it, speaks of a certificate or of the file it is checked with."""
    seen: BaseException | None = error
    for _ in range(5):
        if seen is None:
            return False
        if _SIGNS.search(str(seen)):
            return True
        seen = seen.__cause__ or seen.__context__
    return False

"""Certificates of a CA of the test's own, and a proxy that ends TLS before a server that has none."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import socket
import ssl
import struct
import threading
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOST = "127.0.0.1"
SSL_REQUEST = struct.pack("!ii", 8, 80877103)
"""PostgreSQL's protocol, message formats: length and code of SSLRequest."""


@dataclass(frozen=True)
class Authority:
    """A CA that signed one server certificate for 127.0.0.1. All are PEM files; `key` has mode 0600."""

    ca: Path
    certificate: Path
    key: Path


def authority(folder: Path, name: str) -> Authority:
    """A new CA in `folder`, and a server certificate of it."""
    signer, ca = _certificate(f"test CA {name}", None)
    key, leaf = _certificate("server", (signer, ca))
    made = Authority(folder / f"{name}-ca.pem", folder / f"{name}.pem", folder / f"{name}.key")
    made.ca.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    made.certificate.write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    made.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    made.key.chmod(0o600)
    return made


def _certificate(
    name: str, signed_by: tuple[ec.EllipticCurvePrivateKey, x509.Certificate] | None
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    signer, issuer = signed_by or (key, None)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if issuer is None:
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        built = built.add_extension(usage, critical=True)
    return key, built.sign(signer, hashes.SHA256())


class TlsProxy:
    """Listens with TLS on a free port of loopback, passes bytes on to a plain port, and counts what clients said."""

    def __init__(self, target: int, certificate: Authority, *, postgres: bool = False) -> None:
        """postgres: answer PostgreSQL's request for TLS first, as its server does."""
        self._target = target
        self._postgres = postgres
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate.certificate, certificate.key)
        self._listener = socket.create_server((HOST, 0))
        self._open: set[socket.socket] = {self._listener}
        self.port: int = self._listener.getsockname()[1]
        self.received = 0
        """Bytes from clients, after the handshake."""
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop listening and break every connection."""
        for one in tuple(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(raw,), daemon=True).start()

    def _serve(self, raw: socket.socket) -> None:
        self._open.add(raw)
        try:
            if self._postgres:
                if raw.recv(8, socket.MSG_WAITALL) != SSL_REQUEST:
                    # a client that would talk without TLS
                    raw.close()
                    return
                raw.sendall(b"S")
            client = self._context.wrap_socket(raw, server_side=True)
        except OSError:
            # a client that does not trust us hangs up
            raw.close()
            return
        server = socket.create_connection((HOST, self._target))
        self._open |= {client, server}
        back = threading.Thread(target=self._pump, args=(server, client), daemon=True)
        back.start()
        self._pump(client, server, count=True)
        back.join()
        for one in (client, server):
            one.close()
            self._open.discard(one)

    def _pump(self, source: socket.socket, sink: socket.socket, *, count: bool = False) -> None:
        with contextlib.suppress(OSError, ValueError):
            while data := source.recv(1 << 16):
                self.received += len(data) if count else 0
                sink.sendall(data)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

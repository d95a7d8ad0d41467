"""Request bodies of the ClickHouse front: sized or chunked, plain or compressed, or a form."""

from __future__ import annotations

import email.parser
import email.policy
import zlib
from collections.abc import Iterator
from email.message import Message
from typing import Any, Protocol

CHUNK = 1 << 20


class Source(Protocol):
    """Where a body is read from."""

    def read(self, size: int, /) -> bytes: ...

    def readline(self, size: int, /) -> bytes: ...


class BodyError(ValueError):
    """A body that the front can not read."""


def chunks_of(headers: Message, source: Source) -> Iterator[bytes]:
    """The body, chunk by chunk, decompressed. Raises BodyError; ConnectionError when the client stops half-way."""
    if "chunked" in (headers.get("Transfer-Encoding") or "").lower():
        raw = _chunked(source)
    else:
        raw = _sized(source, int(headers.get("Content-Length") or 0))
    encoding = (headers.get("Content-Encoding") or "identity").strip().lower()
    return raw if encoding in {"identity", ""} else _decompressed(raw, encoding)


def form_fields(headers: Message, body: bytes) -> dict[str, str]:
    """The fields of a multipart form. Raises BodyError for files: external data is not served."""
    prefix = f"Content-Type: {headers['Content-Type']}\r\nMIME-Version: 1.0\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(prefix + body)
    fields: dict[str, str] = {}
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        if part.get_filename() is not None or not isinstance(name, str):
            raise BodyError("external data is not served by this ClickHouse front")
        payload = part.get_payload(decode=True)
        fields[name] = payload.decode() if isinstance(payload, bytes) else ""
    return fields


def _sized(source: Source, length: int) -> Iterator[bytes]:
    while length:
        data = source.read(min(length, CHUNK))
        if not data:
            raise ConnectionResetError(f"the client stopped {length} bytes before the end of its body")
        length -= len(data)
        yield data


def _chunked(source: Source) -> Iterator[bytes]:
    while True:
        line = source.readline(1024)
        try:
            size = int(line.split(b";")[0], 16)
        except ValueError as error:
            raise ConnectionResetError("the client stopped inside a chunked body") from error
        if size == 0:
            while source.readline(65536) not in (b"\r\n", b"\n", b""):
                pass
            return
        yield from _sized(source, size)
        source.readline(8)


def _decompressed(raw: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    decode = _decoder(encoding)
    return (decode(data) for data in raw)


def _decoder(encoding: str) -> Any:
    if encoding in {"gzip", "deflate"}:
        return zlib.decompressobj(zlib.MAX_WBITS | 32).decompress
    if encoding == "zstd":
        import zstandard

        return zstandard.ZstdDecompressor().decompressobj(read_across_frames=True).decompress
    if encoding == "lz4":
        return _lz4()
    raise BodyError(f"Content-Encoding {encoding} is not served; use lz4, zstd, gzip, deflate or none")


def _lz4() -> Any:
    """clickhouse-connect sends one lz4 frame after another in one body."""
    import lz4.frame  # type: ignore[import-untyped]

    decoder = lz4.frame.LZ4FrameDecompressor()

    def decode(data: bytes) -> bytes:
        nonlocal decoder
        out = bytearray()
        while data:
            if decoder.eof:
                decoder = lz4.frame.LZ4FrameDecompressor()
            out += decoder.decompress(data)
            data = decoder.unused_data or b"" if decoder.eof else b""
        return bytes(out)

    return decode

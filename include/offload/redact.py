"""Takes secrets out of text that leaves this machine: those that are known here, and what looks like one.

Known are the values in this installation's secret files, in its environment and in its settings. A text is searched
for each of them as it is, as a URI and as JSON hold it, and in base64.
"""

from __future__ import annotations

import base64
import configparser
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from include.offload.settings import Settings, home

SHORTEST = 8
"""Characters from which a known value is looked for: shorter ones would take words out of every text."""
REMOVED = "[removed]"
CONTAINER_SECRETS = Path("/run/secrets")
"""Where Docker Compose and its like mount secrets."""
LARGEST_FILE = 1 << 20
KEY_OF_SECRET = re.compile(
    r"password|passwd|(^|_)pass$|secret|token|credential|fernet|authorization|private|access.?key|api.?key"
    r"|sql_alchemy_conn|_uri$|^airflow_(conn|var)_",
    re.I,
)
KEY_OF_ADDRESS = re.compile(r"webhook|(^|[_\W])dsn$|(^|[_\W])url$", re.I)
"""Addresses by which alone something may be used: one with a path, a query or a user is a secret as a whole."""
_PUBLIC_PATH = re.compile(r"(runbooks|base|execution_api_server)_url$", re.I)
LONG_PATH = 16
"""Characters from which such an address' path is looked for without its host too."""
LONG_WORD = re.compile(r"(?=\S*\d)(?=\S*[A-Za-z])\S{16,}")
"""What an extra field of a connection may hold as a token, whatever the field is called."""
_PLAIN_HEADERS = {"accept", "content-type", "user-agent"}
_LOGIN = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<user>[^\s/@:'\"]*):(?P<password>[^\s/@'\"]+)@")
_XML = re.compile(r"<password[^>]*>([^<]+)<")
_LOOKS: tuple[tuple[re.Pattern[str], str], ...] = (
    (_LOGIN, rf"\g<scheme>{REMOVED}@"),
    # a key in the user's place, as a Sentry DSN has it
    (re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]*://)[\w-]{16,}@"), rf"\1{REMOVED}@"),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----", re.S), REMOVED),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]+"), REMOVED),
    (re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9._~+/=-]{8,}", re.I), rf"\1 {REMOVED}"),
    (re.compile(r"(X-Amz-(?:Signature|Credential|Security-Token))=[^&\s\"']+", re.I), rf"\1={REMOVED}"),
    (re.compile(r"hooks\.slack\.com/\S+"), f"hooks.slack.com/{REMOVED}"),
    (
        re.compile(
            r"\b([\w.-]*(?:password|passwd|secret|token|credential|fernet_key|api[_-]?key|access[_-]?key(?:[_-]?id)?))"
            r"([\"']?\s*[:=]\s*[\"']?)(?!\[removed\])[^\s\"',;}&<]{4,}",
            re.I,
        ),
        rf"\1\2{REMOVED}",
    ),
)


def without_logins(text: str) -> str:
    """`text` without what looks like a secret: logins of URIs, tokens, private keys, `password=…`."""
    for pattern, instead in _LOOKS:
        text = pattern.sub(instead, text)
    return text


class Redactor:
    """Removes known secrets, then what looks like one. values: name to secret."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._forms: dict[bytes, str] = {}
        for name, value in values.items():
            for form in _forms(value):
                self._forms.setdefault(form, name)
        longest_first = sorted(self._forms, key=len, reverse=True)
        self._known = re.compile(b"|".join(map(re.escape, longest_first))) if longest_first else None

    def clean(self, text: str) -> str:
        """`text` without any of them."""
        if self._known is not None:
            data = self._known.sub(REMOVED.encode(), text.encode("utf-8", "replace"))
            text = data.decode("utf-8", "replace")
        return without_logins(text)

    def leaks(self, data: bytes) -> set[str]:
        """The names of known secrets that are in `data`."""
        if self._known is None:
            return set()
        return {self._forms[found[0]] for found in self._known.finditer(data)}


def _forms(value: str) -> set[bytes]:
    """A secret as it is, quoted, in JSON, and in base64 at each of its three offsets."""
    text = value.encode()
    found = {text, quote(value, safe="").encode(), quote(value).encode(), json.dumps(value)[1:-1].encode()}
    for shift in range(3):
        # only the digits that do not mix with the bytes beside it
        whole = base64.b64encode(b"\0" * shift + text)
        found.add(whole[-(-shift * 8 // 6) : len(whole) - 4])
    return {form for form in found if len(form) >= SHORTEST}


def known_secrets(settings: Settings) -> dict[str, str]:
    """Every secret that this installation can find of its own: where it stands, to its value."""
    found: dict[str, str] = {}
    for place, text in _places(settings):
        for number, value in enumerate(sorted(secrets_in(place, text))):
            found[f"{place} ({number})"] = value
    return found


def _places(settings: Settings) -> Iterator[tuple[str, str]]:
    for name, value in os.environ.items():
        # os.path, not Path: a secret may be longer than a file name may be
        if KEY_OF_SECRET.search(name) and not os.path.exists(value) or KEY_OF_ADDRESS.search(name):  # noqa: PTH110
            yield f"environment {name}", value
        else:
            yield f"environment {name}", "\n".join(m[0] for m in _LOGIN.finditer(value))
    for name in type(settings).model_fields:
        secret = getattr(settings, name)
        if hasattr(secret, "get_secret_value"):
            yield f"setting {name}", str(secret.get_secret_value())
    for path in _files():
        try:
            if path.is_file() and path.stat().st_size <= LARGEST_FILE:
                yield str(path), path.read_text(encoding="utf-8", errors="replace")
        except PermissionError:
            # of another service: nothing that this user writes can hold it
            continue


def _files() -> Iterator[Path]:
    for folder in (home() / "secrets", CONTAINER_SECRETS):
        if folder.is_dir():
            yield from sorted(folder.iterdir())
    yield from (Path(p) for p in (os.environ.get("OFFLOAD_SECRETS_FILE"),) if p)
    yield Path(os.environ.get("PYICEBERG_HOME") or Path.home()) / ".pyiceberg.yaml"
    yield airflow_config()


def airflow_config() -> Path:
    """Where Airflow's configuration lies: `AIRFLOW_CONFIG`, `AIRFLOW_HOME`, else the one-machine stack's."""
    if named := os.environ.get("AIRFLOW_CONFIG"):
        return Path(named)
    return Path(os.environ.get("AIRFLOW_HOME") or home() / "airflow") / "airflow.cfg"


def secrets_in(place: str, text: str) -> set[str]:
    """The secrets in a file, a setting or a variable. place: its name, which says what is a secret in it."""
    found = {unquote(m["password"]) for m in _LOGIN.finditer(text)} | {m["password"] for m in _LOGIN.finditer(text)}
    name = Path(place).name
    found |= set(_of_address(name, text.strip()))
    if "airflow_conn" in name.lower():
        found |= set(_in_connections(text))
    if name.endswith(".json") or text.lstrip().startswith("{"):
        found |= _in_json(name, text)
    elif name.endswith(".xml"):
        found |= {m[1].strip() for m in _XML.finditer(text)}
    elif name.endswith(".cfg"):
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        parser.read_string(text)
        for section in parser.values():
            for key, value in section.items():
                found |= set(_of_key(key, value))
    elif "\n" in text.strip():
        found |= set(_pairs(text.splitlines()))
    elif not _is_plain(text.strip()) and not _only_address(name):
        found.add(text.strip())
    return {value for value in found if len(value) >= SHORTEST}


def is_secret(key: str, value: str) -> bool:
    """Whether the value of this setting or variable is not to be shown at all."""
    return bool(KEY_OF_SECRET.search(key)) or any(True for _ in _of_address(key, value))


def _only_address(key: str) -> bool:
    return bool(KEY_OF_ADDRESS.search(key)) and not KEY_OF_SECRET.search(key)


def _of_key(key: str, value: str) -> Iterator[str]:
    if KEY_OF_SECRET.search(key) and not _is_plain(value):
        yield value
    yield from _of_address(key, value)


def _of_address(key: str, value: str) -> Iterator[str]:
    if KEY_OF_ADDRESS.search(key) and not any(c.isspace() for c in value):
        yield from _in_address(value, path_counts=not _PUBLIC_PATH.search(key))


def _in_address(value: str, *, path_counts: bool = True) -> Iterator[str]:
    """The address as a whole, a long path and a user without password, if it has a path, a query or a user."""
    rest = value.partition("://")[2] or value
    authority, path = re.fullmatch(r"([^/?]*)(.*)", rest).groups()  # type: ignore[union-attr]
    user, at, _ = authority.rpartition("@")
    if at:
        yield value
        if ":" not in user:
            yield unquote(user)
    if path_counts and path.strip("/"):
        yield from (value, value.rstrip("/"))
        if len(path) >= LONG_PATH:
            yield path.rstrip("/")


def _in_connections(text: str) -> Iterator[str]:
    """Of Airflow connections, one or many by id, as JSON or URI: tokens in host, headers and other extra fields."""
    try:
        document = json.loads(text)
    except ValueError:
        yield from _in_connection(_of_uri(text.strip()))
        return
    if not isinstance(document, dict):
        return
    one = "conn_type" in document
    for held in [document] if one else document.values():
        for connection in held if isinstance(held, list) else [held]:
            if isinstance(connection, str):
                yield from _in_connection(_of_uri(connection))
            elif isinstance(connection, dict):
                yield from _in_connection(connection)


def _of_uri(uri: str) -> dict[str, Any]:
    """Host and extra of a connection's URI; both may be quoted."""
    parts = urlsplit(uri)
    fields: dict[str, Any] = dict(parse_qsl(parts.query))
    return {"host": unquote(parts.netloc.rpartition("@")[2]), "extra": fields.pop("__extra__", None) or fields}


def _in_connection(connection: Mapping[str, Any]) -> Iterator[str]:
    extra = connection.get("extra") or {}
    if isinstance(extra, str):
        try:
            extra = json.loads(extra)
        except ValueError:
            yield extra
    yield from _in_address(str(connection.get("host") or ""))
    yield from _in_extra(extra)


def _in_extra(value: Any, key: str = "", *, header: bool = False) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _in_extra(inner, str(name), header=header or key.lower() == "headers")
    elif isinstance(value, list):
        for inner in value:
            yield from _in_extra(inner, key, header=header)
    elif isinstance(value, str):
        if header or key.lower() == "headers":
            if key.lower() not in _PLAIN_HEADERS:
                # a header's value may stand behind a word such as Bearer
                yield from (value, *value.split())
        elif key == "path" or LONG_WORD.fullmatch(value) or KEY_OF_SECRET.search(key):
            yield value
        elif KEY_OF_ADDRESS.search(key):
            yield from _in_address(value)


def _in_json(name: str, text: str) -> set[str]:
    try:
        document = json.loads(text)
    except ValueError:
        return set(_pairs(text.splitlines()))
    return set(_leaves(document, everything="password" in name))


def _is_plain(text: str) -> bool:
    """Whether a value is an address, a path, a number or a class name, and so no secret; its login counts alone."""
    return "://" in text or text.startswith("/") or bool(re.fullmatch(r"[\d.]*|true|false|[a-z_]+(\.\w+)+", text, re.I))


def _leaves(value: Any, *, everything: bool) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(inner, str) and (everything or KEY_OF_SECRET.search(str(key))):
                yield inner
            elif isinstance(inner, str):
                yield from _of_address(str(key), inner)
            else:
                yield from _leaves(inner, everything=everything)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner, everything=everything)


def _pairs(lines: Iterable[str]) -> Iterator[str]:
    """Values of `key: value` and `KEY=value` whose key says that they are secret; `id:secret` counts as both halves."""
    for line in lines:
        match = re.match(r"[\s{'\"]*([\w.-]+)['\"]?\s*[:=]\s*['\"]?(.*?)['\",}\s]*$", line)
        if match and KEY_OF_SECRET.search(match[1]) and not _is_plain(match[2]):
            yield match[2]
            yield from match[2].split(":")
        elif match:
            yield from _of_address(match[1], match[2])

"""ClickHouse's users, settings profiles and grants: one SQL file, read for every place that needs them as XML.

`deploy/sql/clickhouse.sql` is what an administrator runs on a server. Compose's server and the embedded engine take
their users from a configuration file instead, which is made from it. Standard library only: `make_secrets.py` imports
this before anything is installed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

SQL = Path(__file__).resolve().parents[1] / "deploy" / "sql" / "clickhouse.sql"
ADMIN_ROLE = "administrator"
_PROFILE = re.compile(r"CREATE SETTINGS PROFILE IF NOT EXISTS (\w+) SETTINGS\s+(.*)", re.DOTALL)
_SETTING = re.compile(r"(\w+) = (\d+)(?: MIN (\d+))?(?: MAX (\d+))?")
_USER = re.compile(r"CREATE USER IF NOT EXISTS (\w+) IDENTIFIED WITH sha256_password BY '\w+' SETTINGS PROFILE (\w+)")
_GRANT = re.compile(r"(GRANT .+) TO (\w+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Bound:
    """A setting of a profile, and what a query may change it to; None: no bound on that side."""

    value: str
    least: str | None
    most: str | None


@dataclass(frozen=True, slots=True)
class Access:
    """What one user may do. `settings`: of the profile that has the user's name; `grants`: `GRANT … ON …` each."""

    name: str
    settings: Mapping[str, Bound]
    grants: tuple[str, ...]


def statements(text: str) -> list[str]:
    """The statements of the file, comments taken out."""
    bare = re.sub(r"--[^\n]*", "", text)
    return [s.strip() for s in bare.split(";") if s.strip()]


def shipped(path: Path = SQL) -> dict[str, Access]:
    """Users by name, as the file says. Raises ValueError for a statement that is none of the three that are known."""
    profiles: dict[str, dict[str, Bound]] = {}
    grants: dict[str, list[str]] = {}
    for statement in statements(path.read_text(encoding="utf-8")):
        if match := _PROFILE.fullmatch(statement):
            parts = [_SETTING.fullmatch(part.strip()) for part in match[2].split(",")]
            if None in parts:
                raise ValueError(f"{path}: settings of {match[1]} can not be read: {match[2]}")
            profiles[match[1]] = {m[1]: Bound(m[2], m[3], m[4]) for m in parts if m}
        elif match := _USER.fullmatch(statement):
            if match[1] != match[2]:
                raise ValueError(f"{path}: user {match[1]} and its profile {match[2]} must have one name")
            grants[match[1]] = []
        elif match := _GRANT.fullmatch(statement):
            grants[match[2]].append(" ".join(match[1].split()))
        else:
            raise ValueError(f"{path}: not understood: {statement}")
    return {name: Access(name, profiles[name], tuple(given)) for name, given in grants.items()}


def widened(access: Mapping[str, Access]) -> dict[str, Access]:
    """The same for every table: on one machine a table is added without an administrator."""
    every = {"offload": ("GRANT SELECT ON *.*",), "offload_guard": ("GRANT SYSTEM TTL MERGES ON *.*",)}
    return {name: Access(name, a.settings, (*a.grants, *every.get(name, ()))) for name, a in access.items()}


def server_users(access: Mapping[str, Access], passwords: Mapping[str, str], admin: tuple[str, str]) -> str:
    """A file for `users.d` of a server: the users with hashed passwords, and an administrator (name, password)."""
    users = [_user(a.name, passwords[a.name], a.name, a.grants) for a in access.values()]
    users.append(_user(admin[0], admin[1], "default", ("GRANT ALL ON *.* WITH GRANT OPTION",)))
    return f"<clickhouse>\n{_profiles(access)}  <users>\n{''.join(users)}  </users>\n</clickhouse>\n"


def embedded_users(access: Mapping[str, Access]) -> str:
    """A `users_config` for the embedded engine, which knows one user: each user of the file is a role of it.

    A connection takes one role and its profile before anything else runs. An administrator's role is added.
    """
    roles = [_role(a.name, a.grants) for a in access.values()]
    roles.append(_role(ADMIN_ROLE, ("GRANT ALL ON *.* WITH GRANT OPTION",)))
    named = ", ".join([*access, ADMIN_ROLE])
    return (
        f"<clickhouse>\n{_profiles(access)}  <quotas><default/></quotas>\n  <roles>\n{''.join(roles)}  </roles>\n"
        "  <users>\n    <default>\n      <password></password>\n      <networks><ip>::/0</ip></networks>\n"
        "      <profile>default</profile>\n      <quota>default</quota>\n"
        f"      <grants><query>GRANT {named}</query></grants>\n    </default>\n  </users>\n</clickhouse>\n"
    )


def _profiles(access: Mapping[str, Access]) -> str:
    out = ["  <profiles>\n    <default></default>\n"]
    for a in access.values():
        values = "".join(f"<{k}>{b.value}</{k}>" for k, b in a.settings.items())
        bounds = "".join(f"<{k}>{_bounds(b)}</{k}>" for k, b in a.settings.items() if b.least or b.most)
        out.append(f"    <{a.name}>{values}<constraints>{bounds}</constraints></{a.name}>\n")
    return "".join([*out, "  </profiles>\n"])


def _bounds(bound: Bound) -> str:
    return "".join(f"<{tag}>{v}</{tag}>" for tag, v in (("min", bound.least), ("max", bound.most)) if v is not None)


def _grants(grants: tuple[str, ...]) -> str:
    return "".join(f"        <query>{escape(g)}</query>\n" for g in grants)


def _role(name: str, grants: tuple[str, ...]) -> str:
    return f"    <{name}>\n      <grants>\n{_grants(grants)}      </grants>\n    </{name}>\n"


def _user(name: str, password: str, profile: str, grants: tuple[str, ...]) -> str:
    return (
        f"    <{name}>\n"
        f"      <password_sha256_hex>{hashlib.sha256(password.encode()).hexdigest()}</password_sha256_hex>\n"
        f"      <networks><ip>::/0</ip></networks>\n      <profile>{profile}</profile>\n      <quota>default</quota>\n"
        f"      <grants>\n{_grants(grants)}      </grants>\n    </{name}>\n"
    )

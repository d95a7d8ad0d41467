"""From `dags/tables/` to specs: layers merged, every error of every file at once. No network, no server.

Layers of `<db>/<table>.yaml`, the later wins: `_defaults.yaml` and `_defaults.<env>.yaml` of the tables directory, both
of `<db>/`, the file itself, `<table>.<env>.yaml` beside it. Mappings merge key by key, lists and scalars replace, null
takes a key of an earlier layer away.
"""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from include.offload.errors import SPEC_INVALID, SPEC_MISSING, OffloadError
from include.offload.spec.model import IDENTITY, TableSpec
from include.offload.spec.rules import Problem
from include.offload.spec.yamlnodes import Document, Key, YamlError, parse

DEFAULTS = "_defaults"
_ENV = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True, order=True)
class SpecError:
    """One thing to mend. `line` from 1; `key`: the path inside the file, such as `target.partition[0]`, or empty."""

    path: Path
    line: int
    key: str
    message: str
    instead: str = ""

    def __str__(self) -> str:
        where = f"{self.path}:{self.line}: " + (f"{self.key}: " if self.key else "")
        return where + self.message + (f". Write: {self.instead}" if self.instead else "")


@dataclass(frozen=True, slots=True)
class LoadResult:
    """The valid specs by identity, and all errors by file and line."""

    specs: tuple[TableSpec, ...]
    errors: tuple[SpecError, ...]


@dataclass(slots=True)
class _Layer:
    path: Path
    document: Document


@dataclass(slots=True)
class _Reader:
    """Reads each file once and keeps its syntax errors."""

    root: Path
    documents: dict[Path, _Layer | None] = field(default_factory=dict)
    errors: list[SpecError] = field(default_factory=list)

    def read(self, path: Path) -> _Layer | None:
        if path not in self.documents:
            self.documents[path] = self._read(path)
        return self.documents[path]

    def _read(self, path: Path) -> _Layer | None:
        try:
            return _Layer(path, parse(path.read_text(encoding="utf-8")))
        except YamlError as error:
            self.errors.append(SpecError(path, error.line, "", error.message, error.instead))
        except UnicodeDecodeError as error:
            self.errors.append(SpecError(path, 1, "", f"byte {error.start} is no UTF-8", "the file saved as UTF-8"))
        except OSError as error:
            self.errors.append(SpecError(path, 1, "", f"can not be read: {error.strerror}", "a readable file"))
        return None


def load_specs(tables_dir: Path, env: str | None = None) -> LoadResult:
    """All specs under `tables_dir` with the overlays of `env`. Never raises for a bad file: see `errors`."""
    reader = _Reader(tables_dir)
    if not tables_dir.is_dir():
        missing = SpecError(
            tables_dir, 1, "", "the directory of the table specs does not exist", "OFFLOAD_TABLES=<directory>"
        )
        return LoadResult((), (missing,))
    found: list[tuple[TableSpec, list[_Layer]]] = []
    paths, misplaced = _sort_files(tables_dir)
    reader.errors.extend(misplaced)
    for path in paths:
        spec, layers, errors = _load(reader, path, env)
        reader.errors.extend(errors)
        if spec is not None:
            found.append((spec, layers))
    clashes = _clashes(found)
    reader.errors.extend(error for _, error in clashes)
    refused = {identity for identity, _ in clashes}
    specs = sorted((s for s, _ in found if s.identity not in refused), key=lambda s: s.identity)
    return LoadResult(tuple(specs), tuple(sorted(set(reader.errors))))


def load_spec(identity: str, tables_dir: Path, env: str | None = None) -> TableSpec:
    """One spec by identity `db.table`. Raises OFL-101 with all errors of its files, OFL-104 without such a file."""
    database, _, table = identity.partition(".")
    path = tables_dir / database / f"{table}.yaml"
    if not IDENTITY.fullmatch(identity) or not path.is_file():
        raise no_spec(identity, tables_dir)
    reader = _Reader(tables_dir)
    spec, _, errors = _load(reader, path, env)
    errors = [*reader.errors, *errors]
    if spec is None or errors:
        raise OffloadError(SPEC_INVALID, "; ".join(str(e) for e in sorted(errors)), table=identity)
    return spec


def no_spec(identity: str, tables_dir: Path) -> OffloadError:
    """The refusal of a name that no spec has: OFL-104, with the nearest name that there is."""
    near = difflib.get_close_matches(identity, known_identities(tables_dir), 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    if not IDENTITY.fullmatch(identity):
        return OffloadError(SPEC_MISSING, f"{identity!r} is not DB.TABLE{hint}", table=identity)
    database, _, table = identity.partition(".")
    return OffloadError(SPEC_MISSING, f"{tables_dir / database / table}.yaml is no file{hint}", table=identity)


def known_identities(tables_dir: Path) -> tuple[str, ...]:
    """The identities that have a file, valid or not."""
    return tuple(sorted(f"{p.parent.name}.{p.stem}" for p in _sort_files(tables_dir)[0]))


def _sort_files(root: Path) -> tuple[list[Path], list[SpecError]]:
    """The base files of all tables, and an error for each YAML file that no rule gives a meaning."""
    paths: list[Path] = []
    errors: list[SpecError] = []
    files = sorted(p for p in root.rglob("*") if p.suffix in (".yaml", ".yml"))
    known = set(files)
    for path in files:
        where = path.relative_to(root)
        stem, _, env = where.name.removesuffix(path.suffix).partition(".")
        if path.suffix == ".yml":
            errors.append(SpecError(path, 1, "", "the suffix is .yml", f"{path.stem}.yaml as the file's name"))
        elif where.name.startswith("_"):
            if stem != DEFAULTS or (env and not _ENV.fullmatch(env)) or len(where.parts) > 2:
                errors.append(
                    SpecError(
                        path,
                        1,
                        "",
                        f"{where} has no meaning here",
                        "_defaults.yaml or _defaults.<env>.yaml, beside the tables or one level up",
                    )
                )
        elif len(where.parts) != 2:
            errors.append(
                SpecError(
                    path, 1, "", f"{where} is not <database>/<table>.yaml", "the file in the directory of its database"
                )
            )
        elif env:
            if path.with_name(f"{stem}.yaml") not in known:
                errors.append(SpecError(path, 1, "", f"an overlay without {stem}.yaml beside it", f"{stem}.yaml first"))
        elif not IDENTITY.fullmatch(f"{where.parts[0]}.{stem}"):
            errors.append(
                SpecError(
                    path,
                    1,
                    "",
                    f"{where.parts[0]}.{stem} is no name for a table spec",
                    "letters, digits and _ in directory and file; source.table may hold any name",
                )
            )
        else:
            paths.append(path)
    return paths, errors


def _load(reader: _Reader, path: Path, env: str | None) -> tuple[TableSpec | None, list[_Layer], list[SpecError]]:
    names = [f"{DEFAULTS}.yaml", *([f"{DEFAULTS}.{env}.yaml"] if env else [])]
    candidates = [base / name for base in (reader.root, path.parent) for name in names]
    candidates += [path, *([path.with_name(f"{path.stem}.{env}.yaml")] if env else [])]
    layers: list[_Layer] = []
    for candidate in candidates:
        if candidate == path or candidate.is_file():
            layer = reader.read(candidate)
            if layer is None:
                return None, layers, []
            layers.append(layer)
    data: dict[str, Any] = {}
    for layer in layers:
        data = _merge(data, layer.document.data)
    errors = [
        SpecError(
            layer.path,
            layer.document.line(("identity",)) or 1,
            "identity",
            "the identity is the file's path",
            "nothing",
        )
        for layer in layers
        if "identity" in layer.document.data
    ]
    data["identity"] = f"{path.parent.name}.{path.stem}"
    spec, faults = validate(data)
    errors += [_locate(fault, path, layers) for fault in faults]
    return (spec if not errors else None), layers, errors


def _merge(low: dict[str, Any], high: dict[str, Any]) -> dict[str, Any]:
    out = dict(low)
    for name, value in high.items():
        if value is None:
            out.pop(name, None)
        elif isinstance(value, dict):
            below = out.get(name)
            out[name] = _merge(below if isinstance(below, dict) else {}, value)
        else:
            out[name] = value
    return out


def validate(data: dict[str, Any]) -> tuple[TableSpec | None, list[Problem]]:
    """The spec, or everything that is wrong with it: of single fields and, as far as those allow, across them."""
    try:
        return TableSpec.model_validate(data), []
    except ValidationError as error:
        first = error
    faults: dict[Key, Problem] = {}
    broken: list[Key] = []
    for item in first.errors(include_url=False):
        for problem in _expand(item, data):
            faults.setdefault(problem.key, problem)
            broken.append(problem.key[:1])
    if not any(item["type"] == "rules" for item in first.errors(include_url=False)):
        rest = {k: v for k, v in data.items() if (k,) not in broken}
        rest.setdefault(
            "cursor", data["cursor"] if isinstance(data.get("cursor"), str) and data["cursor"] else "cursor"
        )
        try:
            TableSpec.model_validate(rest)
        except ValidationError as error:
            for item in error.errors(include_url=False):
                for problem in item.get("ctx", {}).get("problems", ()):
                    if not any(key[:1] in broken for key in (problem.key, *problem.needs)):
                        faults.setdefault(problem.key, problem)
    return None, list(faults.values())


def _expand(item: Any, data: dict[str, Any]) -> list[Problem]:
    """One pydantic error as problems in the words of a spec's author."""
    key: Key = tuple(item["loc"])
    context = item.get("ctx", {})
    kind = item["type"]
    if kind == "rules":
        return list(context["problems"])
    if kind == "extra_forbidden":
        return [_unknown(key)]
    if kind == "missing":
        name = str(key[-1])
        return [Problem(key, f"{name} is missing", _EXAMPLES.get(name, f"{name}: …"))]
    if kind in ("model_type", "dict_type"):
        return [Problem(key, "a mapping of keys is needed here", "key: value lines, indented")]
    if kind == "tuple_type":
        return [Problem(key, f"{_at(data, key)!r} is no list", f"[{_at(data, key)}]")]
    if kind == "string_pattern_mismatch" and key[:1] == ("target",):
        return [_target_name(key, _at(data, key))]
    message = context["text"] if "text" in context else item["msg"].removeprefix("Value error, ")
    return [Problem(key, message, context.get("instead", ""))]


_EXAMPLES = {"cursor": "cursor: the column with each row's time"}


def _target_name(key: Key, value: Any) -> Problem:
    name = re.sub(r"[^a-z0-9_]", "_", str(value).lower())
    return Problem(
        key,
        f"{value!r} is no portable Iceberg name: lower-case letters, digits and _ only, at most 127",
        f"{'.'.join(map(str, key))}: {name if name[:1].isalpha() or name[:1] == '_' else '_' + name}",
    )


def _at(data: Any, key: Key) -> Any:
    for step in key:
        try:
            data = data[step]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def _unknown(key: Key) -> Problem:
    names = _known_keys(key[:-1])
    near = difflib.get_close_matches(str(key[-1]), names, 1, cutoff=0.6)
    elsewhere = [".".join((*path, str(key[-1]))) for path, known in _ALL_KEYS.items() if str(key[-1]) in known]
    if near:
        instead = f"did you mean {near[0]}?"
    elif elsewhere:
        instead = f"it belongs to {elsewhere[0]}"
    else:
        instead = f"one of {', '.join(names)}"
    return Problem(key, f"unknown key {key[-1]}", instead)


def _keys_of(model: type[BaseModel], path: tuple[str, ...] = ()) -> dict[tuple[str, ...], tuple[str, ...]]:
    out = {path: tuple(f.alias or n for n, f in model.model_fields.items() if n != "identity")}
    for name, info in model.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            out |= _keys_of(kind, (*path, info.alias or name))
    return out


_ALL_KEYS = _keys_of(TableSpec)


def _known_keys(path: Key) -> tuple[str, ...]:
    if path[:2] == ("columns", "overrides"):
        return ("expr", "type")
    return _ALL_KEYS.get(tuple(str(p) for p in path), ())


def _locate(problem: Problem, path: Path, layers: list[_Layer]) -> SpecError:
    """The file and line of a problem: where its key is set, else a key that it depends on, else the nearest parent.

    Of several layers the last one counts; without any trace it is the first line of the table's own file.
    """
    parents = [problem.key[:n] for n in range(len(problem.key) - 1, 0, -1)]
    for key in (problem.key, *problem.needs, *parents):
        for layer in reversed(layers):
            line = layer.document.line(key)
            if line is not None:
                return SpecError(layer.path, line, dotted(problem.key), problem.message, problem.instead)
    return SpecError(path, 1, dotted(problem.key), problem.message, problem.instead)


def dotted(key: Key) -> str:
    """`("target", "partition", 0)` → `target.partition[0]`."""
    out = ""
    for step in key:
        out += f"[{step}]" if isinstance(step, int) else f".{step}"
    return out.removeprefix(".")


def _clashes(found: list[tuple[TableSpec, list[_Layer]]]) -> list[tuple[str, SpecError]]:
    """Specs that would write one Iceberg table or make one DAG: refused, all but none can be right."""
    out: list[tuple[str, SpecError]] = []
    targets: dict[tuple[str, str], list[tuple[TableSpec, list[_Layer]]]] = defaultdict(list)
    dags: dict[str, list[tuple[TableSpec, list[_Layer]]]] = defaultdict(list)
    for spec, layers in found:
        targets[spec.target.namespace, spec.target.table].append((spec, layers))
        dags[spec.dag_id].append((spec, layers))
    for group, key, what in (
        *((g, ("target", "table"), f"the Iceberg table {'.'.join(t)}") for t, g in targets.items()),
        *((g, (), f"the DAG {d}") for d, g in dags.items()),
    ):
        for spec, layers in group if len(group) > 1 else ():
            others = ", ".join(s.identity for s, _ in group if s is not spec)
            problem = Problem(
                key, f"{what} is also made by {others}", "another target.table" if key else "another file name"
            )
            own = next(layer.path for layer in layers if layer.path.stem == spec.table_name)
            out.append((spec.identity, _locate(problem, own, layers)))
    return out

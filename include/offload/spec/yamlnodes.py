"""YAML as plain data that remembers its lines; stricter than YAML where YAML surprises.

Scalars follow YAML 1.2's core schema (`no` is text, `5:30` is text), keys are unique, tags, anchors and merge keys are
refused: a spec says what it means in one place, `_defaults.yaml` is for sharing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

Key = tuple[str | int, ...]

_TAGS = ("!", "tag:yaml.org,2002:str", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_CONSTANTS = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip


class YamlError(Exception):
    """What is wrong with a YAML text, at a line (from 1)."""

    def __init__(self, line: int, message: str, instead: str) -> None:
        self.line, self.message, self.instead = line, message, instead
        super().__init__(f"line {line}: {message}")


@dataclass(slots=True)
class Document:
    """A parsed file: its data, and the line (from 1) of each key and list item."""

    data: dict[str, Any]
    lines: dict[Key, int] = field(default_factory=dict)

    def line(self, key: Key) -> int | None:
        """The line of the key, None when this file does not hold it."""
        return self.lines.get(key)


def parse(text: str) -> Document:
    """The mapping that a YAML text holds. Raises YamlError; an empty text is an empty mapping."""
    try:
        node = yaml.compose(text, Loader=yaml.CBaseLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise YamlError(
            mark.line + 1 if mark else 1,
            f"no valid YAML: {error.problem or error.context}",
            "indent with spaces, `key: value`, quotes around text with : or #",
        ) from None
    except yaml.YAMLError as error:
        raise YamlError(1, f"no valid YAML: {' '.join(str(error).split())}", "plain UTF-8 text") from None
    document = Document({})
    if node is None:
        return document
    if not isinstance(node, yaml.MappingNode):
        raise YamlError(node.start_mark.line + 1, "the file holds no `key: value` mapping", "cursor: my_time_column")
    document.data = _Builder(document.lines).value(node, ())
    return document


class _Builder:
    def __init__(self, lines: dict[Key, int]) -> None:
        self.lines = lines
        self.seen: set[int] = set()

    def value(self, node: yaml.Node, key: Key) -> Any:
        line = node.start_mark.line + 1
        self.lines.setdefault(key, line)
        if id(node) in self.seen:
            raise YamlError(line, "anchors and aliases are not supported", "the value itself, or _defaults.yaml")
        self.seen.add(id(node))
        if node.tag not in _TAGS:
            raise YamlError(line, f"tag {node.tag} is not supported", "the plain value")
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, key)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*key, i)) for i, item in enumerate(node.value)]
        return node.value if getattr(node, "style", None) else scalar(node.value)

    def mapping(self, node: yaml.MappingNode, key: Key) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for name_node, value_node in node.value:
            line = name_node.start_mark.line + 1
            name = name_node.value
            if not isinstance(name_node, yaml.ScalarNode):
                raise YamlError(line, "a key is no text", "key: value")
            if name == "<<" and not name_node.style:
                raise YamlError(line, "merge keys (<<) are not supported", "the values themselves, or _defaults.yaml")
            if name in out:
                raise YamlError(line, f"key {name} stands twice", "each key once")
            self.lines[(*key, name)] = line
            out[name] = self.value(value_node, (*key, name))
        return out


def scalar(text: str) -> str | int | float | bool | None:
    """An unquoted YAML 1.2 core scalar."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text

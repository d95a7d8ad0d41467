"""ClickHouse type names as a tree: `Map(LowCardinality(String), Array(Nullable(Decimal(18, 8))))`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ChType:
    """A type: its name, its arguments as text, and those arguments that are types, with tuple field names.

    `args` keeps every argument as written; `parts` and `names` are set for the wrappers and containers only.
    """

    name: str
    args: tuple[str, ...] = ()
    parts: tuple[ChType, ...] = ()
    names: tuple[str | None, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}({', '.join(self.args)})" if self.args else self.name


_TYPE_ARGUMENTS = ("Nullable", "LowCardinality", "Array", "Map")
_NAMED_ARGUMENTS = ("Tuple", "Nested")


def parse(text: str) -> ChType:
    """The tree of a type's text. Raises ValueError when brackets or quotes do not match."""
    text = " ".join(text.split()) if "\n" in text else text.strip()
    open_at = text.find("(")
    if open_at < 0:
        return ChType(text)
    if not text.endswith(")"):
        raise ValueError(f"{text!r} is no ClickHouse type")
    name = text[:open_at].strip()
    args = tuple(split(text[open_at + 1 : -1]))
    if name in _TYPE_ARGUMENTS:
        return ChType(name, args, tuple(parse(a) for a in args))
    if name == "SimpleAggregateFunction":
        return ChType(name, args, (parse(args[-1]),))
    if name in _NAMED_ARGUMENTS:
        fields = [_field(a) for a in args]
        return ChType(name, args, tuple(parse(t) for _, t in fields), tuple(n for n, _ in fields))
    return ChType(name, args)


def split(text: str) -> list[str]:
    """The arguments between the outermost commas, quotes and backticks respected."""
    out: list[str] = []
    depth, start, at, end = 0, 0, 0, len(text)
    while at < end:
        char = text[at]
        if char in "'`\"":
            at = _closing(text, at)
        elif char == "(":
            depth += 1
        elif char == ")":
            depth -= 1
        elif char == "," and depth == 0:
            out.append(text[start:at].strip())
            start = at + 1
        at += 1
    if depth:
        raise ValueError(f"brackets do not match in {text!r}")
    last = text[start:].strip()
    return [*out, last] if last else out


def _closing(text: str, at: int) -> int:
    quote = text[at]
    at += 1
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif text[at] == quote:
            if text[at + 1 : at + 2] != quote:
                return at
            at += 1
        at += 1
    raise ValueError(f"a quote does not close in {text!r}")


def _field(text: str) -> tuple[str | None, str]:
    """The name and type of a tuple element: `a Int32`, `` `b c` String ``, or a type alone."""
    if text[:1] in ("`", '"'):
        end = _closing(text, 0)
        return unescape(text[1:end], text[0]), text[end + 1 :].strip()
    space, bracket = text.find(" "), text.find("(")
    if space > 0 and (bracket < 0 or space < bracket):
        return text[:space], text[space:].strip()
    return None, text


def unescape(text: str, quote: str) -> str:
    """The plain text of a quoted ClickHouse name or literal (without its quotes)."""
    out: list[str] = []
    at = 0
    while at < len(text):
        char = text[at]
        if char == "\\" and at + 1 < len(text):
            at += 1
            char = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "b": "\b", "f": "\f"}.get(text[at], text[at])
        elif char == quote:
            at += 1
        out.append(char)
        at += 1
    return "".join(out)

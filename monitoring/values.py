"""`values.yaml`: the thresholds and durations of a profile. Durations are Prometheus' own words: 90s, 45m, 6h."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).with_name("values.yaml")
PROFILES = ("production", "fast")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, slots=True)
class Burn:
    """One pair of windows of a service objective. `rate`: how many times faster than allowed the budget goes."""

    rate: float
    long: str
    short: str


@dataclass(frozen=True, slots=True)
class Schedules:
    """Tables whose longest pause between two runs is over `above_s` and at most `most`; `use`: a duration for them."""

    above_s: int
    most: str
    use: str

    @property
    def among(self) -> str:
        """The interval of these tables, as PromQL."""
        return f"offload:interval_seconds > {self.above_s} <= {seconds(self.most)}"


@dataclass(frozen=True, slots=True)
class Values:
    """One profile. A name that is not in the file is a KeyError."""

    profile: str
    all: Mapping[str, Any]

    def text(self, name: str) -> str:
        """A value as the rules write it."""
        return str(self.all[name])

    def number(self, name: str) -> float:
        return float(self.all[name])

    def seconds(self, name: str) -> int:
        """A duration in seconds."""
        return seconds(self.text(name))

    def minutes(self, name: str) -> float:
        return self.seconds(name) / 60

    def pairs(self, name: str) -> dict[str, str]:
        """Pairs of durations, as the rules write them."""
        return {str(one): str(other) for one, other in self.all[name].items()}

    def schedules(self, name: str) -> tuple[Schedules, ...]:
        """A value for each class of schedules that are longer than the usual interval."""
        pairs = self.pairs(name)
        above = (self.text("interval"), *pairs)
        return tuple(Schedules(seconds(low), most, use) for low, (most, use) in zip(above, pairs.items(), strict=False))

    def burns(self, name: str) -> tuple[Burn, ...]:
        return tuple(Burn(float(rate), str(long), str(short)) for rate, (long, short) in self.all[name].items())


def seconds(duration: str) -> int:
    """`6h` → 21600. Raises ValueError for anything but one number with s, m, h or d."""
    match = re.fullmatch(r"(\d+)([smhd])", duration)
    if match is None:
        raise ValueError(f"{duration!r} is no duration such as 90s, 45m, 6h or 3d")
    return int(match[1]) * UNITS[match[2]]


def load(profile: str) -> Values:
    """One profile of the file; `fast` overrides `production`, and may override only what is there."""
    found: dict[str, dict[str, Any]] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    base, own = found["production"], found[profile]
    unknown = sorted(set(own) - set(base))
    if unknown:
        raise ValueError(f"{FILE.name}: {profile} sets {', '.join(unknown)}, which production does not have")
    return Values(profile, base | own)

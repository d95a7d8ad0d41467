"""Find Java 17 or 21, the versions that Spark 4.1 runs on. `python -m local.java` installs one where it may."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from local import apt

SUPPORTED = (17, 21)
_VERSION = re.compile(r'version "(\d+)')


class JavaMissingError(RuntimeError):
    """No Java 17 or 21 on this machine."""

    def __init__(self) -> None:
        super().__init__(
            "Spark needs Java 17 or 21 and none was found: "
            "apt-get install openjdk-17-jre-headless (or set JAVA_HOME), then `make setup`"
        )


@cache
def java_home() -> Path:
    """The first of JAVA_HOME, `java` in PATH and /usr/lib/jvm that is Java 17 or 21. Raises JavaMissingError."""
    for candidate in _candidates():
        if version_of(candidate) in SUPPORTED:
            return candidate
    raise JavaMissingError


def version_of(home: Path) -> int | None:
    """The major version of the Java in `home`, None when there is none."""
    program = home / "bin" / "java"
    if not program.exists():
        return None
    said = subprocess.run([str(program), "-version"], check=False, capture_output=True, text=True, timeout=60)
    found = _VERSION.search(said.stderr)
    return int(found[1]) if found else None


def full_version(home: Path) -> str:
    """All that Java says of itself: a class data archive fits this very build only."""
    said = subprocess.run(
        [str(home / "bin" / "java"), "-version"], check=True, capture_output=True, text=True, timeout=60
    )
    return said.stderr.strip()


def _candidates() -> Iterator[Path]:
    named = os.environ.get("JAVA_HOME")
    if named:
        yield Path(named)
    found = shutil.which("java")
    if found:
        yield Path(found).resolve().parents[1]
    for folder in (Path("/usr/lib/jvm"), Path("/opt/java")):
        if folder.is_dir():
            yield from sorted(path for path in folder.iterdir() if path.is_dir())


def ensure() -> Path:
    """Java, by apt-get when there is none and this is root on Debian or Ubuntu. Raises JavaMissingError."""
    try:
        return java_home()
    except JavaMissingError:
        if not apt.may_install():
            raise
    apt.update()
    # releases differ in what they carry; Debian 12 has 17, Debian 13 has 21
    for version in SUPPORTED:
        if apt.install(f"openjdk-{version}-jre-headless").returncode == 0:
            java_home.cache_clear()
            return java_home()
    raise JavaMissingError


def main() -> int:
    """Print where Java is; exit code 1 with one line that says what to install."""
    try:
        found = ensure()
    except (JavaMissingError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"{error if isinstance(error, JavaMissingError) else JavaMissingError()}\n")
        return 1
    sys.stdout.write(f"Java {version_of(found)} in {found}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

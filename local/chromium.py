"""Find Chromium for the tests of the page in Airflow. `python -m local.chromium` installs it where it may."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from local import apt

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class ChromiumMissingError(RuntimeError):
    """No Chromium on this machine."""

    def __init__(self) -> None:
        super().__init__(
            "the tests of the page in Airflow need Chromium and none was found: apt-get install chromium"
            " (or name it in CHROMIUM), then `make test`"
        )


def find() -> Path:
    """`CHROMIUM`, else the first on PATH. Raises ChromiumMissingError."""
    named = os.environ.get("CHROMIUM")
    for name in (named,) if named else NAMES:
        if found := shutil.which(name):
            return Path(found)
    raise ChromiumMissingError


def ensure() -> Path:
    """Chromium, by apt-get when there is none and this is root on Debian. Raises ChromiumMissingError."""
    try:
        return find()
    except ChromiumMissingError:
        if not apt.may_install():
            raise
    apt.update()
    apt.install("chromium", "fonts-dejavu-core").check_returncode()
    return find()


def main() -> int:
    """Print where Chromium is; exit code 1 with one line that says what to install."""
    try:
        found = ensure()
    except (ChromiumMissingError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"{error if isinstance(error, ChromiumMissingError) else ChromiumMissingError()}\n")
        return 1
    sys.stdout.write(f"{found}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

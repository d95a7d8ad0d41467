"""Debian packages for this machine: only as root, only where there is apt-get, and never with a question."""

from __future__ import annotations

import os
import shutil
import subprocess


def may_install() -> bool:
    """Whether this process may install packages: it is root, and there is apt-get."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def update() -> None:
    """Fetch the lists of packages. Raises CalledProcessError."""
    _apt("update", "-qq").check_returncode()


def install(*packages: str) -> subprocess.CompletedProcess[bytes]:
    """Install these, without what they only recommend; the caller looks at the exit code."""
    return _apt("install", "-y", "-qq", "--no-install-recommends", *packages)


def _apt(*words: str) -> subprocess.CompletedProcess[bytes]:
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    return subprocess.run(["apt-get", *words], check=False, env=quiet, stdin=subprocess.DEVNULL)

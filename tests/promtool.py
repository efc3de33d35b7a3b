"""Prometheus's promtool, which tries our alerts. `python -m tests.promtool` gets it if the machine has none: from
Debian's package `prometheus`, of which it unpacks this one program into the user's cache; nothing is installed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mallbots-promtool"


def find() -> str | None:
    """The promtool that is there, or None."""
    return shutil.which("promtool") or shutil.which(CACHE / "promtool")


def install() -> str | None:
    """The promtool that is there, or gets it; None if that can not be done."""
    if find() is None and shutil.which("apt-get") and shutil.which("dpkg-deb"):
        CACHE.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix="mallbots-promtool-", dir=CACHE) as directory:
            if not _download(directory) and os.geteuid() == 0:
                _run(directory, "apt-get", "update", "-qq")
                _download(directory)
            for package in Path(directory).glob("*.deb"):
                if _run(directory, "dpkg-deb", "--extract", package.name, "unpacked"):
                    (Path(directory) / "unpacked/usr/bin/promtool").rename(CACHE / "promtool")
    return find()


def _download(directory: str) -> bool:
    return _run(directory, "apt-get", "download", "-qq", "prometheus")


def _run(directory: str, *command: str) -> bool:
    return subprocess.run(command, cwd=directory, capture_output=True, check=False).returncode == 0


if __name__ == "__main__" and install() is None:
    sys.stderr.write("There is no promtool, so alerts are not tried (Debian: apt-get install prometheus).\n")

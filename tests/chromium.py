"""The Chromium that the browser tests drive. `python -m tests.chromium` gets one if the machine has none.

In this order: `$CHROMIUM`; /usr/bin/chromium; for root, Debian's package; npm's package `@sparticuz/chromium`, of
a version and content that are written here, unpacked into the user's cache."""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

ARGUMENTS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
"""How it is started everywhere: it opens only pages of a mall of ours, and asks nobody else for anything."""

DEBIAN: Final = Path("/usr/bin/chromium")
VERSION: Final = "153.0.0"
SHA512: Final = (
    "8e2196a92bcf31dbb8f8ff538a562a011ef21063c41c8371fa50af13f36a34ef"
    "c41d8cc5ff1d615222394fa8a8548b7b744cbb9fcf1bcb24f4be4f9d9ec810c0"
)
CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / f"mallbots-chromium-{VERSION}"
HOW_TO_GET_ONE: Final = (
    "There is no Chromium for the browser tests. Install your system's (Debian: apt-get install chromium), or set"
    " CHROMIUM to the path of one, or install npm and run `make browser`."
)

_UNBROTLI: Final = (
    "const [, from, to] = process.argv, fs = require('fs');"
    "require('stream').pipeline(fs.createReadStream(from), require('zlib').createBrotliDecompress(),"
    " fs.createWriteStream(to), (error) => { if (error) throw error; });"
)
_FONTS: Final = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>{cache}/fonts</dir><cachedir>{cache}/fonts-cache</cachedir></fontconfig>
"""


@dataclass(frozen=True)
class Chromium:
    """A browser, and the environment it needs besides that of the process."""

    executable: Path
    environment: dict[str, str] = field(default_factory=dict)


def find() -> Chromium | None:
    """The Chromium that is there, or None."""
    chosen = os.environ.get("CHROMIUM")
    if chosen:
        return Chromium(Path(chosen))
    if DEBIAN.exists():
        return Chromium(DEBIAN)
    if (CACHE / "chromium").exists():
        environment = {"LD_LIBRARY_PATH": f"{CACHE / 'lib'}", "FONTCONFIG_FILE": f"{CACHE / 'fonts.conf'}"}
        return Chromium(CACHE / "chromium", environment)
    return None


def install() -> Chromium | None:
    """The Chromium that is there, or gets one; None if that can not be done."""
    found = find()
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        _say("Installing Debian's package chromium …")
        _from_debian()
        found = find()
    if found is None and shutil.which("npm"):
        _say(f"Getting npm's package @sparticuz/chromium {VERSION} into {CACHE} …")
        _from_npm()
        found = find()
    return found


def _from_debian() -> None:
    quietly = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (("update", "-qq"), ("install", "-qq", "--no-install-recommends", "chromium")):
        done = _run("apt-get", "-y", *command, environment=quietly)
        if not done:
            return


def _from_npm() -> None:
    CACHE.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="mallbots-chromium-", dir=CACHE.parent) as directory:
        work = Path(directory)
        if not _run("npm", "pack", "--silent", "--pack-destination", directory, f"@sparticuz/chromium@{VERSION}"):
            return
        [package] = work.glob("*.tgz")
        if hashlib.sha512(package.read_bytes()).hexdigest() != SHA512:
            _say("It is not what it was when its sum was written here, so it is not used.")
            return
        _extract(package, work)
        browser = work / "browser"
        browser.mkdir()
        for name in ("chromium", "al2023.tar", "fonts.tar"):
            packed, unpacked = work / "package" / "bin" / f"{name}.br", browser / name
            if not _run("node", "-e", _UNBROTLI, str(packed), str(unpacked)):
                return
            if unpacked.suffix == ".tar":
                _extract(unpacked, browser)
                unpacked.unlink()
        (browser / "fonts.conf").write_text(_FONTS.format(cache=CACHE))
        (browser / "chromium").chmod(0o755)
        # Whole or not at all, also when two processes get it at once.
        if not CACHE.exists():
            browser.rename(CACHE)


def _extract(archive: Path, into: Path) -> None:
    with tarfile.open(archive) as tar:
        tar.extractall(into, filter="data")


def _run(*command: str, environment: dict[str, str] | None = None) -> bool:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr or done.stdout).strip().splitlines()[-3:]
        _say(f"{' '.join(command[:2])} failed: " + " / ".join(last))
    return done.returncode == 0


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    got = install()
    if got is None:
        _say(HOW_TO_GET_ONE)
        sys.exit(1)

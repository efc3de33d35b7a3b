"""`mallbots backup` and `mallbots restore`: all that an embedded mall knows, in one file.

While a running mall is copied, Temporal stands still. So its sagas and the domains' databases agree as they do
after a crash of Temporal: a step that was under way may be done without its saga having been told, and is done
again, which every step can take. A saga that goes on from a step which the database has forgotten, there is none.

PostgreSQL is copied file by file, never by `pg_dump`: the order of the event logs is that of its transaction ids,
and a dump does not keep them (`events/numbering.py`). The events in NATS are not copied: the databases have them,
and the relays publish them anew into an empty stream.
"""

import gzip
import hashlib
import io
import os
import shutil
import sqlite3
import subprocess
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import datetime
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import IO, Final

import psutil
from pydantic import BaseModel, TypeAdapter
from sqlalchemy.engine import make_url

from kernel.errors import Conflict, InvalidInput, MallError, Misconfigured, NotFound, Unavailable
from kernel.ids import now
from mallbots.embedded import (
    CREDENTIALS_FILE,
    HOST,
    POSTGRES_USER,
    Credentials,
    give_to_postgres,
    postgres_binary,
)
from mallbots.kept_keys import KEY_FILES
from mallbots.migrations import newest_revisions
from mallbots.opening import PASSWORD_FILE
from mallbots.settings import DATABASES, Settings
from mallbots.supervisor import is_owned, running_parts, sole_owner

FORMAT: Final = 1

_MANIFEST: Final = "manifest.json"
_CHECKSUMS: Final = "checksums.json"
_TEMPORAL: Final = "temporal/temporal.db"
_POSTGRES: Final = "postgres"
_PRIVATE_FILES: Final = (CREDENTIALS_FILE, PASSWORD_FILE, *KEY_FILES.values())
_OF_A_RUN: Final = ("postmaster.pid", "postmaster.opts")
_COMPRESSION: Final = 1  # five times as fast as the usual 6, and a tenth larger
_CHUNK: Final = 1 << 20
_PATIENCE: Final = 10.0

Tell = Callable[[str, int, int], None]
"""Told of progress: what is being done, how many bytes of it are, and of how many (0: that is not known)."""


class Manifest(BaseModel, frozen=True):
    """What a backup is: the `format` of its file, the version of MallBots that made it, when, of a mall that ran
    or not, and with which newest revision of each schema. `size` is that of its files, in bytes."""

    format: int
    mallbots: str
    made_at: datetime
    was_running: bool
    schemas: Mapping[str, str]
    size: int


def back_up(data_dir: Path, target: Path, tell: Tell) -> Path:
    """Write all that the mall of `data_dir` knows to the file `target`, or to a new file in that directory, which
    only its owner may read; its path. A name without a suffix is a directory, which is made if there is none. The
    mall may run or not.

    Raises `NotFound` if there is no mall, `Conflict` if the file is there already or the mall opens or closes just
    now, `Misconfigured` if a database of it is not the embedded one, `Unavailable` if it can not be copied.
    """
    if not (data_dir / _TEMPORAL).exists() or not (data_dir / _POSTGRES).exists():
        raise NotFound(f"{data_dir} holds no mall: choose another with --data-dir")
    settings = Settings.load(data_dir)
    _check_embedded(settings)
    made_at = now()
    if not target.suffix and not target.exists():
        target.mkdir(mode=0o700, parents=True)
    if target.is_dir():
        target = target / f"mallbots-{made_at:%Y%m%dT%H%M%SZ}.tar.gz"
    if target.exists():
        raise Conflict(f"{target} is there already, and is not overwritten: choose another name")
    try:
        with TemporaryDirectory(prefix=".mallbots-backup-", dir=target.parent) as directory:
            draft = Path(directory)
            with _copied(settings, draft, tell) as (was_running, sources):
                manifest = Manifest(
                    format=FORMAT,
                    mallbots=version("mallbots"),
                    made_at=made_at,
                    was_running=was_running,
                    schemas=newest_revisions(),
                    size=sum(path.stat().st_size for path in sources.values() if path.is_file()),
                )
                _pack(draft / "archive", manifest, sources, tell)
            os.close(_create(target))  # which fails where something is, as a renaming does not
            (draft / "archive").rename(target)
    except FileExistsError as error:
        raise Conflict(f"{target} is there already, and is not overwritten: choose another name") from error
    except (OSError, sqlite3.Error) as error:
        raise Unavailable(f"the backup could not be made: {error}") from error
    return target


def restore(archive: Path, data_dir: Path, tell: Tell) -> Manifest:
    """Bring what a backup has to a new data directory, whole or not at all; `mallbots up` goes on from there.

    Raises `Conflict` if `data_dir` holds anything or a mall runs there, `InvalidInput` if the file is none of
    ours, is damaged, or was made by a newer MallBots, `Unavailable` if it can not be read or written.
    """
    if is_owned(data_dir):
        raise Conflict(f"a mall is running in {data_dir}: choose a new directory with --data-dir")
    if data_dir.exists() and (not data_dir.is_dir() or any(data_dir.iterdir())):
        raise Conflict(f"{data_dir} is not empty: choose a new directory with --data-dir")
    draft = data_dir.with_name(f".{data_dir.name}.restoring")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700, parents=True)
        try:
            manifest = _unpack(archive, draft, tell)
            give_to_postgres(draft / _POSTGRES)
            # PostgreSQL believes that what it finds is on the disk.
            os.sync()
            draft.rename(data_dir)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error, ValueError) as error:
        raise _damaged(archive, str(error)) from error
    except OSError as error:
        raise Unavailable(f"the backup could not be restored: {error}") from error
    return manifest


def _check_embedded(settings: Settings) -> None:
    for name in DATABASES:
        given = getattr(settings, f"{name}_database_url")
        if given is None:
            continue
        url = make_url(given.get_secret_value())
        if (url.host, url.port) != (HOST, settings.postgres_port):
            raise Misconfigured(
                f"MALLBOTS_{name.upper()}_DATABASE_URL is a server of its own, which this backup would lack: "
                "back up all of them as docs/backup.md says"
            )


@contextmanager
def _copied(settings: Settings, draft: Path, tell: Tell) -> Iterator[tuple[bool, dict[str, Path]]]:
    """Whether the mall runs, and everything that belongs into its backup by its place there; it stays as it is
    within the block."""
    data_dir = settings.data_dir
    private = {name: data_dir / name for name in _PRIVATE_FILES if (data_dir / name).exists()}
    temporal, postgres = draft / "temporal.db", draft / "postgres"
    if is_owned(data_dir):
        parts = running_parts(data_dir)
        if not {"temporal", "postgres"} <= parts.keys() or settings.nats_url is None:
            raise Conflict(f"the mall in {data_dir} is opening or closing: try again when it is open")
        credentials = Credentials.of(data_dir)
        # What is written to the disk now does not have to be while Temporal stands still.
        _run_postgres_tool("psql", settings, credentials, "--dbname=postgres", "--command=CHECKPOINT")
        with _standing_still(parts["temporal"]):
            _copy_sqlite(data_dir / _TEMPORAL, temporal, tell)
            tell("copying PostgreSQL", 0, 0)
            options = ("--wal-method=stream", "--checkpoint=fast", "--no-sync", "--no-manifest")
            _run_postgres_tool("pg_basebackup", settings, credentials, f"--pgdata={postgres}", *options)
        yield True, private | {_TEMPORAL: temporal} | _tree(postgres)
        return
    with sole_owner(data_dir):
        left = running_parts(data_dir)
        if left:
            raise Conflict(f"{', '.join(left)} of a mall that was killed still run: `mallbots up` ends them")
        _copy_sqlite(data_dir / _TEMPORAL, temporal, tell)
        yield False, private | {_TEMPORAL: temporal} | _tree(data_dir / _POSTGRES)


@contextmanager
def _standing_still(process: psutil.Process) -> Iterator[None]:
    """Let a process do nothing for a moment. It goes on with the end of the block, and also if we are killed: then
    the pipe that its waker reads from ends."""
    wake = ("sh", "-c", 'read -r _; kill -CONT "$0"', str(process.pid))
    waker = subprocess.Popen(wake, stdin=subprocess.PIPE, start_new_session=True)
    process.suspend()
    try:
        yield
    finally:
        waker.communicate()
        process.resume()


def _copy_sqlite(source: Path, target: Path, tell: Tell) -> None:
    def told(status: int, remaining: int, total: int) -> None:
        tell("copying Temporal", total - remaining, total)

    with closing(sqlite3.connect(source, timeout=_PATIENCE)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new, pages=1024, progress=told)


def _run_postgres_tool(name: str, settings: Settings, credentials: Credentials, *options: str) -> None:
    address = (
        f"--host={HOST}",
        f"--port={settings.postgres_port}",
        f"--username={POSTGRES_USER}",
        "--no-password",
    )
    environment = {"PATH": os.defpath, "LC_ALL": "C", "PGPASSWORD": credentials.postgres_password}
    command = (str(postgres_binary(name)), *address, *options)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Unavailable(f"PostgreSQL could not be copied: {done.stderr.strip()}")


def _tree(cluster: Path) -> dict[str, Path]:
    """All files and folders of a cluster by their place in the archive."""
    found = {_POSTGRES: cluster}
    for path in sorted(cluster.rglob("*")):
        if path.name not in _OF_A_RUN:
            found[f"{_POSTGRES}/{path.relative_to(cluster)}"] = path
    return found


def _pack(archive: Path, manifest: Manifest, sources: Mapping[str, Path], tell: Tell) -> None:
    checksums: dict[str, str] = {}
    done = 0
    with os.fdopen(_create(archive), "wb") as file:
        with tarfile.open(fileobj=file, mode="w:gz", compresslevel=_COMPRESSION) as tar:
            _add_text(tar, _MANIFEST, manifest.model_dump_json(indent=2))
            for name, path in sources.items():
                if path.is_dir():
                    member = tarfile.TarInfo(name)
                    member.type, member.mode = tarfile.DIRTYPE, 0o700
                    tar.addfile(member)
                    continue
                with path.open("rb") as content:
                    checksums[name] = _add(tar, name, content, os.fstat(content.fileno()).st_size)
                done += path.stat().st_size
                tell("packing", done, manifest.size)
            _add_text(tar, _CHECKSUMS, _FILES.dump_json(checksums).decode())
        file.flush()
        os.fsync(file.fileno())


def _create(path: Path) -> int:
    """The descriptor of a new file that only its owner may read."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)


def _add(tar: tarfile.TarFile, name: str, content: IO[bytes], size: int) -> str:
    """Add a file, and give its SHA-256."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o600
    digesting = _Digesting(content)
    tar.addfile(member, digesting)
    return digesting.digest.hexdigest()


def _add_text(tar: tarfile.TarFile, name: str, text: str) -> None:
    _add(tar, name, io.BytesIO(text.encode()), len(text.encode()))


class _Digesting(io.RawIOBase):
    """A file whose SHA-256 is known once it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self.digest = hashlib.sha256()
        self._file = file

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.digest.update(data)
        return data


def _unpack(archive: Path, draft: Path, tell: Tell) -> Manifest:
    """Bring the files of an archive to a draft of a data directory. Raises `InvalidInput` if it is not ours or
    lacks anything, and what `tarfile` and `gzip` raise for a damaged one."""
    checksums: dict[str, str] = {}
    done = 0
    with tarfile.open(archive, mode="r:gz") as tar:
        manifest = _manifest(archive, tar)
        while (member := tar.next()) is not None:
            if member.name == _CHECKSUMS:
                if _FILES.validate_json(_read(tar, member)) != checksums:
                    raise _damaged(archive, "a file is not as it was")
                return manifest
            path = draft / _place(archive, member.name)
            if member.isdir():
                path.mkdir(mode=0o700, exist_ok=True)
                continue
            if not member.isreg():
                raise _damaged(archive, f"{member.name} is no file")
            path.parent.mkdir(mode=0o700, exist_ok=True)
            content = tar.extractfile(member)
            assert content is not None
            digesting = _Digesting(content)
            with os.fdopen(_create(path), "wb") as file:
                shutil.copyfileobj(digesting, file, _CHUNK)
            checksums[member.name] = digesting.digest.hexdigest()
            done += member.size
            tell("restoring", done, manifest.size)
    raise _damaged(archive, "its end is missing")


def _manifest(archive: Path, tar: tarfile.TarFile) -> Manifest:
    first = tar.next()
    if first is None or first.name != _MANIFEST:
        raise InvalidInput(f"{archive} is no backup of a mall", "archive")
    text = _read(tar, first)
    newer = "was made by a newer MallBots: restore it with that"
    if _FormatOnly.model_validate_json(text).format > FORMAT:
        raise InvalidInput(f"{archive} {newer}", "archive")
    manifest = Manifest.model_validate_json(text)
    ours = newest_revisions()
    if any(name not in ours or revision > ours[name] for name, revision in manifest.schemas.items()):
        raise InvalidInput(f"{archive} {newer} ({manifest.mallbots})", "archive")
    return manifest


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    content = tar.extractfile(member)
    assert content is not None
    return content.read()


def _place(archive: Path, name: str) -> PurePosixPath:
    """Where a member belongs, which is never outside of the data directory."""
    place = PurePosixPath(name)
    if place.is_absolute() or ".." in place.parts:
        raise _damaged(archive, f"{name} is no place in a data directory")
    return place


def _damaged(archive: Path, how: str) -> MallError:
    return InvalidInput(f"{archive} is damaged, or no backup of a mall ({how}): nothing was restored", "archive")


class _FormatOnly(BaseModel):
    """As much of a manifest as every format has."""

    format: int


_FILES: Final = TypeAdapter(dict[str, str])

"""Files by path or URL: downloads that resume, a cache by digest, refusal of a mismatch."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

from publisher.errors import BuildError, HostError, ProviderError, PublishError, UnreachableError
from publisher.fetch import openpgp, web
from publisher.fetch.location import Url, locate
from publisher.fetch.sums import Digest, digest_file, lookup
from publisher.model import GIB, MIB
from publisher.task import Task

CHUNK = 256 * 1024
RESERVE = 64 * MIB
"""Bytes of the file system that a download leaves free."""
SMALL = 16 * MIB
"""The most that a list of digests or a signature may be."""


@dataclass(frozen=True, slots=True)
class SignedSums:
    """A list of digests and what makes it trustworthy. Without `signature` the
    list itself must be signed (clear-signed). `key_file` holds public keys."""

    sums: str
    signature: str | None
    key_file: Path


Trust: TypeAlias = Digest | SignedSums


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file that is here and is what it should be."""

    path: Path
    digest: Digest


def fetch(
    location: str,
    *,
    trust: Trust | None,
    directory: Path,
    cache: Path,
    task: Task,
    key: str = "",
) -> Fetched:
    """Bring a file here, or find it: a path stays where it is, a URL goes to `cache`.

    `trust` may be None for a path only. `key` is the pipeline's key path for
    errors. Raises BuildError when the file can't be had or is not what it should
    be (a bad download is deleted), HostError when this machine lacks the space.
    """
    with _blaming(key):
        source = locate(location, directory, key)
        expected = trust
        if isinstance(trust, SignedSums):
            expected = _signed_digest(source, trust, directory, task)
        assert expected is None or isinstance(expected, Digest)
        if isinstance(source, Path):
            return _local(source, expected, task)
        if expected is None:
            raise BuildError(f"no digest is given for {source}", hint="add its sha256 or sha512")
        return Fetched(_cached(source, expected, cache, task), expected)


def resolve(
    location: str, trust: SignedSums, *, directory: Path, task: Task, key: str = ""
) -> Digest:
    """What a signed list says of a file now. Raises what `fetch` raises."""
    with _blaming(key):
        return _signed_digest(locate(location, directory, key), trust, directory, task)


@contextlib.contextmanager
def _blaming(key: str) -> Iterator[None]:
    """Errors name the pipeline's key path."""
    try:
        yield
    except ProviderError as error:
        raise BuildError(
            f"cannot download {error.message}", key=key, hint="run again later: it continues"
        ) from error
    except PublishError as error:
        error.key = error.key or key
        raise


def _signed_digest(source: Path | Url, trust: SignedSums, directory: Path, task: Task) -> Digest:
    task.phase(f"checking the signature of {_shown(trust.sums, directory)}")
    signed = _small(trust.sums, directory, task)
    signature = _small(trust.signature, directory, task) if trust.signature else None
    where = _shown(trust.sums, directory)
    content = openpgp.verify(signed, signature, trust.key_file, task, where)
    return lookup(content.decode(errors="replace"), source.name, where)


def _shown(location: str, directory: Path) -> str:
    found = locate(location, directory)
    return found.name if isinstance(found, Path) else str(found)


def _small(location: str, directory: Path, task: Task) -> bytes:
    """A small file's bytes."""
    source = locate(location, directory)
    if isinstance(source, Path):
        try:
            with source.open("rb") as file:
                data = file.read(SMALL + 1)
        except OSError as error:
            raise BuildError(f"cannot read {source}: {error.strerror}") from error
    else:
        url = source

        def read(line: web.Line) -> bytes:
            with web.opened(url, {}, line) as response:
                found: bytes = response.read(SMALL + 1)
                return found

        data = task.retry(lambda: web.interruptible(task, read))
    if len(data) > SMALL:
        raise BuildError(f"{_shown(location, directory)} is too large for what it should be")
    return data


def _local(path: Path, expected: Digest | None, task: Task) -> Fetched:
    if not path.is_file():
        raise BuildError(f"{path} does not exist or is not a file", hint="check the path")
    task.phase(f"checking {path.name}")
    algorithm = expected.algorithm if expected else "sha256"
    try:
        found = Digest(algorithm, digest_file(path, algorithm, task.check))
    except OSError as error:
        raise HostError(f"cannot read {path}: {error.strerror}") from error
    if expected is not None and found != expected:
        raise _mismatch(str(path), expected, found.value)
    return Fetched(path, found)


def _mismatch(where: str, expected: Digest, found: str) -> BuildError:
    return BuildError(
        f"{where} has the {expected.algorithm} {found} instead of {expected.value}",
        hint="the file was changed or damaged; take a new digest only from a source you trust",
    )


@contextlib.contextmanager
def _locked(path: Path, task: Task) -> Iterator[None]:
    """Only one download of a file at a time, across processes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        waiting = False
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not waiting:
                    task.phase("waiting for another build that downloads the same file")
                waiting = True
                task.sleep(0.5)
        yield
    finally:
        os.close(handle)


def _cached(url: Url, expected: Digest, cache: Path, task: Task) -> Path:
    target = cache / f"{expected.algorithm}-{expected.value}"
    with _locked(cache / f"{target.name}.lock", task):
        if target.is_file():
            task.phase(f"checking {url.name} in the cache")
            if digest_file(target, expected.algorithm, task.check) == expected.value:
                os.utime(target)  # the cache drops what was not used for long
                return target
            target.unlink()
        partial = _Partial(target, expected.algorithm, task)
        while True:
            found = partial.complete(url)
            if found == expected.value:
                break
            resumed = partial.pieces > 1
            partial.discard()
            if not resumed:
                raise _mismatch(str(url), expected, found)
            task.note(f"{url.name} does not fit together: downloading all of it again", "warning")
        partial.keep()
        return target


@dataclass(slots=True)
class _Origin:
    """What the server said of the file whose first bytes are here."""

    url: str = ""
    etag: str = ""
    modified: str = ""
    total: int = 0

    @property
    def validator(self) -> str:
        """For If-Range, which takes no weak ETag (RFC 9110, 13.1.5)."""
        return self.modified if self.etag.startswith("W/") or not self.etag else self.etag


class _Partial:
    """A file on its way: its bytes so far, and from where they came.

    `pieces` counts the answers that it was put together from."""

    def __init__(self, target: Path, algorithm: str, task: Task) -> None:
        self._target = target
        self._path = target.with_name(f"{target.name}.partial")
        self._notes = target.with_name(f"{target.name}.partial.json")
        self._algorithm = algorithm
        self._digest = hashlib.new(algorithm)
        self._task = task
        self._size = 0
        self._done = False
        self._origin = _Origin()
        self.pieces = 0
        self._remember_earlier()

    def _remember_earlier(self) -> None:
        try:
            origin = _Origin(**json.loads(self._notes.read_text()))
            with self._path.open("rb") as file:
                while data := file.read(4 * MIB):
                    self._task.check()
                    self._digest.update(data)
                    self._size += len(data)
        except (OSError, ValueError, TypeError):
            self._restart(_Origin())
            return
        self._origin = origin
        self.pieces = 1 if self._size else 0

    def _restart(self, origin: _Origin) -> None:
        self._digest = hashlib.new(self._algorithm)
        self._size = 0
        self._origin = origin
        self.pieces = 0
        with self._room(origin.total):
            self._path.write_bytes(b"")
            self._notes.write_text(json.dumps(asdict(origin)))

    def discard(self) -> None:
        self._restart(_Origin())
        self._done = False
        self._path.unlink()
        self._notes.unlink()

    def keep(self) -> None:
        with self._path.open("rb") as file:
            os.fsync(file.fileno())
        os.chmod(self._path, 0o444)
        os.replace(self._path, self._target)
        self._notes.unlink(missing_ok=True)

    def complete(self, url: Url) -> str:
        """Load what is missing; returns the hex digest of the whole."""
        self._task.phase(f"downloading {url}")
        while not self._done:
            self._task.retry(
                lambda: web.interruptible(self._task, lambda line: self._load(url, line))
            )
        return self._digest.hexdigest()

    def _load(self, url: Url, line: web.Line) -> None:
        """One request. Returns when something new is here, raises when nothing is."""
        headers = {}
        if self._size:
            headers["Range"] = f"bytes={self._size}-"
            if self._origin.validator:
                headers["If-Range"] = self._origin.validator
        before = self._size
        try:
            with web.opened(url, headers, line) as response:
                self._begin(url, response)
                before = min(before, self._size)
                self._receive(response, line)
        except web.Refused as error:
            if error.code != 416 or not headers:
                raise
            if error.content_range.rpartition("/")[2] == str(self._size):
                self._done = True
                return
            self._restart(_Origin())
            raise UnreachableError(f"{url} is now shorter than before", transient=True) from error
        except UnreachableError:
            if line.cut or self._size - before < MIB:
                raise
        if not self._done and not line.cut and self._size - before < MIB:
            raise UnreachableError(f"{url}: the connection was cut", transient=True)

    def _begin(self, url: Url, response: web.Answer) -> None:
        """Decide by the answer's head where its bytes go."""
        headers = response.headers
        if response.status == 206:
            span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", ""))
            if not span or int(span[1]) != self._size:
                self._restart(_Origin())
                raise UnreachableError(f"{url}: the server sent other bytes", transient=True)
            if span[2] not in ("*", str(self._origin.total or span[2])):
                self._restart(_Origin())
                raise UnreachableError(f"{url} was changed on the server", transient=True)
            self._origin.total = 0 if span[2] == "*" else int(span[2])
        else:
            if self._size:
                self._task.note(
                    f"{url.name} can't be continued (changed, or the server has no ranges): "
                    "downloading all of it again"
                )
            length = headers.get("Content-Length", "")
            self._restart(
                _Origin(
                    str(url),
                    headers.get("ETag", ""),
                    headers.get("Last-Modified", ""),
                    int(length) if length.isdigit() else 0,
                )
            )
        self.pieces += 1
        _require_space(self._path.parent, self._origin.total - self._size)

    def _receive(self, response: web.Answer, line: web.Line) -> None:
        total = self._origin.total
        with self._path.open("ab") as file, self._room(total):
            while data := response.read(CHUNK):
                if line.cut:
                    return
                if total and self._size + len(data) > total:
                    self._restart(_Origin())
                    raise UnreachableError("the server sent more than it said", transient=True)
                file.write(data)
                file.flush()
                self._digest.update(data)
                self._size += len(data)
                self._task.progress(self._size, total)
        self._done = not line.cut and (not total or self._size == total)

    @contextlib.contextmanager
    def _room(self, total: int) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise _no_space(self._path.parent, total - self._size) from error


def _require_space(directory: Path, needed: int) -> None:
    if needed > 0 and shutil.disk_usage(directory).free < needed + RESERVE:
        raise _no_space(directory, needed)


def _no_space(directory: Path, needed: int) -> HostError:
    free = shutil.disk_usage(directory).free
    size = f"{needed / GIB:.1f} GiB" if needed > 0 else "more"
    return HostError(
        f"the download needs {size} in {directory}, where {free / GIB:.1f} GiB are free",
        hint="free some space, then run the same command again: it continues",
    )

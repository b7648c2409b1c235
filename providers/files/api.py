"""A place that holds files: what is done there, retried and with errors classified.

Two kinds: a directory of this machine, and whatever fsspec writes to.
"""

from __future__ import annotations

import errno
import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from providers.files.options import is_remote
from publisher.errors import (
    CredentialsError,
    ProviderError,
    PublishError,
    QuotaError,
    UnreachableError,
    UsageError,
)
from publisher.model import MIB
from publisher.task import Task

T = TypeVar("T")

NAME = "files"
CHUNK = 4 * MIB
ENDPOINT = "PUBLISH_FILES_ENDPOINT"
"""The variable that names a URL under which all places are put, as AWS_ENDPOINT_URL
does for S3: /srv/images becomes ENDPOINT/srv/images."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PASSING = (errno.EAGAIN, errno.EIO, errno.EBUSY, errno.EINTR, errno.ESTALE, errno.ETIMEDOUT)
_VANISHED = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN)

# What the libraries below fsspec raise, where fsspec's file systems let it through.
_NOBODY = ("EndpointConnectionError", "ClientConnectorError", "NoValidConnectionsError")
_NO_CREDENTIALS = ("NoCredentialsError", "DefaultCredentialsError", "AuthenticationException")


class Place(ABC):
    """Files by their path from the root of the place, with slashes between.

    A written file is whole or not there. Every method may be repeated; none is
    surprised by what an earlier, interrupted call left behind.
    """

    local: Path | None = None
    """The root, if it is a directory of this machine."""

    def __init__(self, url: str, task: Task) -> None:
        self.url = url
        self.task = task

    # -- for callers: retried, errors classified

    def read(self, path: str) -> bytes | None:
        """A small file, or None when it is not there."""
        return self._absent(lambda: self._read(path))

    def size(self, path: str) -> int | None:
        """Bytes of a file, or None when it is not there."""
        return self._absent(lambda: self._size(path))

    def names(self, directory: str) -> list[str]:
        """What stands in a directory, sorted; nothing when it is not there."""
        return sorted(self._absent(lambda: self._names(directory)) or [])

    def write(self, path: str, data: bytes) -> None:
        """Write or replace a small file."""
        self.do(lambda: self._write(path, data))

    def write_once(self, path: str, data: bytes) -> None:
        """`write` without a retry."""
        self.classified(lambda: self._write(path, data))

    def put(self, source: Path, path: str) -> None:
        """Write or replace a file with a local one's content."""
        self.do(lambda: self._put(source, path))

    def stream(self, path: str, offset: int = 0) -> Iterator[bytes]:
        """The content from `offset` on, in pieces of at most 4 MiB."""
        size = self.size(path)
        if size is None:
            raise ProviderError(f"{self.url}/{path} is not there", provider=NAME)
        for at in range(offset, size, CHUNK):
            end = min(at + CHUNK, size)
            piece = self.do(lambda at=at, end=end: self._range(path, at, end))  # type: ignore[misc]
            yield piece

    def digest(self, path: str) -> str:
        """SHA-256 of a file's content in hex, read back."""
        digest, done = hashlib.sha256(), 0
        size = self.size(path) or 0
        for piece in self.stream(path):
            digest.update(piece)
            done += len(piece)
            self.task.progress(done, size)
        return digest.hexdigest()

    def move(self, source: str, target: str) -> None:
        """Move a directory's files to another place; SHA256SUMS goes last. What is
        not there any more has been moved before."""
        self.do(lambda: self._move(source, target))

    def remove(self, path: str) -> None:
        """Remove a file; gone already is fine."""
        self._absent(lambda: self._remove(path))

    def remove_all(self, directory: str) -> None:
        """Remove a directory with its files; gone already is fine."""
        for name in self.names(directory):
            self.remove(f"{directory}/{name}")
        self._absent(lambda: self._remove_directory(directory))

    def do(self, call: Callable[[], T]) -> T:
        return self.task.retry(lambda: self.classified(call))

    def classified(self, call: Callable[[], T]) -> T:
        """Call once, whatever it raises turned into this project's errors."""
        try:
            return call()
        except PublishError:
            raise
        except Exception as error:
            raise classify(error, self.url) from error

    def _absent(self, call: Callable[[], T]) -> T | None:
        def tolerant() -> T | None:
            try:
                return call()
            except (FileNotFoundError, NotADirectoryError):
                return None

        return self.do(tolerant)

    def sweep(self) -> None:  # noqa: B027 - most places need none
        """Remove what killed processes left behind long ago."""

    # -- for the two kinds

    def prepare(self, path: str) -> Path:
        """Make the directories above a file of a directory; returns where it goes."""
        raise NotImplementedError

    @abstractmethod
    def _read(self, path: str) -> bytes: ...

    @abstractmethod
    def _range(self, path: str, start: int, end: int) -> bytes: ...

    @abstractmethod
    def _size(self, path: str) -> int: ...

    @abstractmethod
    def _names(self, directory: str) -> list[str]: ...

    @abstractmethod
    def _write(self, path: str, data: bytes) -> None: ...

    @abstractmethod
    def _put(self, source: Path, path: str) -> None: ...

    @abstractmethod
    def _move(self, source: str, target: str) -> None: ...

    @abstractmethod
    def _remove(self, path: str) -> None: ...

    @abstractmethod
    def _remove_directory(self, directory: str) -> None: ...


def open_place(url: str, task: Task) -> Place:
    """The place of a URL or an absolute path; makes nothing and asks nothing."""
    endpoint = os.environ.get(ENDPOINT, "").rstrip("/")
    if endpoint and not is_remote(endpoint) and not os.path.isabs(endpoint):
        raise UsageError(f"{ENDPOINT}={endpoint} is no URL", hint="write PROTOCOL://PLACE")
    actual = f"{endpoint}/{url.replace('://', '/').lstrip('/')}" if endpoint else url
    if is_remote(actual):
        from providers.files.remote import Remote

        return Remote(url, actual, task)
    from providers.files.directory import Directory

    return Directory(url, Path(actual), task)


def classify(error: Exception, url: str) -> PublishError:
    """What went wrong at a place, in this project's terms.

    fsspec's file systems raise OSError where they can; what their libraries
    raise beside that is told by its HTTP status.
    """
    number = error.errno if isinstance(error, OSError) else None
    status = next(
        (
            s
            for name in ("code", "status", "status_code")
            if type(s := getattr(error, name, 0)) is int
        ),
        0,
    )
    message = f"{url}: {error}" if str(error) else f"{url}: {type(error).__name__}"
    kind = type(error).__name__
    if isinstance(error, PermissionError) or status in (401, 403) or kind in _NO_CREDENTIALS:
        return CredentialsError(
            message, provider=NAME, hint="check the credentials, or the directory's permissions"
        )
    if number in _FULL or status == 507:
        return QuotaError(message, provider=NAME, hint="free some space there")
    if isinstance(error, ConnectionRefusedError) or number in _VANISHED or kind in _NOBODY:
        return UnreachableError(
            message, provider=NAME, transient=True, hint="check the URL and the network"
        )
    passing = isinstance(error, ConnectionError | TimeoutError | BlockingIOError)
    transient = passing or number in _PASSING or status in (408, 429) or 500 <= status < 600
    return ProviderError(
        message,
        provider=NAME,
        code=str(status or number or kind),
        transient=transient,
        hint="check the URL and what is there",
    )

"""Digests of local files, each read once in a process."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

SETTLED = 2.0
"""Seconds since a file last changed, before what was read counts for later: its times
are kept in steps of up to this much (FAT's), within which it may change unseen."""

_known: dict[tuple[int, ...], bytes] = {}


def _identity(info: os.stat_result) -> tuple[int, ...]:
    # nobody can set ctime back, as they can mtime
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns


def sha256(path: Path) -> bytes:
    """The sha256 of a file. A build asks for that of its source when it is planned and
    when it begins: a large one is not read again while nothing has written to it."""
    now = time.time()
    with path.open("rb") as file:
        before = os.fstat(file.fileno())
        identity = _identity(before)
        if identity in _known:
            return _known[identity]
        digest = hashlib.file_digest(file, "sha256").digest()
        after = _identity(os.fstat(file.fileno()))
    if identity == after and max(before.st_mtime, before.st_ctime) < now - SETTLED:
        _known[identity] = digest
    return digest

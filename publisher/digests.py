"""Digests of local files, each read once in a process, large ones once in a state directory."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import time
from pathlib import Path

SETTLED = 2.0
"""Seconds since a file last changed, before what was read counts for later: its times
are kept in steps of up to this much (FAT's), within which it may change unseen."""
LARGE = 16 << 20
"""A smaller file is read sooner than it is looked up."""
MOST = 1000
"""Files that are remembered, the last ones."""

_known: dict[tuple[int, ...], bytes] = {}
_kept: Path | None = None


def keep(state: Path) -> None:
    """Remember in the state directory, once there is one, which large files were read,
    and know those that earlier processes have read."""
    global _kept
    _kept = state / "digests.json"


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
        found = _known.get(identity) or _recalled(identity)
        if found is not None:
            _known[identity] = found
            return found
        digest = hashlib.file_digest(file, "sha256").digest()
        after = _identity(os.fstat(file.fileno()))
    if identity == after and max(before.st_mtime, before.st_ctime) < now - SETTLED:
        _known[identity] = digest
        _remember(identity, digest)
    return digest


def _name(identity: tuple[int, ...]) -> str:
    return ":".join(map(str, identity))


def _read() -> dict[str, str]:
    try:
        assert _kept is not None
        found = json.loads(_kept.read_text())
        return {name: digest for name, digest in found.items() if len(bytes.fromhex(digest)) == 32}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _recalled(identity: tuple[int, ...]) -> bytes | None:
    _, _, size, *_ = identity
    if _kept is None or size < LARGE:
        return None
    found = _read().get(_name(identity))
    return bytes.fromhex(found) if found is not None else None


def _remember(identity: tuple[int, ...], digest: bytes) -> None:
    _, _, size, *_ = identity
    if _kept is None or size < LARGE or not _kept.parent.is_dir():
        return
    found = _read()
    while len(found) >= MOST:
        del found[next(iter(found))]
    found[_name(identity)] = digest.hex()
    partial = _kept.with_suffix(f".{secrets.token_hex(4)}.partial")
    try:
        partial.write_text(json.dumps(found))
        os.replace(partial, _kept)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()

"""Zeros that take no space: holes in a file."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable

from publisher.errors import HostError
from publisher.model import MIB, Extent

_PUNCH = 0x01 | 0x02  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE


def _punch(handle: int, extent: Extent) -> bool:
    """Make a hole; False where the file system can't."""
    libc = ctypes.CDLL(None, use_errno=True)
    offset, length = ctypes.c_int64(extent.offset), ctypes.c_int64(extent.length)
    while libc.fallocate(handle, _PUNCH, offset, length):
        code = ctypes.get_errno()
        if code == errno.EINTR:
            continue
        if code in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM):
            return False
        raise HostError(f"cannot make a hole in a file: {os.strerror(code)}")
    return True


def clear(handle: int, extent: Extent, check: Callable[[], None] = lambda: None) -> None:
    """Make all bytes of `extent` zero: a hole, or written zeros where the file system has
    no holes (fallocate(2)). Raises HostError."""
    check()
    if not _punch(handle, extent):
        for at in range(extent.offset, extent.end, MIB):
            check()
            os.pwrite(handle, bytes(min(MIB, extent.end - at)), at)

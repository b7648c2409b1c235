"""A disk of somebody else's making becomes the build's work disk: raw, and grown."""

from __future__ import annotations

from pathlib import Path

from publisher.build.grow import grow
from publisher.disks import foreign
from publisher.errors import BuildError, HostError, PublishError
from publisher.fetch import unpack
from publisher.model import MIB
from publisher.task import Task


def adopt(path: Path, size: int, into: Path, task: Task, key: str) -> Path:
    """`path` (of any format that is read here, also packed or in an OVA) as the raw
    disk `into` of `size` bytes.

    `key` is the pipeline's key path of the source. Raises BuildError when the
    disk is damaged, larger than `size`, or no disk; HostError without space.
    """
    unpacked = into.with_name("unpacked")
    try:
        # a disk file may be a little larger than the disk: tables, headers, a tar around it
        found = unpack(path, unpacked, size + size // 16 + 64 * MIB, task)
        virtual = int(foreign.describe(found, task.check)["virtual-size"])
        if virtual > size:
            raise _too_large(virtual, size)
        if virtual < MIB:
            raise BuildError(
                f"{path.name} is no disk image: it holds {virtual} bytes",
                hint="look at it with: qemu-img info FILE",
            )
        foreign.convert(found, into, task)
    except PublishError as error:
        error.key = error.key or key
        if type(error) is not PublishError:
            raise
        raise BuildError(error.message, key=key, hint=error.hint) from error
    finally:
        unpacked.unlink(missing_ok=True)
    try:
        grow(into, size)
    except OSError as error:
        raise HostError(f"cannot write {into}: {error.strerror}") from error
    return into


def _too_large(virtual: int, size: int) -> BuildError:
    wanted = -(-virtual // MIB)
    return BuildError(
        f"the source's disk has {wanted} MiB, the image only {size // MIB}",
        key="build.size",
        hint=f'write size = "{wanted}MiB" or more',
    )

"""A copy of a sealed disk that is broken in one way after the other, and mended in
between: without root, mounts or loop devices."""

from __future__ import annotations

import functools
import io
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from publisher.disks import extents
from publisher.fetch.decode import decoded, kind
from publisher.model import MIB, Disk
from publisher.proof.inspect.budget import Budget
from publisher.proof.inspect.inspection import Inspection
from publisher.proof.inspect.partitions import Partition
from publisher.proof.inspect.storage import RawFile
from publisher.proof.inspect.tree import Tree

_PIECE = 1 * MIB
_DAY = 86_400.0
"""All tests of the module look through the same reader."""
_WORDS = ("debugfs ", "Allocated inode:")
"""What debugfs says when all went well."""


class Workbench:
    """The copy at `path`; paths of files are those in the root file system."""

    def __init__(self, sealed: Path, directory: Path) -> None:
        self.path = directory / "broken.raw"
        self._sealed = sealed
        self._scratch = directory / "content"
        subprocess.run(["cp", "--sparse=always", sealed, self.path], check=True)
        self.path.chmod(0o600)
        budget = Budget(seconds=_DAY)
        self._storage = RawFile(sealed, budget)
        inspection = Inspection(self._storage, budget)
        self.tree: Tree = inspection.tree()
        self.table: Mapping[int, Partition] = {p.number: p for p in inspection.table().partitions}
        (kernel,) = inspection.kernels()
        root = inspection.root().partition
        esp = inspection.esp_volume()
        assert root is not None
        assert esp is not None
        assert esp.partition is not None
        self.root, self.esp = root, esp.partition
        self.version = kernel.version
        (self.initrd,) = kernel.initrds
        self.kernel = kernel.image

    def close(self) -> None:
        self._storage.close()
        self.path.unlink(missing_ok=True)

    def mend(self) -> None:
        """Make the copy like the sealed disk again."""
        size = self._storage.size
        os.truncate(self.path, size)
        with self._sealed.open("rb") as good, self.path.open("r+b") as copy:
            both = [e for f in (good, copy) for e in extents.of_file(f.fileno(), size)]
            for extent in extents.merge(both):
                for at in range(extent.offset, extent.end, _PIECE):
                    length = min(_PIECE, extent.end - at)
                    wanted = os.pread(good.fileno(), length, at)
                    if os.pread(copy.fileno(), length, at) != wanted:
                        os.pwrite(copy.fileno(), wanted, at)

    def disk(self) -> Disk:
        with self.path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            return Disk(self.path, size, "", tuple(extents.of_file(file.fileno(), size)))

    @functools.cached_property
    def archive(self) -> bytes:
        """The sealed disk's initramfs, unpacked."""
        packed = io.BytesIO(self.tree.read(self.initrd, 256 * MIB))
        with decoded(packed, kind(packed.getvalue()[:512]), 160 * MIB) as source:
            return b"".join(iter(lambda: source.read(MIB), b""))

    # -- bytes

    def overwrite(self, offset: int, data: bytes) -> None:
        with self.path.open("r+b") as file:
            file.seek(offset)
            file.write(data)

    def sealed_bytes(self, offset: int, length: int) -> bytes:
        return self._storage.read(offset, length)

    def resize(self, size: int) -> None:
        os.truncate(self.path, size)

    def type_of(self, number: int, guid: str) -> None:
        """Give a partition another type."""
        argv = ["sfdisk", "--quiet", "--no-tell-kernel", "--part-type", str(self.path)]
        _run([*argv, str(number), guid])

    # -- files of the root file system

    def read(self, path: str) -> str:
        return self.tree.text(path)

    def write(self, path: str, content: str | bytes, *, program: bool = False) -> None:
        """A file, in place of what is there; its directories are made."""
        self._scratch.write_bytes(content.encode() if isinstance(content, str) else content)
        self._scratch.chmod(0o755 if program else 0o644)
        parts = path.strip("/").split("/")
        above = ["/" + "/".join(parts[:n]) for n in range(1, len(parts))]
        new = [f"mkdir {directory}" for directory in above if not self.tree.exists(directory)]
        old = [f"rm {path}"] if self.tree.find(path, follow=False) else []
        self._debugfs(*new, *old, f"write {self._scratch} {path}")

    def edit(self, path: str, old: str, new: str) -> None:
        text = self.read(path)
        assert old in text, f"{path} has no {old!r}"
        self.write(path, text.replace(old, new))

    def append(self, path: str, text: str) -> None:
        self.write(path, self.read(path) + text)

    def remove(self, *paths: str) -> None:
        self._debugfs(*(f"rm {self._canonical(path)}" for path in paths))

    def link(self, path: str, target: str) -> None:
        old = [f"rm {path}"] if self.tree.find(path, follow=False) else []
        self._debugfs(*old, f"symlink {path} {target}")

    def _canonical(self, path: str) -> str:
        """debugfs does not follow links on the way."""
        place = self.tree.find(path, follow=False)
        assert place is not None, f"there is no {path}"
        return place.path

    def _debugfs(self, *commands: str) -> None:
        done = subprocess.run(
            ["debugfs", "-w", "-f", "-", f"{self.path}?offset={self.root.offset}"],
            input="\n".join(commands),
            capture_output=True,
            text=True,
            env=_ENVIRONMENT,
            check=True,
        )
        # debugfs fails in words only
        said = [line for line in done.stderr.splitlines() if not line.startswith(_WORDS)]
        assert not said, said

    # -- files of the EFI system partition

    def esp_write(self, path: str, content: bytes) -> None:
        self._scratch.write_bytes(content)
        _run(["mcopy", "-o", "-i", self._esp, str(self._scratch), f"::{path}"])

    def esp_remove(self, path: str) -> None:
        _run(["mdel", "-i", self._esp, f"::{path}"])

    def esp_read(self, path: str) -> bytes:
        return _run(["mtype", "-i", self._esp, f"::{path}"])

    @property
    def _esp(self) -> str:
        return f"{self.path}@@{self.esp.offset}"


_ENVIRONMENT = {
    "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
    "MTOOLS_SKIP_CHECK": "1",
    "DEBUGFS_PAGER": "cat",
}


def _run(argv: Sequence[str]) -> bytes:
    return subprocess.run(argv, check=True, capture_output=True, env=_ENVIRONMENT).stdout

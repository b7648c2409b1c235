"""Opens an image archive as Compute Engine does and stores the disk as a sparse file.

https://cloud.google.com/compute/docs/import/import-existing-image#requirements
"""

from __future__ import annotations

from pathlib import Path
from typing import IO

from publisher.disks import sparse_tar
from publisher.disks.raw import is_zero
from publisher.emulation import write_whole
from publisher.model import GIB

PAGE = 64 * 1024
MAGIC = b"\x1f\x8b\x08"


class InvalidImageTar(Exception):
    """`code` is Compute Engine's; users get no more than the first sentence from the real one."""

    code = "INVALID_IMAGE_TAR"

    def __init__(self, why: str) -> None:
        super().__init__(f"The tar archive is not a valid image. ({why})")


class Gunzip:
    """One gzip member, read as a stream; another one behind it is refused."""

    def __init__(self, file: IO[bytes]) -> None:
        from isal import isal_zlib

        self._file = file
        self._inflate = isal_zlib.decompressobj(31)
        self._ready = b""

    def read(self, size: int, /) -> bytes:
        from isal import isal_zlib

        while not self._ready:
            if self._inflate.eof:
                if self._inflate.unused_data or self._file.read(1):
                    raise InvalidImageTar("something follows the first gzip member")
                return b""
            data = self._inflate.unconsumed_tail or self._file.read(1 << 20)
            if not data:
                raise InvalidImageTar("the gzip stream ends too early")
            try:
                self._ready = self._inflate.decompress(data, 8 << 20)
            except isal_zlib.error as error:  # type: ignore[misc]
                raise InvalidImageTar(f"damaged gzip stream: {error}") from None
        taken, self._ready = self._ready[:size], self._ready[size:]
        return taken


def archive(source: Path, into: Path) -> int:
    """Unpack; returns the size of the disk in bytes. Raises InvalidImageTar."""
    with source.open("rb") as packed, into.open("wb") as file:
        if packed.read(3) != MAGIC:
            raise InvalidImageTar("not compressed with gzip")
        packed.seek(0)
        stream = Gunzip(packed)
        try:
            member = sparse_tar.read_member(stream)
            if member.name != "disk.raw":
                raise InvalidImageTar(f"the member is called {member.name!r}, not 'disk.raw'")
            if not member.oldgnu:
                raise InvalidImageTar("the format of the tar archive is not oldgnu")
            if member.size == 0 or member.size % GIB:
                raise InvalidImageTar("the size of disk.raw is not a whole number of GiB")
            file.truncate(member.size)
            for offset, data in sparse_tar.read(stream, member):
                for at in range(0, len(data), PAGE):
                    piece = data[at : at + PAGE]
                    if not is_zero(piece):
                        write_whole(file.fileno(), piece, offset + at)
        except sparse_tar.TarError as error:
            raise InvalidImageTar(str(error)) from None
        return member.size

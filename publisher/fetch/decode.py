"""xz, gzip, bzip2 and zstd as streams: bounded memory, joined streams, damage noticed."""

from __future__ import annotations

import bz2
import contextlib
import functools
import importlib
import lzma
import subprocess
import tarfile
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from publisher.errors import BuildError, HostError
from publisher.model import MIB
from publisher.vm import host, process

MEMORY = 1024 * MIB
"""The most that a decoder may take (`xz -9` needs 65 MiB, `zstd --ultra --long=30` 1 GiB)."""
_CHUNK = 256 * 1024
_MAGIC = {
    "xz": b"\xfd7zXZ\x00",
    "gzip": b"\x1f\x8b\x08",
    "zstd": b"\x28\xb5\x2f\xfd",
    "bzip2": b"BZh",
}
_SUFFIX = {"zstd": ".zst", "lz4": ".lz4"}


class Readable(Protocol):
    def read(self, size: int, /) -> bytes:
        """At most `size` bytes, none only at the end."""


class Decoder(Protocol):
    """What the standard library's incremental decompressors have in common."""

    eof: bool
    needs_input: bool
    unused_data: bytes

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class Headed:
    """A stream whose first bytes can be looked at before they are read."""

    def __init__(self, source: Readable) -> None:
        self._source = source
        self._head = b""

    def head(self, size: int = 512) -> bytes:
        while len(self._head) < size and (more := self._source.read(size - len(self._head))):
            self._head += more
        return self._head

    def read(self, size: int, /) -> bytes:
        if self._head:
            data, self._head = self._head[:size], self._head[size:]
            return data
        return self._source.read(size)


def kind(head: bytes) -> str:
    """What a file is by its first 512 bytes: xz, gzip, zstd, bzip2, ova, tar or "" (a disk)."""
    if head[257:262] == b"ustar":
        # an OVA begins with its descriptor (DSP0243, 5.3)
        return "ova" if head[:100].rstrip(b"\0").lower().endswith(b".ovf") else "tar"
    return next((name for name, magic in _MAGIC.items() if head.startswith(magic)), "")


class _Gzip:
    """zlib's decompressor with the others' manners."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


class Zstd:
    """zstd's decompressor, which complains as the others do; frames whose window is
    larger than 2^`window` bytes fail."""

    def __init__(self, module: Any, window: int) -> None:
        self._error = module.ZstdError
        options = {module.DecompressionParameter.window_log_max: window}
        self._inner: Decoder = module.ZstdDecompressor(options=options)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return self._inner.needs_input

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        try:
            return self._inner.decompress(data, max_length)
        except self._error as error:
            raise EOFError(str(error)) from error


class _Decoded:
    """The decoded bytes of one or more joined streams. Raises EOFError when cut short."""

    def __init__(self, source: Readable, decoder: Callable[[], Any]) -> None:
        self._source = source
        self._new = decoder
        self._decoder: Decoder = decoder()

    def read(self, size: int, /) -> bytes:
        while True:
            data = b""
            if self._decoder.eof:
                data = self._decoder.unused_data.lstrip(b"\0")
                while not data:
                    more = self._source.read(_CHUNK)
                    if not more:
                        return b""
                    data = more.lstrip(b"\0")  # padding between streams
                self._decoder = self._new()
            elif self._decoder.needs_input:
                data = self._source.read(_CHUNK)
                if not data:
                    raise EOFError("it ends too early")
            decoded = self._decoder.decompress(data, size)
            if decoded:
                return decoded


@functools.cache
def zstd_module() -> Any:
    """The standard library's module (Python 3.14) or its backport, if there is one."""
    for name in ("compression.zstd", "backports.zstd"):
        with contextlib.suppress(ImportError):
            return importlib.import_module(name)
    return None


@contextlib.contextmanager
def _process(source: Readable, argv: Sequence[str]) -> Iterator[Readable]:
    """What a program makes of the stream. Its Debian package has its name."""
    tool = argv[0]
    if host.which(tool) is None:
        raise HostError(
            f"{tool} is not installed: it unpacks {_SUFFIX[tool]} files",
            hint=f"install the Debian package {tool}",
        )
    child = process.spawn(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    entrance, exit_, complaints = child.stdin, child.stdout, child.stderr
    failures: list[BaseException] = []

    def feed() -> None:
        try:
            while data := source.read(_CHUNK):
                entrance.write(data)
        except BrokenPipeError:
            pass  # its status tells why
        except BaseException as error:  # raised below, in the reader's thread
            failures.append(error)
        finally:
            with contextlib.suppress(OSError):
                entrance.close()

    class Output:
        def read(self, size: int, /) -> bytes:
            data = exit_.read(size)
            if not data:
                thread.join()
                if failures:
                    raise failures[0]
                if child.wait() != 0:
                    raise EOFError(complaints.read().decode(errors="replace").strip())
            return data

    thread = threading.Thread(target=feed, name=f"{tool}-input", daemon=True)
    thread.start()
    try:
        yield Output()
    finally:
        process.kill(child)
        thread.join(2)
        exit_.close()
        complaints.close()


@contextlib.contextmanager
def decoded(source: Readable, packing: str, memory: int = 0) -> Iterator[Readable]:
    """The bytes inside a stream of that `kind` (no archive), or of lzma or lz4. A
    decoder that wants more than `memory` bytes (MEMORY without a number) fails."""
    memory = memory or MEMORY
    if packing == "zstd":
        module = zstd_module()
        if module is None:
            argv = ("zstd", "--decompress", "--stdout", "--quiet", f"--memory={memory // MIB}MB")
            with _process(source, argv) as output:
                yield output
            return
        yield _Decoded(source, lambda: Zstd(module, memory.bit_length() - 1))
    elif packing == "lz4":
        with _process(source, ("lz4", "--decompress", "--stdout", "--quiet")) as output:
            yield output
    elif packing in ("xz", "lzma"):
        form = lzma.FORMAT_XZ if packing == "xz" else lzma.FORMAT_ALONE
        yield _Decoded(source, lambda: lzma.LZMADecompressor(form, memlimit=memory))
    else:
        yield _Decoded(source, bz2.BZ2Decompressor if packing == "bzip2" else _Gzip)


@contextlib.contextmanager
def damage(name: str) -> Iterator[None]:
    """What decoders raise, as one BuildError."""
    try:
        yield
    except (EOFError, lzma.LZMAError, zlib.error, tarfile.TarError) as error:
        raise BuildError(
            f"{name} is damaged or cut short: {error}", hint="fetch or make it again"
        ) from error
    except OSError as error:
        if error.errno is not None:
            raise
        # bzip2's complaint has no number
        raise BuildError(
            f"{name} is damaged or cut short: {error}", hint="fetch or make it again"
        ) from error

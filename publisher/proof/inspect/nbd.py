"""The virtual bytes of a disk file in any of qemu's formats, read where they are
asked for and nowhere else: qemu-nbd serves them on a socket of our own.

Protocol: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md
"""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from publisher.disks import bounded, foreign
from publisher.errors import HostError, PublishError
from publisher.proof.inspect.budget import Budget, Damaged
from publisher.proof.inspect.storage import inside
from publisher.task import Task
from publisher.vm import process
from publisher.vm.host import require

_START = 30.0
_ANSWER = 60.0
_FIXED_NEWSTYLE, _NO_ZEROES = 1, 2
_EXPORT_NAME, _READ = 1, 0
_REQUEST, _REPLY = 0x25609513, 0x67446698


class Served:
    """Positioned reads from an NBD server; one request at a time."""

    def __init__(self, connection: socket.socket, budget: Budget) -> None:
        self._connection = connection
        self._budget = budget
        self._number = 0
        greeting = self._exactly(18)
        if greeting[:16] != b"NBDMAGICIHAVEOPT":
            raise PublishError("qemu-nbd does not speak NBD")
        bare = struct.unpack(">H", greeting[16:])[0] & _NO_ZEROES
        flags = _FIXED_NEWSTYLE | bare
        option = struct.pack(">I8sII", flags, b"IHAVEOPT", _EXPORT_NAME, 0)
        connection.sendall(option)
        self.size: int = struct.unpack(">QH", self._exactly(10))[0]
        if not bare:
            self._exactly(124)

    def read(self, offset: int, length: int) -> bytes:
        inside(self, offset, length)
        self._budget.charge(length)
        if not length:
            return b""
        self._number += 1
        request = (_REQUEST, 0, _READ, self._number, offset, length)
        try:
            self._connection.sendall(struct.pack(">IHHQQI", *request))
            magic, error, number = struct.unpack(">IIQ", self._exactly(16))
            if magic != _REPLY or number != self._number:
                raise Damaged("qemu-nbd's answers are out of step")
            if error:
                raise Damaged(f"the disk file can't be read at {offset} (error {error})")
            return self._exactly(length)
        except OSError as error:
            raise Damaged(f"the disk file can't be read at {offset}: {error}") from error

    def _exactly(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            piece = self._connection.recv(min(length - len(data), 1 << 20))
            if not piece:
                raise Damaged("qemu-nbd ended: the disk file may be damaged")
            data += piece
        return bytes(data)


@contextlib.contextmanager
def served(path: Path, budget: Budget, task: Task) -> Iterator[Served]:
    """Serve a disk file, read only. Raises HostError without qemu-nbd, PublishError
    for what is no disk file."""
    arguments, _ = foreign.opening(path, task.check)
    with tempfile.TemporaryDirectory(prefix="publish-") as directory:
        address = f"{directory}/nbd"
        argv = [require("qemu-nbd"), "--read-only", "--shared=1", "--discard=ignore"]
        child = process.spawn(
            bounded.command(*argv, f"--socket={address}", *arguments), stderr=subprocess.PIPE
        )
        try:
            with _connect(address, child, task) as connection:
                yield Served(connection, budget)
        finally:
            process.kill(child)
            if child.stderr is not None:
                child.stderr.close()


def _connect(address: str, child: subprocess.Popen[bytes], task: Task) -> socket.socket:
    deadline = time.monotonic() + _START
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(_ANSWER)
    while True:
        task.check()
        try:
            connection.connect(address)
            return connection
        except (FileNotFoundError, ConnectionRefusedError):
            if child.poll() is not None or time.monotonic() > deadline:
                connection.close()
                assert child.stderr is not None
                process.kill(child)
                text = child.stderr.read(2000).decode(errors="replace").strip()
                raise HostError(
                    f"qemu-nbd does not start: {text or 'no message'}",
                    hint="check the file with qemu-img info",
                ) from None
            time.sleep(0.01)

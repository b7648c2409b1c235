"""Commands in the guest over a port of the machine's own, without a network and a login.

A shell of the guest reads what is written to the port and answers there. It is part of
the machine's memory: whoever resumes a checkpoint finds it waiting, where a login over
SSH costs an emulated guest two seconds. It was started by a login once, so commands find
the same environment as over that one.

https://www.qemu.org/docs/master/system/device-emulation.html (virtserialport);
ports are character devices, /dev/virtio-ports/NAME, of which one process at a time may
hold each open (drivers/char/virtio_console.c).
"""

from __future__ import annotations

import secrets
import select
import shlex
import socket
from collections import deque
from collections.abc import Callable, Iterator

from publisher.vm import process

NAME = "org.publisher.shell.0"
LOST = 255
"""The status of a command whose end is not known, as ssh's when its connection fails."""
MOST = 64 * 1024
"""Bytes of standard input, which bash as sh reads one by one."""
KEPT = 200
"""The last lines of a command's output that are kept."""

# In a group of its own that no signal of a terminal is blocked for, as `&` would.
OPEN = f"port=/dev/virtio-ports/{NAME}; [ -c $port ] && exec setsid -f sh 0<>$port 1>&0 2>&1"
"""Start the guest's shell at the port; fails where there is no such port, where another
shell has it open, and where setsid is not util-linux's."""

# The user's shell runs the command as sshd would have it: bash reads .bashrc when it
# believes that a network daemon started it, by SHLVL. `cat` ends when no process holds
# the output open any more, as ssh does: what is left running never speaks into the next
# command. printf, not a here-document, of which some shells make a file on the disk.
_RUN = """\
( unset SHLVL; {feed}"${{SHELL:-/bin/sh}}" -c {command}{empty}; echo "{token} $?" ) 2>&1 | cat
{end}
"""
_RUN_PLAIN = """\
{feed}( {command}
){empty} 2>&1; echo "{token} $?"
{end}
"""
_FORGET = "exec sh -c 'echo {token}.; exec sh'"
"""Answer as another program, which has nothing of what the shell was sent in its memory."""


def takes(stdin: bytes | None) -> bool:
    """Whether a command with this standard input can go over a line."""
    return stdin is None or (len(stdin) <= MOST and b"\0" not in stdin)


class Line:
    """The host's end of the port. `alive` says whether a process of the guest has its
    end open; `check` is called all the while, and raises what ends the guest."""

    def __init__(
        self, end: socket.socket, alive: Callable[[], bool], check: Callable[[], None]
    ) -> None:
        self._end = end
        self._alive = alive
        self._check = check
        self._heard = bytearray()

    def greet(self, attempts: int) -> bool:
        """Whether the guest's shell answers within that many times POLL seconds. What
        was said before is passed over."""
        token = secrets.token_hex(16)
        if not self._send(f"\necho {token}.\n".encode()):
            return False
        return any(line == f"{token}." for line in self._lines(attempts))

    def run(
        self,
        command: str,
        stdin: bytes | None,
        on_line: Callable[[str], None] | None,
        *,
        plain: bool = False,
        private: bool = False,
    ) -> process.Completed:
        """Run a command line of the user's shell to its end; `on_line` gets each line of
        stdout and stderr. Its status is LOST when the guest's shell ended first.

        What is `plain` is written for any shell and leaves nothing running: it needs no
        shell of its own. What is `private` does not stay in the memory of a process."""
        token = secrets.token_hex(16)
        end = _FORGET if private else "echo {token}."
        text = (
            (_RUN_PLAIN if plain else _RUN)
            .format(
                end=end.format(token=token),
                token=token,
                command=command if plain else shlex.quote(command),
                feed="" if stdin is None else "printf %s @INPUT@ | ",
                empty=" </dev/null" if stdin is None else "",
            )
            .encode()
        )
        if stdin is not None:
            text = text.replace(b"@INPUT@", b"'" + stdin.replace(b"'", b"'\"'\"'") + b"'", 1)
        tail: deque[str] = deque(maxlen=KEPT)
        status = LOST
        for line in self._lines() if self._send(text) else ():
            if line == f"{token}.":
                return process.Completed(status, tuple(tail))
            said, found, number = line.partition(f"{token} ")
            if found and number.isdigit():
                status = int(number)
                if not said:
                    continue
            tail.append(said)
            if on_line is not None:
                on_line(said)
        return process.Completed(LOST, tuple(tail))

    def _send(self, data: bytes) -> bool:
        """False when the guest's shell does not read any more."""
        left = memoryview(data)
        while left:
            self._check()
            if select.select([], [self._end], [], process.POLL)[1]:
                try:
                    left = left[self._end.send(left, socket.MSG_DONTWAIT) :]
                except BlockingIOError:
                    continue
                except OSError:
                    return False
            elif not self._alive():
                return False
        return True

    def _lines(self, silences: int | None = None) -> Iterator[str]:
        """What the guest says, line by line, until its shell ends, or has been silent
        for that many times POLL seconds."""
        searched = 0
        while silences is None or silences > 0:
            at = self._heard.find(b"\n", searched)
            if at >= 0:
                line = bytes(self._heard[:at])
                del self._heard[: at + 1]
                searched = 0
                yield line.decode(errors="replace").rstrip("\r")
                continue
            searched = len(self._heard)
            self._check()
            if select.select([self._end], [], [], process.POLL)[0]:
                try:
                    data = self._end.recv(65536)
                except ConnectionResetError:
                    return
                if not data:
                    return
                self._heard += data
            elif not self._alive():
                return
            elif silences is not None:
                silences -= 1

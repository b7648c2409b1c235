"""A shell in the guest over OpenSSH: one connection, commands streamed, trees copied by tar.

Where the machine has a port (publisher.vm.line), commands go over that, and a resumed
machine is not logged in to before something needs more: a tree, a terminal, Ansible."""

from __future__ import annotations

import contextlib
import io
import os
import select
import shlex
import stat
import subprocess
import tarfile
import termios
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from publisher.closing import Closing
from publisher.errors import BootError, BuildError
from publisher.task import Task
from publisher.vm import line, process, script
from publisher.vm.console import Phase
from publisher.vm.host import require
from publisher.vm.keys import ALIAS, Keys
from publisher.vm.machine import BOOT, STALL, Machine
from publisher.vm.network import Network

BANNER = 20.0
"""Seconds to wait for sshd's first line; an emulated guest is slow to fork."""
HANDSHAKE = 120
"""Seconds for a whole login under emulation on a busy host."""
AWAKE = 60.0
"""Seconds that a resumed guest may take to answer, before an older one is tried."""
_LOST = line.LOST
"""The status of ssh when the connection fails, not the command."""
GREETING = 50
"""Times POLL seconds that a resumed guest's shell may take to answer at its port."""
SHUTDOWN = 60.0
"""Seconds that a guest may take to end after its SSH server has."""
DOWN = 600.0
"""Seconds that a guest may take to stop its services before it restarts."""
_VISIT = 'cd && HISTFILE=/dev/null exec "${SHELL:-/bin/sh}" -l'
"""A login shell that leaves no history in the image."""
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a login is waited for, in seconds: for sshd's first line, for any
    sign of life, for the whole boot; `refusals` is how often sshd may say no,
    because it may answer before cloud-init has put our keys in place; `pause` is
    the longest between two attempts."""

    banner: float = BANNER
    stall: float = STALL
    boot: float = BOOT
    refusals: int = 20
    pause: float = 3.0


PATIENCE = Patience()


def listening(network: Network, port: int, timeout: float) -> bool:
    """True when an SSH server answers. The port alone says nothing: QEMU accepts
    connections before the guest does."""
    try:
        with network.connect(port, timeout) as connection:
            return connection.recv(4).startswith(b"SSH-")
    except OSError:
        return False


def options(pair: Keys, *, pinned: bool) -> list[str]:
    """ssh's options, with paths relative to the directory of the keys: the guest's
    host key is pinned, nothing of the user's own configuration counts."""
    settings = {
        "BatchMode": "yes",
        "ConnectTimeout": str(HANDSHAKE),
        "ControlPath": "control",
        "GlobalKnownHostsFile": "/dev/null",
        "HostKeyAlias": ALIAS,
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "IdentityFile": pair.identity.name,
        # the default of newer servers costs an emulated guest twice as much
        "KexAlgorithms": "^curve25519-sha256",
        "LogLevel": "ERROR",
        "PreferredAuthentications": "publickey",
        "ServerAliveCountMax": "20",
        "ServerAliveInterval": "30",
        "StrictHostKeyChecking": "yes" if pinned else "no",
        "UserKnownHostsFile": pair.known_hosts.name if pinned else "/dev/null",
    }
    argv = ["-F", "none"]
    for name, value in settings.items():
        argv += ["-o", f"{name}={value}"]
    return argv


class Shell(Closing):
    """Login of one user in a Machine; a context that ends with the connection.

    `pinned`: only the host key of `keys` is accepted; otherwise any, which is for
    a network that nobody else is in. `awake`: the guest was not booted but resumed,
    so its SSH server answers now or never. `on_wait` is called while the guest boots,
    and may raise what makes waiting any longer useless."""

    def __init__(
        self,
        machine: Machine,
        keys: Keys,
        user: str = "root",
        *,
        patience: Patience = PATIENCE,
        pinned: bool = True,
        awake: bool = False,
        on_wait: Callable[[], None] = lambda: None,
    ) -> None:
        self._machine = machine
        self._keys = keys
        self._user = user
        self._patience = patience
        self._pinned = pinned
        self.answered = False
        """Whether an SSH server greeted, which shows that the guest's network is up."""
        self._awake = awake
        self._on_wait = on_wait
        self._master: subprocess.Popen[bytes] | None = None
        self._line: line.Line | None = None
        self._directory = keys.identity.parent

    # -- connection

    @property
    def task(self) -> Task:
        return self._machine.task

    @property
    def directory(self) -> Path:
        """Private to the build; the paths in `options` are relative to it, because
        ControlPath is a socket, and its path has at most 107 bytes."""
        return self._directory

    @property
    def address(self) -> tuple[str, int, str]:
        """Host, port and user of the login."""
        return "127.0.0.1", self._machine.ssh_port, self._user

    def check(self) -> None:
        """Raise what ended or will end the guest."""
        self._machine.check()

    def options(self) -> list[str]:
        """ssh's options, also for other programs that use it."""
        return options(self._keys, pinned=self._pinned)

    def _ssh(self, *options: str) -> list[str]:
        _, port, user = self.address
        argv = ["ssh", *self.options(), "-p", str(port), "-l", user, *options]
        return self._machine.hardware.network.join(argv)

    def _login(self) -> str:
        """One attempt; "" when logged in, otherwise what ssh said."""
        (self._directory / "control").unlink(missing_ok=True)
        master = process.spawn(
            self._ssh(
                *("-M", "-N", "-o", "PermitLocalCommand=yes", "-o", "LocalCommand=echo ready"),
                "127.0.0.1",
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self._directory,
        )
        assert master.stdout is not None
        assert master.stderr is not None
        deadline = self._machine.task.clock.monotonic() + HANDSHAKE
        try:
            while self._machine.task.clock.monotonic() < deadline:
                self._machine.check()
                if select.select([master.stdout], [], [], process.POLL)[0]:
                    if master.stdout.readline():
                        self._master = master
                        return ""
                    break
        finally:
            if self._master is not master:
                process.kill(master)
                master.stdout.close()
        with master.stderr:
            said = master.stderr.read().decode(errors="replace").strip()
        return said or f"no login within {HANDSHAKE} s"

    def connect(self) -> None:
        """Wait for the guest's sshd and log in. Raises BootError with the phase
        that the boot did not leave."""
        require("ssh")
        machine, clock = self._machine, self._machine.task.clock
        network, patience = machine.hardware.network, self._patience
        awake, self._awake = self._awake, False
        stall = AWAKE if awake else patience.stall
        started = clock.monotonic()
        delay, banner = 0.25, patience.banner
        said = ""
        attempts = 0
        while True:
            machine.check()
            # every connection makes the guest's sshd fork, which takes an emulated one long
            if awake or listening(network, machine.ssh_port, banner):
                machine.tracker.enter(Phase.SSHD)
                self.answered = True
                said = self._login()
                if not said:
                    machine.tracker.enter(Phase.READY)
                    self._open_line()
                    return
                attempts += 1
                if attempts >= patience.refusals:
                    raise machine.boot_error(f"sshd answers but refuses the login: {said}")
            now = clock.monotonic()
            silent = now - max(machine.tracker.heard, started)
            if silent > stall:
                raise machine.boot_error(f"no sign of life for {silent:.0f} s {said}".rstrip())
            if now - started > patience.boot:
                raise machine.boot_error(f"no login after {now - started:.0f} s {said}".rstrip())
            self._on_wait()
            machine.task.cancellation.wait(delay)
            delay = min(delay * 1.5, patience.pause)
            # a short one finds sshd soon, a long one may be needed on a busy machine
            banner = min(banner * 1.1, BANNER)

    def _open_line(self) -> None:
        """Leave a shell at the machine's port, if it has one."""
        wanted = self._machine.hardware.aided and self._user == "root" and self._line is None
        if wanted and self._by_ssh(line.OPEN, None, None).status == 0:
            self._find_line()

    def _find_line(self) -> bool:
        """Whether a shell answers at the machine's port: then commands go over that."""
        found = self._machine.line() if self._user == "root" else None
        if found is not None and found.greet(GREETING):
            self._machine.tracker.enter(Phase.READY)
            self._line = found
        return self._line is not None

    def log_in(self) -> None:
        """Have an SSH connection. Raises BootError when the guest lets nobody in."""
        if self._master is None or self._master.poll() is not None:
            self.hang_up()
            self.connect()

    def reboot(self) -> None:
        """Restart the guest and log in again. Raises BuildError or BootError when it
        does not go down or does not come back."""
        machine, clock = self._machine, self._machine.task.clock
        before = self.output(f"cat {_BOOT_ID}")
        resets = machine.resets
        # QEMU otherwise ends at a reset, so that an unwanted one is noticed
        machine.execute("set-action", reboot="reset")
        machine.task.phase("restarting")
        done = self.command("systemctl reboot || reboot")
        if 0 < done.status < 128:
            raise BuildError(f"the guest refuses to restart: {done.text}")
        self.close()
        deadline = clock.monotonic() + DOWN
        while machine.resets == resets:
            machine.check()
            if clock.monotonic() > deadline:
                raise machine.boot_error(f"it did not restart within {DOWN:.0f} s")
            machine.task.sleep(process.POLL)
        self.connect()
        machine.execute("set-action", reboot="shutdown")
        if self.output(f"cat {_BOOT_ID}") == before:
            raise BuildError("the guest answers again, but did not restart")

    def close(self) -> None:
        self._line = None
        self.hang_up()

    def hang_up(self) -> None:
        """End the SSH connection."""
        master, self._master = self._master, None
        if master is not None:
            process.kill(master)
            for pipe in (master.stdout, master.stderr):
                if pipe is not None:
                    pipe.close()
        (self._directory / "control").unlink(missing_ok=True)

    def __enter__(self) -> Self:
        try:
            if not (self._awake and self._find_line()):
                self.connect()
        except BaseException:
            self.close()
            raise
        return self

    # -- commands

    def command(
        self,
        command: str,
        *,
        stdin: Iterable[bytes] | None = None,
        on_line: Callable[[str], None] | None = None,
        plain: bool = False,
        private: bool = False,
    ) -> process.Completed:
        """Run one command line of the guest's shell; its stdout and stderr come as
        lines. `plain` and `private` are those of a Line. Raises BootError when the guest
        dies under it."""
        short = b"".join(stdin) if isinstance(stdin, list) else None
        if self._line is not None and (stdin is None or short is not None) and line.takes(short):
            done = self._line.run(command, short, on_line, plain=plain, private=private)
            if done.status == _LOST and not self._machine.line():
                self._line = None  # the command ended the shell: from now on by ssh
        else:
            if self._master is None:
                self.connect()
            done = self._by_ssh(command, stdin, on_line)
        if done.status == _LOST:
            self._machine.wait(2)
            self._machine.check()
        return done

    def _by_ssh(
        self,
        command: str,
        stdin: Iterable[bytes] | None,
        on_line: Callable[[str], None] | None,
    ) -> process.Completed:
        return process.run(
            self._ssh("-T", "127.0.0.1", command),
            self._machine.task,
            stdin=stdin,
            on_line=on_line,
            cwd=self._directory,
            check=self._machine.check,
        )

    def interact(self, keyboard: int, screen: int) -> int:
        """A login shell for the user, on a terminal that is given as file descriptors;
        returns its status. Raises BootError when the guest dies under it or does not
        let us in again."""
        self.log_in()
        argv = self._ssh("-tt", "127.0.0.1", _VISIT)
        before = termios.tcgetattr(keyboard)
        # in our own session: only there ssh learns that the terminal's size changed
        child = subprocess.Popen(
            process.command(argv),
            stdin=keyboard,
            stdout=screen,
            stderr=screen,
            cwd=self._directory,
        )
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    status = child.wait(process.POLL)
                    break
                self._machine.check()
        finally:
            child.kill()
            child.wait()
            termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
        if status == _LOST and self._master is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._master.wait(2)
                # the user may have powered the guest off
                self._machine.wait(SHUTDOWN)
            self._machine.check()
        return status

    def leave(self, command: str) -> None:
        """Run a last command, which may end the connection or the guest."""
        if self._line is not None:
            try:
                done = self._line.run(command, None, None, plain=True)
            except BootError:
                if not self._machine.ended:
                    raise
                done = process.Completed(_LOST, ())
        else:
            self.log_in()
            done = process.run(
                self._ssh("-T", "127.0.0.1", command),
                self._machine.task,
                cwd=self._directory,
            )
        self.close()
        if done.status not in (0, _LOST):
            raise BuildError(f"powering the guest off failed: {done.text}")

    def script(
        self,
        text: str,
        *,
        on_line: Callable[[str], None] | None = None,
        interpreter: str = "sh -eu",
        environment: Mapping[str, str] | None = None,
        directory: str = "/",
        timeout: float | None = None,
    ) -> process.Completed:
        """Run a script; its standard input is empty, its text and variables stay in
        the guest's memory (/run) and are removed. Past `timeout` seconds its process
        group is killed. Raises BuildError when variables could reach the guest's disk."""
        if environment:
            self._store(environment)
        whole = script.command_line(interpreter, directory, timeout, environment=bool(environment))
        done = self.command(whole, stdin=[text.encode()], on_line=on_line)
        if timeout is not None and done.status:
            late = self.command(script.was_late(), plain=True).status == 0
            return replace(done, late=late)
        return done

    def _store(self, environment: Mapping[str, str]) -> None:
        exports = script.exports(environment)
        done = self.command(script.store_exports(), stdin=[exports], plain=True, private=True)
        if done.status == 90:
            raise BuildError("/run is on the guest's disk, where variables would stay")
        if done.status == 91:
            raise BuildError(
                "the guest swaps to its disk, where variables could stay",
                hint="turn swapping off in a step before: swapoff -a",
            )
        if done.status:
            raise BuildError(f"the variables did not reach the guest: {done.text}")

    def output(self, command: str) -> str:
        """What a short command printed. Raises BuildError when it fails."""
        done = self.command(command, plain=True)
        if done.status:
            raise BuildError(f"`{command}` failed in the guest: {done.text}")
        return done.text

    # -- copying

    def ids(self, owner: str) -> tuple[int, int]:
        """The guest's numbers for "user:group" (the user's own group without one)."""
        user, _, group = owner.partition(":")
        quoted = shlex.quote(user)
        find_user = f"id -u {quoted}" if not user.isdigit() else f"echo {quoted}"
        find_group = f"id -g {quoted}"
        if group:
            wanted = shlex.quote(group)
            find_group = (
                f"echo {wanted}"
                if group.isdigit()
                else f"getent group {wanted} | cut -d: -f3 | grep ."
            )
        done = self.command(f"{find_user} && {find_group}", plain=True)
        numbers = done.text.split()
        if done.status or len(numbers) != 2 or not all(n.isdigit() for n in numbers):
            raise BuildError(f"there is no user or group {owner!r} in the guest")
        return int(numbers[0]), int(numbers[1])

    def copy(self, source: Path, to: str, *, mode: int | None, owner: str) -> None:
        """Copy a file, or a directory's contents, into the guest.

        A file goes to the path `to`, or into it when it ends with "/". `mode`
        is for files; directories keep theirs. Links are copied as links.
        """
        uid, gid = self.ids(owner)
        if source.is_dir():
            into, name = to, ""
        elif to.endswith("/"):
            into, name = to, source.name
        else:
            into, name = str(Path(to).parent), Path(to).name
        target = shlex.quote(into)
        done = self.command(
            f"mkdir -p {target} && tar -xpf - --numeric-owner --same-owner "
            f"--no-overwrite-dir -C {target}",
            stdin=archive(source, name, mode=mode, uid=uid, gid=gid),
        )
        if done.status:
            raise BuildError(f"copying to {to} failed in the guest: {done.text}")


def archive(source: Path, name: str, *, mode: int | None, uid: int, gid: int) -> Iterator[bytes]:
    """A tar stream of a file (as `name`) or of a directory's contents."""

    def info(path: Path, inside: str) -> tarfile.TarInfo:
        status = path.lstat()
        entry = tarfile.TarInfo(inside)
        entry.uid, entry.gid = uid, gid
        entry.mtime = int(status.st_mtime)
        entry.mode = stat.S_IMODE(status.st_mode)
        if stat.S_ISLNK(status.st_mode):
            entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, os.readlink(path), 0o777
        elif stat.S_ISDIR(status.st_mode):
            entry.type = tarfile.DIRTYPE
        elif stat.S_ISREG(status.st_mode):
            entry.size = status.st_size
            entry.mode = mode if mode is not None else entry.mode
        else:
            raise BuildError(f"{path} is neither a file, a directory nor a link")
        return entry

    paths = sorted(source.rglob("*")) if source.is_dir() else [source]
    for path in paths:
        entry = info(path, path.relative_to(source).as_posix() if path != source else name)
        yield entry.tobuf(tarfile.PAX_FORMAT)
        if entry.isreg():
            left = entry.size
            with path.open("rb") as file:
                while left and (data := file.read(min(left, 1 << 20))):
                    left -= len(data)
                    yield data
            if left:
                raise BuildError(f"{path} became shorter while it was copied")
            yield bytes(-entry.size % tarfile.BLOCKSIZE)
    end = io.BytesIO()
    end.write(bytes(2 * tarfile.BLOCKSIZE))
    yield end.getvalue()

"""The machine in which the steps run: booted, or resumed from a checkpoint, and
checkpointed on the way."""

from __future__ import annotations

import secrets
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from publisher.build import cleaning, resting, waking
from publisher.build.checkpoints import Checkpoint, Checkpoints, Level, failed_key
from publisher.build.joining import Joining
from publisher.errors import BootError, BuildError, HostError
from publisher.memory import boot_id
from publisher.task import Task
from publisher.vm import keys, process, seed, snapshot
from publisher.vm.accelerator import Accelerator
from publisher.vm.machine import Drive, Hardware, Machine
from publisher.vm.shell import Shell

_KEPT = ("seed.img", *keys.FILES)
VARIABLES = "variables.fd"
"""The firmware's variables of a machine that boots by UEFI, beside its checkpoint."""


@dataclass(frozen=True, slots=True)
class Login:
    """Who logs in to the machine, "" for nobody: `user_data` gives cloud-init its keys.

    A system without cloud-init knows the keys in the directory `known` already, and
    lets in the user `door`, who opens it to root."""

    user: str
    user_data: Callable[[keys.Keys], str]
    known: Path | None = None
    door: str = ""


def for_build(*, grow: bool, known: Path | None = None, door: str = "") -> Login:
    """root, for the steps; `grow`: the root file system takes all of the disk."""

    def data(made: keys.Keys) -> str:
        return seed.for_build(made, cleaning.PREPARE, grow=grow)

    return Login("root", data, known, door)


_OPEN = f"""
umask 077
mkdir -p /root/.ssh
cat >> /root/.ssh/authorized_keys
{cleaning.PREPARE}
systemctl reload ssh.service 2>/dev/null || systemctl reload sshd.service
"""


class Room:
    """A context around a running machine. `directory` is private and empty.

    Either `boot` or `resume` brings the machine up; `keep` writes a checkpoint;
    `flatten` gives the disk after the machine has powered off, which goes faster when
    `join_early` was called while it ran.
    """

    def __init__(
        self,
        directory: Path,
        kept: Checkpoints,
        hardware: Hardware,
        chosen: Accelerator,
        task: Task,
    ) -> None:
        self.directory = directory
        self.task = task
        self._kept = kept
        self._hardware = hardware
        self._chosen = chosen
        self._layers: tuple[str, ...] = ()
        self._active = Path()
        self._user = "root"
        self._joining: Joining | None = None
        self._since = 0.0
        """When the machine was started or last kept."""
        self._stack = ExitStack()
        self.keys: keys.Keys
        self.machine: Machine
        self.shell: Shell

    @property
    def log(self) -> Path:
        return self._hardware.log

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()
        if self._joining is not None:
            if isinstance(error, BuildError):
                self._joining.leave(self._kept.joined)
            self._joining.close()
        if self._active != Path():
            self._active.unlink(missing_ok=True)

    # -- up

    def boot(self, disk: Path, login: Login, *, firmware: tuple[Path, Path] | None) -> None:
        """Boot a raw or qcow2 disk, which is taken into the layers; `firmware` is EDK
        II's code and template of variables, None boots by BIOS."""
        base = disk
        if disk.parent != self._kept.layers:
            base = self._kept.new_layer(disk.suffix.removeprefix("."))
            shutil.move(disk, base)
        self._layers = (base.name,)
        if login.known is None:
            self.keys = keys.generate(self.directory, self.task)
        else:
            self.keys = keys.copy(login.known, self.directory)
        self._user = login.user
        data = login.user_data(self.keys)
        seed.write(self.directory / "seed.img", data, self._kept.new_layer("id").stem, self.task)
        try:
            self._boot(firmware, login)
        except BootError as error:
            if not self.machine.crashed:
                raise
            self.task.note(f"QEMU failed, the machine is booted anew: {error.message}", "warning")
            self._stack.close()
            self._active.unlink(missing_ok=True)
            self._boot(firmware, login)

    def _boot(self, firmware: tuple[Path, Path] | None, login: Login) -> None:
        if firmware is not None:
            shutil.copyfile(firmware[1], self.directory / VARIABLES)
        self._start(firmware, incoming=False)
        if login.door not in ("", login.user):
            self._open(login.door)
        self._login()

    def resume(
        self,
        checkpoint: Checkpoint,
        firmware: tuple[Path, Path] | None,
        *,
        user: str = "root",
        into: Path | None = None,
    ) -> None:
        """Bring back the machine of a checkpoint, without booting; `user` is its
        Login's, who may become root; without one, its clock stays behind. `into` is
        where `flatten` shall put the disk: it begins at once.

        Raises BuildError when QEMU can't take it; the room can't be used then."""
        place = self._kept.place(checkpoint.key)
        for name in (*_KEPT, VARIABLES):
            if (place / name).exists():
                shutil.copy(place / name, self.directory / name)
        self.keys = keys.load(self.directory)
        self._user = user
        self._layers = checkpoint.layers
        self._hardware = replace(self._hardware, aided=checkpoint.aided)
        if into is not None:
            self.join_early(into)
        self._start(firmware, incoming=True)
        snapshot.thaw(self.machine, self._kept.memory(checkpoint), self.task)
        self._login(awake=True)
        self._kept.touch(checkpoint)
        if not user:
            return
        # the machine believes that it is still the moment of its checkpoint
        now = self.task.clock.now()
        wake = waking.command(user, now, now - checkpoint.created)
        done = self.shell.command(wake, stdin=[f"{secrets.token_hex(256)}\n".encode()], plain=True)
        if done.status:
            raise BuildError(f"the resumed machine's clock could not be set: {done.text}")

    def _start(self, firmware: tuple[Path, Path] | None, *, incoming: bool) -> None:
        self._since = self.task.clock.monotonic()
        self._active = self._overlay(self._kept.layers / self._layers[-1])
        hardware = replace(
            self._hardware,
            drives=(
                Drive(self._active, "qcow2"),
                Drive(self.directory / "seed.img", read_only=True),
            ),
            firmware_code=firmware[0] if firmware else None,
            firmware_variables=self.directory / VARIABLES if firmware else None,
            incoming=incoming,
        )
        self.machine = self._stack.enter_context(Machine(hardware, self.task, self._chosen))

    def _login(self, *, awake: bool = False) -> None:
        if self._user:
            self.shell = self._stack.enter_context(self._shell(self._user, awake=awake))

    def _shell(self, user: str, *, awake: bool = False) -> Shell:
        return Shell(self.machine, self.keys, user, pinned=self.keys.pinned, awake=awake)

    def _open(self, door: str) -> None:
        """Let root in, as a user who may become root without a password."""
        with self._shell(door) as shell:
            done = shell.command(
                f"sudo -n sh -euc {shlex.quote(_OPEN)}",
                stdin=[f"{self.keys.user_public}\n".encode()],
            )
        if done.status:
            raise BuildError(
                f"{door} may not become root without a password: {done.text}",
                key="build.source.installer.user",
                hint="give this user sudo with NOPASSWD in the answer files, or root the key",
            )

    def _overlay(self, below: Path) -> Path:
        kind = "raw" if below.suffix == ".raw" else "qcow2"
        return snapshot.make_overlay(self._kept.new_layer("qcow2"), below, kind, self.task)

    # -- checkpoints

    def keep(
        self, name: str, levels: Sequence[Level], facts: Mapping[str, Any], *, failed: str = ""
    ) -> Checkpoint | None:
        """Write a checkpoint of the machine as it is; `levels` led here. A machine
        that can't be written (a full disk) goes on without one: None.

        `failed` is the error of the last level's step: then it becomes the one
        machine of this image that is kept for looking into."""
        level = levels[-1]
        key = failed_key(level) if failed else level.key
        known = self._kept.get(key)
        if known is not None:
            return known
        if self._hardware.aided and self._user == "root":
            resting.rest(self.shell, self.task.clock.monotonic() - self._since, self.task)
        below = self._active
        try:
            overlay = self._overlay(below)
        except HostError as error:
            self.task.note(f"no checkpoint after {level.title}: {error}", "warning")
            return None

        def frozen() -> None:
            self._layers, self._active = (*self._layers, below.name), overlay
            if self._joining is not None:
                self._joining.follow(below)

        earlier = self._kept.failures(name) if failed else []
        made = Checkpoint(
            key=key,
            title=f"failed: {level.title}" if failed else level.title,
            name=name,
            layers=(*self._layers, below.name),
            facts=facts,
            levels=tuple(one.to_json() for one in levels),
            created=self.task.clock.now(),
            boot=boot_id(),
            failed=failed,
            aided=self._hardware.aided,
        )
        try:
            with self._kept.making(key) as partial:
                snapshot.freeze(self.machine, overlay, partial / "memory", self.task, frozen=frozen)
                for file in (*_KEPT, VARIABLES):
                    if (self.directory / file).exists():
                        shutil.copy(self.directory / file, partial / file)
                self._kept.publish(partial, made)
        except (BuildError, OSError) as error:
            self.task.check()
            self.machine.check()
            self.task.note(f"no checkpoint after {level.title}: {error}", "warning")
            return None
        finally:
            self._since = self.task.clock.monotonic()
            if self._active != overlay:
                overlay.unlink(missing_ok=True)
        for old in earlier:
            self._kept.discard(old)
        return made

    # -- down

    def join_early(self, into: Path) -> None:
        """Begin with what `flatten` does, as far as the layers are frozen."""
        if self._layers and self._joining is None:
            frozen = self._kept.layers / self._layers[-1]
            if frozen.suffix == ".qcow2":
                ready = self._kept.joined(frozen.name)
                self._joining = Joining(frozen, into, self.task, ready)

    def flatten(self, into: Path) -> Path:
        """All layers as one sparse raw file, once the machine has powered off."""
        self._stack.close()
        early = self._joining
        if early is not None:
            if early.into == into and early.add(self._active):
                return into
            early.close()
            into.unlink(missing_ok=True)
        argv = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(self._active), str(into)]
        done = process.run(argv, self.task)
        if done.status:
            raise HostError(f"qemu-img could not join the disk's layers: {done.text}")
        return into

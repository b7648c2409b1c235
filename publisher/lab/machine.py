"""One throwaway machine: booted from an image or woken from a snapshot, saved and
put back as often as the user likes; nothing of it stays but its snapshots."""

from __future__ import annotations

import json
import os
import secrets
import threading
from contextlib import ExitStack
from pathlib import Path

from publisher.build.checkpoints import Checkpoint
from publisher.build.room import Login, Room
from publisher.closing import Closing
from publisher.errors import StateError, UsageError
from publisher.lab.image import Image
from publisher.lab.snapshots import Settings, Snapshots, check_name, described, facts, level
from publisher.task import Task
from publisher.vm import seed
from publisher.vm.accelerator import Accelerator
from publisher.vm.machine import Hardware, Machine
from publisher.vm.network import HOST, Network
from publisher.vm.shell import Shell

DESCRIPTION = "machine.json"


class Offline(Network):
    """QEMU's user network without a way out; the forwarded ports still lead in."""

    netdev = "user,restrict=on"


class LabMachine(Closing):
    """A context around a running guest. `directory` is private to the user; its
    machine.json says how other processes reach the guest."""

    def __init__(
        self,
        name: str,
        directory: Path,
        snapshots: Snapshots,
        image: Image,
        settings: Settings,
        chosen: Accelerator,
        task: Task,
    ) -> None:
        self.name = name
        self.directory = directory
        self.image = image
        self.settings = settings
        self.task = task
        self.wakings = 0
        """How often it was put back to a snapshot."""
        self.up = threading.Event()
        """Clear while it is put back."""
        self._snapshots = snapshots
        self._chosen = chosen
        self._stack = ExitStack()
        self._room: Room | None = None

    def close(self) -> None:
        self._stack.close()

    @property
    def log(self) -> Path:
        """All that the console printed; stays when the machine is gone."""
        return self.directory.parent.parent / "logs" / f"{self.name}.log"

    @property
    def room(self) -> Room:
        assert self._room is not None, "not started"
        return self._room

    @property
    def machine(self) -> Machine:
        return self.room.machine

    @property
    def shell(self) -> Shell:
        """Raises UsageError for a machine that nobody logs in to."""
        if not self.settings.user:
            raise UsageError(
                f"nobody logs in to {self.name} by ssh: it was started with --console",
                hint=f"publish lab console {self.name}",
            )
        return self.room.shell

    def boot(self) -> None:
        """Raises BootError with the phase that the boot did not leave."""
        self.log.unlink(missing_ok=True)
        room = self._enter()
        first = self.image.overlay(room.directory / "disk.qcow2", self.task)
        login = Login(
            self.settings.user,
            lambda keys: seed.for_login(keys, self.settings.user or "lab", self.name),
        )
        room.boot(first, login, firmware=self.image.firmware())
        self._settle()

    def wake(self, snapshot: Checkpoint) -> None:
        """Let go of the machine as it is and be the one of the snapshot. Raises
        StateError when the image has changed since."""
        self.image.check()
        self.up.clear()
        self._stack.close()
        room = self._enter()
        room.resume(snapshot, self.image.firmware(), user=self.settings.user)
        self.wakings += 1
        self._settle()

    def restore(self, name: str) -> None:
        """`wake` by a snapshot's name. Raises UsageError for one of another image."""
        snapshot = self._snapshots.get(name)
        image, settings = described(snapshot)
        if (image, settings) != (self.image, self.settings):
            raise UsageError(
                f"the snapshot {name!r} is of another machine: {image.title}",
                hint=f"start it: publish lab --restore {name}",
            )
        self.wake(snapshot)

    def save(self, name: str) -> None:
        """Keep memory and disk under a new name; the machine goes on. Raises
        UsageError for a name that is taken, StateError when it can't be written."""
        check_name(name, "snapshot")
        if self._snapshots.has(name):
            raise UsageError(
                f"there is a snapshot {name!r} already",
                hint=f"choose another name, or remove it: publish lab rm {name}",
            )
        made = self.room.keep(self.name, [level(name)], facts(self.image, self.settings))
        if made is None:
            raise StateError(f"the snapshot {name!r} could not be written", hint="free some space")
        self._snapshots.kept.sync()

    def check(self) -> bool:
        """False once the guest has ended by itself. Raises what else ended it."""
        self.task.check()
        return not self.machine.ended

    def _enter(self) -> Room:
        private = self.directory / f"guest-{secrets.token_hex(4)}"
        private.mkdir(mode=0o700)
        self.log.parent.mkdir(mode=0o700, exist_ok=True)
        hardware = Hardware(
            drives=(),
            log=self.log,
            arch=self.image.arch,
            memory=self.settings.memory,
            network=Offline() if self.settings.offline else HOST,
            crowded=True,
        )
        room = Room(private, self._snapshots.kept, hardware, self._chosen, self.task)
        self._room = self._stack.enter_context(room)
        return room

    def _settle(self) -> None:
        # a user may restart the guest
        self.machine.execute("set-action", reboot="reset")
        description = {
            "name": self.name,
            "image": self.image.title,
            "user": self.settings.user,
            "port": self.machine.ssh_port,
            "directory": str(self.room.directory),
            "pid": os.getpid(),
        }
        partial = self.directory / f"{DESCRIPTION}.partial"
        partial.write_text(json.dumps(description))
        partial.replace(self.directory / DESCRIPTION)
        self.up.set()

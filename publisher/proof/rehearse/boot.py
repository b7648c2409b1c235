"""One boot of the overlay as one instance of a cloud: from power-on to power-off."""

from __future__ import annotations

import contextlib
import re
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from publisher.errors import BootError, BuildError
from publisher.model import Arch
from publisher.proof.guest import Guest, Instance, Look, Report, Service, smbios
from publisher.proof.rehearse import props
from publisher.proof.rehearse.observe import Facts, observe
from publisher.proof.rehearse.userdata import user_data
from publisher.rehearsal import Rehearse
from publisher.task import Task
from publisher.vm import keys, namespace, tpm
from publisher.vm.board import Board
from publisher.vm.console import Phase, Tracker, plain
from publisher.vm.machine import Drive, Hardware, Machine
from publisher.vm.namespace import PrivateNetwork
from publisher.vm.network import Network
from publisher.vm.restricted import RestrictedNetwork
from publisher.vm.shell import Patience, Shell

USER = "visitor"
DOWN = 120.0
"""Seconds that a guest may take to power off once the button was pressed."""
READY = 60.0
"""Seconds after the login until an agent must have told the cloud that all is well."""
GRACE = 45.0
"""Seconds after a login prompt in which sshd may still start; on a machine so busy
that the prompt was slow to come, half of what that took."""
FLUSH = 20.0
"""Seconds for a guest that failed to write its logs to its disk."""
STARVED = re.compile(r"INFO: task ((?:jbd2|xfsaild|xfs-|btrfs-)\S*):\d+ blocked for more than")
"""How Linux complains after two minutes (Documentation/admin-guide/sysctl/kernel.rst,
hung_task_timeout_secs) of the threads by which file systems write."""


@dataclass(frozen=True, slots=True)
class Order:
    """One instance to be: its kind of machine, and the overlay that is its disk.
    `directory` is private to it; `full` is said of the machine with all that the look
    has: any other has no TPM, and nobody waits for its agents. `cpus` None: as many as
    a guest gets here."""

    guest: Guest
    look: Look
    arch: Arch
    image: Path
    settings: Rehearse
    directory: Path
    full: bool
    host_keys: Sequence[str] = ()
    """The kinds that its user data ask for; empty for those that the image makes."""
    cpus: int | None = None

    @property
    def enclosed(self) -> bool:
        """Whether the kernel allows a network of the guest's own."""
        return bool(namespace.probe()[0])

    @property
    def blind(self) -> bool:
        """Whether the guest can't find the metadata service: by its name only."""
        return bool(self.look.names) and not self.enclosed

    def network(self, service: Service) -> PrivateNetwork | RestrictedNetwork:
        if not self.enclosed:
            return RestrictedNetwork(service.endpoints)
        return PrivateNetwork(
            addresses=self.look.addresses,
            endpoints=service.endpoints,
            names={**self.look.names, **service.names},
        )


class Button:
    """The power button of machines that run side by side: to show that it works one of them
    has to be shut down, the one that is through first. The others are cut off."""

    def __init__(self, *, taken: bool = False) -> None:
        self.taken = taken
        self._lock = threading.Lock()

    def take(self) -> bool:
        """True for the first who asks."""
        with self._lock:
            taken, self.taken = self.taken, True
            return not taken


@dataclass
class Seen:
    """What was seen of one boot. `error` is what ended it before its time."""

    look: Look
    instance: Instance
    instance_id: str
    token: str
    console: Path
    image: Path
    """The overlay that is its disk."""
    tracker: Tracker
    reports: Sequence[Report] = ()
    facts: Facts | None = None
    error: BuildError | None = None
    phases: dict[str, float] = field(default_factory=dict)
    pressed: bool = False
    """The power button was."""
    down: float | None = None
    """Seconds that it took; None when it was not pressed or had no effect."""
    answered: bool = False
    """An SSH server greeted."""
    crashed: bool = False
    """QEMU itself failed."""
    blind: bool = False
    """The guest could not be given a metadata service: see Order.blind."""
    seconds: float = 0.0
    _printed: tuple[int, str] = (-1, "")

    @property
    def printed(self) -> str:
        """All that the console printed so far, as plain text."""
        try:
            if self.console.stat().st_size != self._printed[0]:
                said = self.console.read_bytes()
                self._printed = len(said), plain(said.decode(errors="replace"))
        except FileNotFoundError:
            return ""
        return self._printed[1]

    @property
    def starved(self) -> str:
        """The part of the guest's kernel that waits for the disk for good; a working disk
        of QEMU's answers within a second."""
        found = STARVED.search(self.printed) if self.error is not None else None
        return found[1] if found else ""

    def report(self, *kinds: str) -> Report | None:
        """The first of these kinds."""
        return next((r for r in self.reports if r.kind in kinds), None)

    @property
    def phase(self) -> Phase:
        """How far the boot came, by all that is known."""
        if self.facts is not None:
            return Phase.READY
        reached = self.tracker.phase
        # who speaks over the network has a kernel, a root and a network
        return max(reached, Phase.NETWORK) if self.reports or self.answered else reached


def instance(public_key: str, address: str, host_keys: Sequence[str]) -> tuple[Instance, str]:
    """A new machine of the owner of that key, and the token that its user data leave."""
    seed, token = secrets.token_hex(16), secrets.token_hex(8)
    name = f"rehearsal-{seed[:8]}"
    data = user_data(USER, token, host_keys)
    return Instance(seed, name, USER, public_key, data, address), token


def boot(
    order: Order,
    task: Task,
    *,
    act: Callable[[Shell], None] = lambda _: None,
    sound: Callable[[Seen], bool] = lambda _: True,
    button: Button,
) -> Seen:
    """Boot, log in, observe, `act`, and power off, or cut off where the `button` is taken:
    but who is not `sound` is shut down, so that its logs can be read. Raises HostError and
    Cancelled; whatever the guest does is in what is returned."""
    directory, full = order.directory, order.full
    clock = task.clock
    started = clock.monotonic()
    pair = keys.generate(directory, task)
    kind: type[Network] = PrivateNetwork if order.enclosed else RestrictedNetwork
    who, token = instance(pair.user_public, kind.address, order.host_keys)
    service = order.guest.service(who, order.look)
    log = directory / "console.log"
    known = service.instance_id
    seen = Seen(order.look, who, known, token, log, order.image, Tracker(), blind=order.blind)
    with contextlib.ExitStack() as stack:
        hardware = _hardware(order, service, stack)
        machine = stack.enter_context(Machine(hardware, task))
        seen.tracker = machine.tracker
        settings = order.settings
        patience = Patience(
            banner=5, stall=settings.stall, boot=settings.timeout, refusals=10, pause=0.7
        )
        shell = Shell(
            machine, pair, USER, patience=patience, pinned=False, on_wait=_hopeless(machine)
        )
        stack.callback(shell.close)
        try:
            if order.blind:
                _await_prompt(machine, settings)
            else:
                shell.connect()
                task.phase("looking around")
                seen.facts = observe(shell, order.look.agents, wait=full or not button.taken)
                if order.look.reports_ready and full:
                    _await_ready(service, task)
                act(shell)
        except BuildError as error:
            seen.error = error
        seen.answered = shell.answered
        seen.crashed = machine.crashed
        seen.phases = machine.tracker.seconds
        seen.reports = service.reports()
        if seen.error is None and (button.take() or not sound(seen)):
            shell.close()
            seen.pressed = True
            seen.down = _power_off(machine, task)
        elif seen.error is not None and machine.tracker.phase >= Phase.INIT:
            _flush(machine)
    seen.reports = service.reports()
    seen.seconds = round(clock.monotonic() - started, 1)
    return seen


def _hardware(order: Order, service: Service, stack: contextlib.ExitStack) -> Hardware:
    look, directory = order.look, order.directory
    wants_chip = look.tpm and order.full
    chip = stack.enter_context(tpm.emulated(directory / "tpm")) if wants_chip else None
    code, variables = props.firmware(look.boot, order.arch, directory / "variables.fd")
    return Hardware(
        drives=(Drive(order.image, "qcow2"),),
        log=directory / "console.log",
        arch=order.arch,
        cpus=order.cpus,
        firmware_code=code,
        firmware_variables=variables,
        board=Board(
            smbios=smbios(look, service),
            disk=look.disk,
            nic=f"{look.nic},mac={service.mac}",
            cdrom=props.cd(service.cdrom, directory / "cd.iso") if look.cdrom else None,
            tpm=chip,
            bare=True,
        ),
        network=stack.enter_context(order.network(service)),
    )


def _hopeless(machine: Machine) -> Callable[[], None]:
    """Ends the wait for an ssh server in a guest that has booted without one."""
    clock = machine.task.clock
    started = clock.monotonic()

    def look() -> None:
        at = machine.tracker.prompted
        if at is None:
            return
        since, grace = clock.monotonic() - at, max(GRACE, (at - started) / 2)
        if since > grace:
            why = "it asks for a login on its console and no ssh server answers"
            raise machine.boot_error(f"{why}, {since:.0f} s later")

    return look


def _await_prompt(machine: Machine, settings: Rehearse) -> None:
    """Wait for all that a guest can show to whom it lets not in. Raises BootError."""
    clock = machine.task.clock
    started = clock.monotonic()
    while machine.tracker.prompted is None:
        machine.check()
        now = clock.monotonic()
        if now - max(machine.tracker.heard, started) > settings.stall:
            raise machine.boot_error(f"no sign of life for {settings.stall:.0f} s")
        if now - started > settings.timeout:
            raise machine.boot_error(f"it asks for no login after {settings.timeout:.0f} s")
        machine.task.sleep(0.2)


def _await_ready(service: Service, task: Task) -> None:
    deadline = task.clock.monotonic() + READY
    task.phase("waiting for the agent")
    while not any(report.kind == "ready" for report in service.reports()):
        if task.clock.monotonic() > deadline:
            return
        task.sleep(0.2)


def _power_off(machine: Machine, task: Task) -> float | None:
    """Press the power button; the seconds until the guest was off, None for never."""
    task.phase("powering off")
    pressed = task.clock.monotonic()
    machine.execute("system_powerdown")
    try:
        machine.wait_down(DOWN)
    except BootError:
        return None
    return round(task.clock.monotonic() - pressed, 1)


def _flush(machine: Machine) -> None:
    """Let a guest that failed end properly, so that its logs can be read."""
    with contextlib.suppress(BuildError, OSError):
        machine.execute("system_powerdown")
        machine.wait_down(FLUSH)

"""A running guest: QEMU driven over QMP, its console tracked, its death noticed at once."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, cast

from publisher.closing import Closing
from publisher.errors import BootError, BuildError, HostError, PublishError
from publisher.model import Arch
from publisher.task import Task
from publisher.vm import process
from publisher.vm.accelerator import Accelerator, code_room, cpus, probe
from publisher.vm.arch import platform_of
from publisher.vm.board import PLAIN, Board, comma
from publisher.vm.console import Phase, Tracker
from publisher.vm.line import NAME, Line
from publisher.vm.network import HOST, Network

T = TypeVar("T")

ANSWER = 60.0
"""Seconds that QEMU may take to answer a QMP command."""
STALL = 300.0
"""Seconds without any sign of life from a booting guest before giving up."""
BOOT = 1800.0
"""Seconds that a boot may take, however alive it looks."""
GATHER = 0.005
"""Seconds between two looks at the console: QEMU sends each letter by itself, and looking
at each takes as long as the guest takes to print some."""
GONE = 5.0
"""Seconds in which the end of a QEMU is noticed that hung up."""
PORT = "port"
"""QEMU's name for the port's end on the host."""
CRASHES = (signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV)


@dataclass(frozen=True, slots=True)
class Drive:
    """A disk file. Deleted blocks become holes in the file."""

    path: Path
    format: Literal["raw", "qcow2"] = "raw"
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Hardware:
    """The machine; it boots from the first drive. `firmware_code` and
    `firmware_variables` (a private copy) are EDK II's, None boots by BIOS.
    `log` gets all that the console prints."""

    drives: Sequence[Drive]
    log: Path
    arch: Arch = "x86_64"
    memory: int = 1024
    """MiB"""
    cpus: int | None = None
    """As many as a guest gets on this machine, if None."""
    firmware_code: Path | None = None
    firmware_variables: Path | None = None
    incoming: bool = False
    """Wait for another machine's memory (snapshot.thaw) instead of booting."""
    environment: Mapping[str, str] = field(default_factory=dict)
    board: Board = PLAIN
    network: Network = HOST
    kernel: Path | None = None
    """Booted by QEMU itself, with `initrd` and `command_line`, instead of a drive."""
    initrd: Path | None = None
    command_line: str = ""
    forwards: Mapping[str, str] = field(default_factory=dict)
    """ADDRESS:PORT in the guest's network ▶ the command, without a shell, that QEMU
    runs for each connection to it, on its standard input and output."""
    aided: bool = False
    """With what no cloud's machine has, and checkpoints are made and resumed faster with: a
    port for publisher.vm.line, and a balloon that tells QEMU which memory is free."""
    crowded: bool = False
    """One of who knows how many on this machine: see publisher.vm.accelerator.code_room."""


def arguments(
    hardware: Hardware, accelerator: Accelerator, qmp: int, console: int, port: int, room: int
) -> list[str]:
    """QEMU's command line; `qmp`, `console` and `port` are connected sockets' numbers,
    `room` is the number of Accelerator.launch."""
    platform = platform_of(hardware.arch)
    argv = [platform.qemu, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    bare = platform.bare if hardware.board.bare else ""
    argv += ["-machine", f"{platform.machine}{bare}", *accelerator.launch(room)]
    argv += ["-smp", accelerator.processors(hardware.cpus or cpus())]
    argv += ["-m", str(hardware.memory)]
    argv += ["-chardev", f"socket,id=qmp,fd={qmp}", "-mon", "chardev=qmp,mode=control"]
    argv += ["-chardev", f"socket,id=console,fd={console}", "-serial", "chardev:console"]
    argv += ["-object", "rng-builtin,id=rng"]
    argv += ["-device", "virtio-rng-pci,rng=rng", "-device", platform.panic]
    forwards = (
        f",guestfwd=tcp:{address}-cmd:{comma(run)}" for address, run in hardware.forwards.items()
    )
    netdev = f"{hardware.network.netdev},id=net,hostfwd=tcp:127.0.0.1:0-:22{''.join(forwards)}"
    argv += ["-netdev", netdev]
    argv += ["-device", f"{hardware.board.nic},netdev=net,romfile="]
    argv += hardware.board.arguments(platform.tpm)
    if hardware.firmware_code is not None and hardware.firmware_variables is not None:
        code, variables = comma(hardware.firmware_code), comma(hardware.firmware_variables)
        argv += ["-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={code}"]
        argv += ["-drive", f"if=pflash,unit=1,format=raw,file={variables}"]
    if hardware.kernel is not None:
        argv += ["-kernel", str(hardware.kernel), "-append", hardware.command_line]
        argv += ["-initrd", str(hardware.initrd)] if hardware.initrd is not None else []
    for number, drive in enumerate(hardware.drives):
        mode = "readonly=on" if drive.read_only else "discard=unmap,detect-zeroes=unmap"
        # cache=unsafe: the guest's flushes are not worth waiting for, because a
        # build that the host's crash interrupts starts again anyway
        argv += [
            "-drive",
            f"if=none,id=disk{number},format={drive.format},cache=unsafe,{mode},"
            f"file={comma(drive.path)}",
            # 0 is the kernel's own place
            *hardware.board.drive_devices(number, number + (hardware.kernel is not None)),
        ]
    if hardware.aided:
        # the last devices, so that no other has another address with them; number 0 is a console's
        argv += ["-chardev", f"socket,id={PORT},fd={port}"]
        argv += ["-device", "virtio-serial-pci,id=serial,max_ports=2"]
        argv += ["-device", f"virtserialport,bus=serial.0,nr=1,chardev={PORT},name={NAME}"]
        argv += ["-device", "virtio-balloon-pci,free-page-reporting=on"]
    return [*argv, "-incoming", "defer"] if hardware.incoming else argv


class Machine(Closing):
    """A context: entering starts QEMU, leaving kills it. All methods are for one
    thread; cancelling the task kills the guest within half a second."""

    def __init__(
        self,
        hardware: Hardware,
        task: Task,
        accelerator: Accelerator | None = None,
        tracker: Tracker | None = None,
    ) -> None:
        self.hardware = hardware
        self.task = task
        self.accelerator = accelerator or probe(hardware.arch)
        self._boots = not hardware.incoming
        self.tracker = tracker or Tracker(self._tell)
        self.ssh_port = 0
        self.resets = 0
        """How often the guest has restarted itself; only where set-action lets it."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="qemu", daemon=True)
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = threading.Event()
        self._fault: PublishError | None = None
        self.shutdown = ""
        """Why QEMU says it ended: guest-shutdown, guest-reset …; empty while it runs."""
        self._stderr = b""
        self._console: socket.socket | None = None
        self._port: socket.socket | None = None
        self._viewers: set[Callable[[bytes], None]] = set()

    # -- life

    def __enter__(self) -> Self:
        self.task.check()
        self._thread.start()
        try:
            self._call(self._start(), ANSWER)
            self.ssh_port = self._forwarded_port()
        except BaseException as error:
            self.close()
            if isinstance(error, PublishError):
                raise
            said = self._stderr.decode(errors="replace").strip()
            if isinstance(error, (OSError, EOFError, TimeoutError)) or said:
                raise HostError(f"QEMU could not start: {said or error}") from error
            raise
        return self

    def close(self) -> None:
        """Kill the guest if it still runs; nothing of it stays."""
        if self._loop.is_closed():
            return
        if self._process is not None:
            process.kill(self._process)
        if self._thread.is_alive():
            with contextlib.suppress(TimeoutError):
                self._call(self._finish(), 10)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
        if self._port is not None:
            self._port.close()
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, T], timeout: float) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout)
        except TimeoutError:
            future.cancel()
            raise

    async def _start(self) -> None:
        from qemu.qmp import QMPClient

        ours, theirs = socket.socketpair()
        console, guest = socket.socketpair()
        self._port, port = socket.socketpair() if self.hardware.aided else (None, theirs)
        with theirs, guest, port:
            handles = theirs.fileno(), guest.fileno(), port.fileno()
            room = code_room(crowded=self.hardware.crowded)
            argv = arguments(self.hardware, self.accelerator, *handles, room)
            tpm = self.hardware.board.tpm
            # started in this thread, because it lives exactly as long as the guest may
            self._process = process.spawn(
                self.hardware.network.enclose(argv),
                stderr=subprocess.PIPE,
                env=self.hardware.environment or None,
                pass_fds=(*handles, *([] if tpm is None else [tpm])),
            )
        client = QMPClient("guest")
        self._client = client
        self._tasks = [
            asyncio.create_task(self._watch(self._process)),
            asyncio.create_task(self._listen(console)),
            asyncio.create_task(self._obey()),
        ]
        await client.connect(ours)
        self._tasks.append(asyncio.create_task(self._events()))

    async def _finish(self) -> None:
        tasks = getattr(self, "_tasks", [])
        if tasks:
            # the console's last words, then the rest may stop
            await asyncio.wait(tasks[:2], timeout=2)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        client = getattr(self, "_client", None)
        if client is not None:
            with contextlib.suppress(Exception):
                await client.disconnect()
        await self._loop.shutdown_default_executor()

    async def _watch(self, child: subprocess.Popen[bytes]) -> None:
        def read() -> None:
            assert child.stderr is not None
            with child.stderr:
                self._stderr = child.stderr.read()[-4000:]
            child.wait()

        await asyncio.to_thread(read)
        self._ended.set()

    async def _listen(self, console: socket.socket) -> None:
        with console, self.hardware.log.open("ab", buffering=0) as log:
            console.setblocking(False)
            self._console = console
            while True:
                try:
                    data = await self._loop.sock_recv(console, 65536)
                except ConnectionResetError:
                    return
                if not data:
                    return
                log.write(data)
                self.tracker.feed(data)
                for view in tuple(self._viewers):
                    view(data)
                await asyncio.sleep(GATHER)

    async def _obey(self) -> None:
        while not self.task.cancellation.cancelled:
            await asyncio.sleep(process.POLL)
        if self._process is not None:
            self._process.kill()

    async def _events(self) -> None:
        async for event in self._client.events:
            name, data = event["event"], cast(dict[str, Any], event.get("data", {}))
            if name == "SHUTDOWN":
                self.shutdown = str(data.get("reason", "unknown"))
            elif name == "RESET" and data.get("guest"):
                self._boots = True
                self.tracker.restart()
                self.resets += 1
            elif name == "GUEST_PANICKED":
                self._fault = self.boot_error("the guest's kernel panicked")
            elif name == "BLOCK_IO_ERROR" and data.get("action") != "ignore":
                self._fault = (
                    full(self.hardware.drives[0].path.parent)
                    if data.get("nospace")
                    else HostError(f"the guest's disk failed: {data.get('reason', 'I/O error')}")
                )

    def _tell(self, phase: Phase) -> None:
        # a machine that goes on from a checkpoint only passes the phases of its login
        if self._boots:
            self.task.phase(f"booting: {phase.title}")

    # -- questions

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    @property
    def crashed(self) -> bool:
        """Whether QEMU itself failed. A guest can't be blamed for that: emulating several
        processors, QEMU aborts once in hundreds of boots on a busy host."""
        status = self._process.returncode if self._process is not None and self.ended else None
        return status is not None and (-status in CRASHES or status - 128 in CRASHES)

    def boot_error(self, why: str) -> BootError:
        """`why`, with the phase that was reached and what the console said last."""
        last = self.tracker.last_lines()
        phase = self.tracker.phase.title
        where = "while running" if self.tracker.phase is Phase.READY else f"in phase {phase}"
        return BootError(
            f"the guest failed {where}: {why}"
            + (f"; its console said last:\n{last}" if last else "; its console printed nothing"),
            phase=phase,
            console=last,
            hint=f"everything that it printed is in {self.hardware.log}",
        )

    def check(self) -> None:
        """Raise what ended or will end this guest: cancellation, a full disk of the
        host, a panic, a boot that can't go on."""
        self.check_fault()
        fatal = self.tracker.fatal
        if fatal and (self.tracker.phase < Phase.READY or fatal.startswith("kernel panic")):
            raise self.boot_error(fatal)
        if self.ended:
            raise self.boot_error(self._end())

    def check_fault(self) -> None:
        """Raise what no guest survives: cancellation, a full disk of the host, a panic."""
        self.task.check()
        if self._fault is not None:
            raise self._fault

    def _end(self) -> str:
        if self.shutdown == "guest-reset":
            return "it restarted"
        if self.shutdown == "guest-shutdown":
            return "it powered off"
        said = self._stderr.decode(errors="replace").strip().splitlines()
        return f"QEMU ended ({said[-1]})" if said else "QEMU ended"

    @contextlib.contextmanager
    def watching(self, view: Callable[[bytes], None]) -> Iterator[Callable[[bytes], None]]:
        """Hand `view` what the console prints, from a thread of its own, and get the
        function that types into the console."""

        def type_in(data: bytes) -> None:
            console = self._console
            with contextlib.suppress(OSError):  # it has ended meanwhile
                if console is not None and not self.ended:
                    self._call(self._loop.sock_sendall(console, data), ANSWER)

        self._viewers.add(view)
        try:
            yield type_in
        finally:
            self._viewers.discard(view)

    def wait(self, seconds: float) -> bool:
        """Wait for the end of QEMU; True when it came."""
        return self._ended.wait(seconds)

    def execute(self, command: str, **arguments: object) -> object:
        """One QMP command. Raises BuildError when QEMU refuses it."""
        return self._asked(command, self._client.execute(command, arguments or None))

    def _asked(self, command: str, work: Coroutine[Any, Any, T]) -> T:
        from qemu.qmp import ExecuteError, QMPError

        try:
            return self._call(work, ANSWER)
        except QMPError as error:
            if not isinstance(error, ExecuteError):
                self.wait(GONE)  # it hung up: its end, which tells more, is not yet seen
            self.check()
            raise BuildError(f"QEMU refused {command}: {error}") from error

    @property
    def version(self) -> tuple[int, int]:
        """QEMU's, as it greeted; (0, 0) for one that did not say."""
        greeting = self._client.greeting
        version = greeting.QMP.version if greeting is not None else {}
        told = cast("dict[str, int]", version.get("qemu", {}))
        return told.get("major", 0), told.get("minor", 0)

    def line(self) -> Line | None:
        """A line to the shell at the port, if a process of the guest has that open."""
        if self._port is None or not self._held():
            return None
        return Line(self._port, self._held, self.check)

    def _held(self) -> bool:
        """Whether a process of the guest has the port open."""
        ends = cast("list[dict[str, Any]]", self.execute("query-chardev"))
        return any(end["label"] == PORT and end["frontend-open"] for end in ends)

    def give(self, name: str, handle: int) -> None:
        """Let QEMU know an open file of ours under a name. Raises BuildError."""

        async def send() -> None:
            self._client.send_fd_scm(handle)
            await self._client.execute("getfd", {"fdname": name})

        self._asked("getfd", send())

    def _forwarded_port(self) -> int:
        """The port on loopback that leads to the guest's sshd: QEMU lets the
        kernel choose one, so that two builds never race for it."""
        text = str(self.execute("human-monitor-command", **{"command-line": "info usernet"}))
        match = re.search(r"TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s", text)
        if match is None:
            raise HostError(f"QEMU forwards no port to the guest: {text.strip()}")
        return int(match[1])

    def wait_down(self, timeout: float) -> None:
        """Wait until the guest has powered itself off. Raises BuildError when it
        restarts, dies, or is still up after `timeout` seconds."""
        deadline = self.task.clock.monotonic() + timeout
        while not self._ended.wait(process.POLL):
            self.check_fault()
            if self.task.clock.monotonic() > deadline:
                raise self.boot_error(f"it did not power off within {timeout:.0f} s")
        self.task.check()
        if self.shutdown != "guest-shutdown":
            raise self.boot_error(self._end())


def full(directory: Path) -> HostError:
    """The error for a file system without space."""
    return HostError(
        f"no space left on the file system of {directory}",
        hint="free some space or set another state directory, then run the same command again",
    )

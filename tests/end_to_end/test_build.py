"""A small Debian, built, sealed and booted for real; and builds that end badly."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from publisher.build import build
from publisher.build.checkpoints import Checkpoints
from publisher.build.identity import derive
from publisher.build.layout import ROOT_OFFSET
from publisher.build.rescue import CLEANUP, OnError
from publisher.disks.store import Store
from publisher.errors import BuildError, Cancelled
from publisher.events import Event, Note, StepOutput, StepPhase
from publisher.memory import Memory
from publisher.model import GIB, Disk, Spec
from publisher.recipe import Recipe
from publisher.task import Cancellation, Task
from publisher.vm import keys
from publisher.vm.boot import BootReport, boot_check
from publisher.vm.shell import Shell
from tests.end_to_end.command import ARCHIVE_AT_REST, Ended
from tests.end_to_end.conftest import share_installations

pytestmark = pytest.mark.qemu

SECRET = "swordfish-of-the-build"
TOKEN = "token-of-a-single-step"
SCRIPT = """\
echo "with $TOKEN"
echo "$TOKEN" > /root/token
sync
rm /root/token
echo from a file > /etc/from-file
"""
STEPS: list[dict[str, object]] = [
    {"packages": ["tree"]},
    {
        "name": "a secret comes and goes",
        "run": f"for n in $(seq 3000); do echo {SECRET}-$n; done > /root/secret\n"
        "sync\nrm /root/secret\nupdate-grub\necho ready > /etc/built",
    },
    {"run": {"file": "script.sh"}, "secrets": {"TOKEN": {"environment": "STEP_TOKEN"}}},
    {"copy": {"from": "files", "to": "/opt/files", "mode": "0640", "owner": "daemon:adm"}},
]


@dataclass
class World:
    """A pipeline's directory and a state directory, for all tests of this file."""

    directory: Path
    events: list[Event] = field(default_factory=list)
    pairs: list[keys.Keys] = field(default_factory=list)
    private: list[str] = field(default_factory=list)

    @property
    def state(self) -> Path:
        return self.directory / "state"

    def task(self, on_event: Callable[[Event], object] = lambda _: None) -> Task:
        def sink(event: Event) -> None:
            self.events.append(event)
            on_event(event)

        return Task(
            "build", Memory(self.directory / "memory"), sink=sink, cancellation=Cancellation()
        )

    def build(
        self,
        steps: list[dict[str, object]],
        task: Task | None = None,
        version: str = "1.0",
        on_error: OnError = CLEANUP,
    ) -> Disk:
        recipe = Recipe.model_validate({"source": {"debian": {}}, "size": "2GiB", "steps": steps})
        with pytest.MonkeyPatch.context() as patch:
            for name, value in ARCHIVE_AT_REST.items():
                patch.setenv(name, value)
            return build(
                recipe,
                Spec("small", version, size=recipe.size),
                directory=self.directory,
                store=Store(self.state),
                task=task or self.task(),
                on_error=on_error,
            )

    def scratch(self) -> list[str]:
        return sorted(path.name for path in Store(self.state).scratch("x").parent.iterdir())

    def guests(self) -> list[int]:
        """Process ids of guests that run on this state directory."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                command = path.read_bytes()
            except OSError:
                continue
            if command.startswith(b"/usr/bin/qemu") and os.fsencode(self.state) in command:
                found.append(int(path.parent.name))
        return found


@pytest.fixture(scope="module", autouse=True)
def _token() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEP_TOKEN", TOKEN)
        yield


@pytest.fixture(scope="module")
def world(demo: Ended, state: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    directory = tmp_path_factory.mktemp("build")
    share_installations(state, directory / "state")
    (directory / "script.sh").write_text(SCRIPT)
    (directory / "files" / "sub").mkdir(parents=True)
    (directory / "files" / "sub" / "text").write_text("copied\n")
    return World(directory)


@pytest.fixture(scope="module")
def disk(world: World) -> Iterator[Disk]:
    with pytest.MonkeyPatch.context() as patch:
        generate = keys.generate

        def noting(directory: Path, task: Task) -> keys.Keys:
            pair = generate(directory, task)
            world.private += [pair.identity.read_text(), pair.host_private]
            world.pairs.append(pair)
            return pair

        patch.setattr(keys, "generate", noting)
        yield world.build(STEPS)


def inside(disk: Disk, command: str) -> str:
    argv = ["debugfs", "-R", command, f"{disk.path}?offset={ROOT_OFFSET}"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return done.stdout or done.stderr


def holds(path: Path, needles: list[bytes]) -> list[bytes]:
    """Which of the needles occur anywhere in the file, free blocks included."""
    found, rest = [], b""
    with path.open("rb") as file:
        while data := file.read(1 << 24):
            found += [needle for needle in needles if needle in rest + data]
            rest = data[-1000:]
    return found


def until(condition: Callable[[], object], within: float) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_steps_left_what_they_were_asked_for(disk: Disk, world: World) -> None:
    assert inside(disk, "cat /etc/built") == "ready\n"
    assert inside(disk, "cat /etc/from-file") == "from a file\n"
    assert inside(disk, "cat /opt/files/sub/text") == "copied\n"
    text = inside(disk, "stat /opt/files/sub/text")
    assert "Mode:  0640" in text
    assert "User:     1   Group:     4" in text
    assert "Inode:" in inside(disk, "stat /usr/bin/tree")
    phases = [event.phase for event in world.events if isinstance(event, StepPhase)]
    assert any(p.startswith("step 1/4: packages tree · ") for p in phases)
    for phase in ("kernel", "init", "network", "cloud-init", "sshd"):
        assert f"booting: {phase}" in phases
    lines = [event.line for event in world.events if isinstance(event, StepOutput)]
    assert any("Unpacking tree" in line for line in lines)
    assert "with ***" in lines
    assert not any(TOKEN in str(event) for event in world.events)


def test_the_sealed_disk_holds_nothing_of_the_build(disk: Disk, world: World) -> None:
    assert inside(disk, "stat /etc/machine-id").split("Size: ")[1].split()[0] == "0"
    assert "root:*:" in inside(disk, "cat /etc/shadow"), "as Debian made it, and not locked"
    assert "host_" not in inside(disk, "ls /etc/ssh")
    assert ".ssh" not in inside(disk, "ls /root")
    assert "00-build" not in inside(disk, "ls /etc/ssh/sshd_config.d")
    for path in ("/var/lib/cloud", "/var/lib/systemd/random-seed", "/var/log/wtmp", "/root/secret"):
        assert "File not found" in inside(disk, f"stat {path}")
    for path in ("/tmp", "/var/tmp", "/var/lib/apt/lists"):
        names = [line.split("/")[5] for line in inside(disk, f"ls -p {path}").splitlines() if line]
        assert set(names) <= {".", "..", "partial", "lock"}, path
    secrets = [SECRET.encode(), TOKEN.encode()]
    secrets += [text.splitlines()[2].encode() for text in world.private]
    secrets += [pair.user_public.split()[1].encode() for pair in world.pairs]
    secrets += [pair.host_public.split()[1].encode() for pair in world.pairs]
    assert len(secrets) == 6
    assert holds(disk.path, secrets) == []
    assert world.scratch() == []
    assert disk.data_bytes < 0.9 * GIB


def test_the_disk_is_identified_by_name_and_version(disk: Disk) -> None:
    identity = derive("small", "1.0")
    assert str(identity.root) in inside(disk, "stats")
    assert f"UUID={identity.root} / ext4" in inside(disk, "cat /etc/fstab")
    with disk.path.open("rb") as file:
        file.seek(512 + 56)
        assert file.read(16) == identity.disk.bytes_le


@pytest.fixture(scope="module")
def bios(disk: Disk, world: World) -> BootReport:
    return boot_check(disk, firmware="bios", task=world.task(), scratch=world.directory / "boots")


@pytest.fixture(scope="module")
def uefi(disk: Disk, world: World) -> BootReport:
    return boot_check(
        disk, firmware="uefi", secure=True, task=world.task(), scratch=world.directory / "boots"
    )


def test_it_boots_by_bios(bios: BootReport) -> None:
    assert bios.firmware == "bios"
    assert bios.cloud_init == "done"
    assert "bookworm" in bios.system


def test_it_boots_by_uefi_with_secure_boot(uefi: BootReport) -> None:
    assert uefi.firmware == "uefi"
    assert uefi.secure_boot
    assert uefi.cloud_init == "done"


def test_every_boot_has_an_identity_of_its_own(bios: BootReport, uefi: BootReport) -> None:
    assert len(bios.machine_id) == len(uefi.machine_id) == 32
    assert bios.machine_id != uefi.machine_id


def test_a_step_that_fails_shows_its_output_and_leaves_nothing(disk: Disk, world: World) -> None:
    world.events.clear()
    with pytest.raises(BuildError) as caught:
        world.build([*STEPS[:2], {"run": "echo the reason; exit 7"}])
    assert caught.value.key == "build.steps[2]"
    assert "ended with status 7" in caught.value.message
    assert "the reason" in caught.value.message
    lines = [event.line for event in world.events if isinstance(event, StepOutput)]
    assert any("installed before, and the archive is the same" in line for line in lines)
    assert world.guests() == []
    assert world.scratch() == []


def refused_logins(monkeypatch: pytest.MonkeyPatch) -> list[Shell]:
    """From now on nobody logs in by ssh; returns who tried."""
    tried: list[Shell] = []

    def refuse(shell: Shell) -> None:
        tried.append(shell)
        raise BuildError("a login")

    monkeypatch.setattr(Shell, "connect", refuse)
    return tried


def test_a_corrected_step_is_done_without_booting_or_logging_in_again(
    disk: Disk, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the failure above, and with one step more than the first build had."""
    world.events.clear()
    task = world.task()
    before = time.time()
    logins = refused_logins(monkeypatch)
    layers = Checkpoints(world.state / "store").layers
    (joined,) = layers.glob("*.joined")
    with socket.create_server(("127.0.0.1", 0)) as server:
        # QEMU leads 10.0.2.2 to this computer's loopback
        knock = f"bash -c ': > /dev/tcp/10.0.2.2/{server.getsockname()[1]}'"
        look = f"cat /etc/built; test ! -e /root/secret; date -u +%s; {knock}; tree --version"
        steps: list[dict[str, object]] = [
            *STEPS[:2],
            {"run": "echo right > /etc/right"},
            {"check": look},
        ]
        built = world.build(steps, task)
    phases = [event.phase for event in world.events if isinstance(event, StepPhase)]
    assert "resuming the machine after step 2" in phases
    assert not any(phase.startswith("booting") for phase in phases)
    assert logins == []
    assert not joined.exists(), "the failed build joined the layers in vain"
    assert inside(built, "cat /etc/right") == "right\n"
    assert "File not found" in inside(built, "stat /opt/files"), "a step that is no more"
    (shown,) = task.memory.get("evidence")
    ready, moment, *_ = shown["lines"]
    assert ready == "ready"
    assert abs(int(moment) - before) < 600, "the resumed machine lives in the past"
    secrets = [SECRET.encode(), *(text.splitlines()[2].encode() for text in world.private)]
    assert holds(built.path, secrets) == []
    assert world.guests() == []
    assert world.scratch() == []


def test_the_same_build_again_boots_nothing_and_runs_no_step(disk: Disk, world: World) -> None:
    world.events.clear()
    world.build(STEPS)
    phases = [event.phase for event in world.events if isinstance(event, StepPhase)]
    assert "resuming the machine after step 4" in phases
    assert not any(isinstance(e, StepOutput) and "Unpacking" in e.line for e in world.events)


def test_a_checkpoint_whose_memory_is_damaged_gives_way_to_the_one_before_it(
    disk: Disk, world: World
) -> None:
    with Checkpoints(world.state / "store") as kept:
        for checkpoint in kept.all():
            if len(checkpoint.levels) > 1:
                kept.memory(checkpoint).write_bytes(b"not a machine")
    world.events.clear()
    with pytest.raises(BuildError, match="status 3"):
        world.build([STEPS[0], {"run": "exit 3"}])
    notes = [event.text for event in world.events if isinstance(event, Note)]
    assert any("the checkpoint can't be resumed" in text for text in notes)
    phases = [event.phase for event in world.events if isinstance(event, StepPhase)]
    assert "resuming the machine as it was booted" in phases
    assert not any(phase.startswith("booting") for phase in phases)
    assert world.guests() == []


class User:
    """A terminal with somebody at it, who types blindly and then chooses."""

    def __init__(self, types: bytes, chooses: str) -> None:
        self.ours, theirs = pty.openpty()
        self.files = (theirs, theirs)
        self.types, self.chooses = types, chooses

    def aside(self) -> AbstractContextManager[None]:
        threading.Thread(target=self._read, daemon=True).start()
        os.write(self.ours, self.types)
        return nullcontext()

    def _read(self) -> None:
        with suppress(OSError):
            while os.read(self.ours, 4096):
                pass

    def write(self, text: str) -> None: ...

    def ask(self, question: str, check: Callable[[], None]) -> str | None:
        return self.chooses


def test_a_failed_machine_is_kept_opened_and_its_step_retried(disk: Disk, world: World) -> None:
    steps: list[dict[str, object]] = [STEPS[0], {"run": "test -e /etc/repaired"}]
    with pytest.raises(BuildError) as caught:
        world.build(steps, on_error=OnError("keep"))
    kept = Checkpoints(world.state / "store")
    (machine,) = kept.failures("small")
    assert machine.key[:12] in caught.value.hint
    world.events.clear()
    task = world.task()
    user = User(b"touch /etc/repaired\nexit\n", "r")
    built = world.build(steps, task, on_error=OnError("shell", user))
    phases = [event.phase for event in world.events if isinstance(event, StepPhase)]
    assert "resuming the machine in which step 2 failed" in phases
    assert "Inode:" in inside(built, "stat /etc/repaired")
    assert task.memory.get("by_hand") == ["step 2: run test -e /etc/repaired"]
    assert not [c for c in kept.all() if c.title == "run test -e /etc/repaired"]
    assert world.guests() == []


def test_cancelling_in_mid_build_ends_the_guest_within_seconds(disk: Disk, world: World) -> None:
    at: list[float] = []

    def cancel(event: Event) -> None:
        if isinstance(event, StepOutput) and event.line == "cancel me":
            assert world.guests()
            at.append(time.monotonic())
            threading.Thread(target=task.cancellation.cancel).start()

    task = world.task(cancel)
    with pytest.raises(Cancelled):
        world.build([{"run": "echo cancel me; sleep 600"}], task)
    assert time.monotonic() - at[0] < 5
    assert world.guests() == []
    assert world.scratch() == []


_BUILD = """
import sys
from pathlib import Path
from tests.end_to_end.test_build import World
World(Path(sys.argv[1])).build([{"run": "true"}])
"""


def test_a_builder_that_is_killed_leaves_no_guest(disk: Disk, world: World) -> None:
    root = Path(__file__).parents[2]
    builder = subprocess.Popen([sys.executable, "-c", _BUILD, str(world.directory)], cwd=root)
    try:
        until(lambda: world.guests() or builder.poll() is not None, 240)
        assert world.guests(), f"the builder ended with status {builder.poll()}"
    finally:
        builder.send_signal(signal.SIGKILL)
        builder.wait()
    until(lambda: not world.guests(), 2)
    # what it had on disk goes with the next build
    assert any(name.startswith("build-") for name in world.scratch())
    task = world.task()
    with pytest.raises(BuildError, match=r"nosuchpackage"):
        build(
            Recipe.model_validate(
                {"source": {"debian": {"packages": ["nosuchpackage"]}}, "size": "2GiB"}
            ),
            Spec("small", "1.0"),
            directory=world.directory,
            store=Store(world.state),
            task=task,
        )
    assert world.scratch() == []


_FULL = """
import sys
from pathlib import Path
from publisher.disks.store import Store
from publisher.errors import HostError
from publisher.task import detached
from publisher.vm.boot import boot_check
try:
    boot_check(
        Store(Path(sys.argv[1])).get(sys.argv[2]),
        firmware="bios", task=detached(Path(sys.argv[3]) / "memory"), scratch=Path(sys.argv[3]),
    )
except HostError as error:
    print(error, error.hint)
"""


def test_a_disk_that_fills_up_while_the_guest_runs_is_the_hosts_error(
    disk: Disk, world: World
) -> None:
    small = world.directory / "small"
    small.mkdir()
    script = 'mount -t tmpfs -o size=3m none "$4" && exec "$0" -c "$1" "$2" "$3" "$4"'
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    arguments = [sys.executable, _FULL, str(world.state), disk.sha256, str(small)]
    done = subprocess.run(
        ["unshare", *user, "--mount", "sh", "-c", script, *arguments],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert "no space left" in done.stdout, done.stderr
    assert "free some space" in done.stdout

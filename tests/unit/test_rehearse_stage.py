"""One rehearsal around its boots: which there are, what is explained, what is kept."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from publisher.errors import BootError, Cancelled, HostError
from publisher.model import Disk, Spec
from publisher.proof.guest import Look, Report
from publisher.proof.rehearse import autopsy, capacity, props, stage
from publisher.proof.rehearse.boot import Button, Order, Seen
from publisher.proof.rehearse.userdata import QUICK
from publisher.proof.rehearse.verdict import Claim, Rehearsal, Status
from publisher.rehearsal import Rehearse
from publisher.task import Task, detached
from publisher.vm import accelerator, namespace
from publisher.vm.accelerator import Accelerator
from tests.unit import lint_world
from tests.unit.rehearsal_world import BOOTED, FRESH, LOOK, SIZE, Tree, facts, seen
from tests.unit.test_rehearse_parts import Nimbus

BIOS = dataclasses.replace(LOOK, title="Nimbus n1, BIOS", boot="bios")
READY = Report(40.0, "ready", "POST /health")
PINNED = Tree({"/usr/bin/cloud-init": "", "/etc/cloud/cloud.cfg": "datasource_list: [ NoCloud ]\n"})


class World:
    """Boots as the test orders them; `booted` are their looks, the first one's first,
    with their processors. Boots that are not `alone` wait for each other."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.looks: Sequence[Look] = (LOOK,)
        self.abilities: Sequence[str] | None = None
        self.first: Mapping[str, Any] = {}
        self.second: Mapping[str, Any] = FRESH
        self.down: float | None = 2.0
        self.pressed: list[str] = []
        """The machines whose power button was pressed."""
        self.late: bool | None = None
        """Who is through after the other: the first machine, or not."""
        self.through = threading.Event()
        self.error = ""
        self.crashes: list[bool] = []
        """Of whom QEMU itself fails in its next boot: the first machine, or not."""
        self.consoles: list[str] = []
        """What else the first machine's next boots print, which end then."""
        self.booted: list[tuple[str, bool, int | None]] = []
        self.host_keys: list[Sequence[str]] = []
        self.files_of_disk: lint_world.Files = {}
        self.images: list[Path] = []
        self.bases: list[tuple[Path, str, int]] = []
        """What the images were made over."""
        self.explained: list[Path] = []
        self.cancelled = threading.Event()
        self.both = threading.Barrier(2, timeout=5)
        self.alone = False
        self.monkeypatch = monkeypatch
        self.kvm(there=False)
        monkeypatch.setattr(stage, "boot", self.boot)
        monkeypatch.setattr(props, "overlay", self.overlay)
        monkeypatch.setattr(autopsy, "files", self.files)
        self.machines(2)

    def machines(self, number: int) -> None:
        """So many run side by side here, on as many processors."""
        self.alone = number < 2
        self.monkeypatch.setattr(capacity, "machines", lambda: number)
        self.monkeypatch.setattr(capacity, "cpus", lambda: max(2, number))

    def kvm(self, *, there: bool) -> None:
        chosen = Accelerator("kvm" if there else "tcg", "", ())
        self.monkeypatch.setattr(accelerator, "probe", lambda arch: chosen)

    def looks_of(self, spec: Spec) -> Sequence[Look]:
        self.abilities = spec.abilities
        return self.looks

    def overlay(self, disk: Disk, path: Path, task: Task) -> Path:
        self.bases.append((disk.path, disk.format, disk.size))
        self.images.append(path)
        path.touch(exist_ok=False)
        return path

    @contextlib.contextmanager
    def files(self, image: Path, scratch: Path, task: Task) -> Iterator[Tree]:
        self.explained.append(image)
        yield PINNED

    def boot(
        self, order: Order, task: Task, *, act: Any = None, sound: Any = None, button: Button
    ) -> Seen:
        if not self.alone:
            self.both.wait()
        self.booted.append((order.look.title, order.full, order.cpus))
        self.booted.sort(key=lambda entry: not entry[1])
        self.host_keys.append(order.host_keys)
        assert not (order.directory / "console.log").exists()
        if order.full in self.crashes:
            self.crashes.remove(order.full)
            crashed = seen(order.directory, known=None, error="QEMU ended (an assertion)")
            crashed.crashed = True
            return crashed
        if order.full and self.consoles:
            said = BOOTED + self.consoles.pop()
            return seen(order.directory, console=said, error="no sign of life for 240 s")
        if order.full:
            known = None if self.error else facts(**self.first)
            reports = [] if self.error else [READY]
            found = seen(
                order.directory, known=known, error=self.error, reports=reports, pressed=False
            )
            return self.leave(found, order, sound, button)
        if self.error:
            try:
                task.sleep(5)
            except Cancelled:
                self.cancelled.set()
                raise
        known = facts(**self.second)
        found = seen(order.directory, known=known, number=2, look=order.look, pressed=False)
        return self.leave(found, order, sound, button)

    def leave(self, found: Seen, order: Order, sound: Any, button: Button) -> Seen:
        """Shut the machine down where the real boot does."""
        if order.full is self.late:
            assert self.through.wait(5)
        if found.error is None and (button.take() or not (sound is None or sound(found))):
            found.pressed, found.down = True, self.down
            self.pressed.append("first" if order.full else order.directory.name)
        self.through.set()
        return found

    def rehearse(self, *, keep: bool = False, **settings: Any) -> Rehearsal:
        guest = Nimbus("nimbus")
        guest.looks = self.looks_of  # type: ignore[method-assign]
        disk = self.directory / "web.raw"
        disk.touch()
        if self.files_of_disk:
            made = self.directory / "made"
            made.mkdir()
            lint_world.disk_file(made, self.files_of_disk, {}).rename(disk)
        return stage.rehearse_one(
            Disk(disk, SIZE, "", ()),
            guest,
            Spec("web", "1"),
            Rehearse(**settings),
            detached(self.directory / "memory"),
            scratch=self.directory / "scratch",
            logs=self.directory / "logs",
            keep=keep,
        )


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_a_disk_that_passes_boots_as_two_machines_at_once_and_leaves_nothing(world: World) -> None:
    verdict = world.rehearse()
    assert verdict.passed
    assert world.booted == [(LOOK.title, True, 1), (LOOK.title, False, 1)]
    assert len(set(world.images)) == 2
    assert verdict.consoles == ()
    assert not (world.directory / "logs").exists()
    assert list((world.directory / "scratch").iterdir()) == []
    assert verdict.claims[-1].status is Status.LINT


def test_a_disk_is_shown_as_the_machines_that_it_bears(world: World) -> None:
    world.rehearse()
    assert world.abilities == ("fast",)


@pytest.mark.parametrize("first", [True, False])
def test_a_machine_whose_qemu_crashed_boots_once_more_from_the_disk(
    first: bool, world: World
) -> None:
    world.machines(1)
    world.crashes = [first]
    assert world.rehearse().passed
    assert sorted(full for _, full, _ in world.booted) == sorted([True, False, first])
    assert len(world.images) == 3
    assert len(set(world.images)) == 2
    assert list((world.directory / "scratch").iterdir()) == []


def test_a_machine_whose_disk_did_not_answer_boots_once_more(world: World) -> None:
    world.machines(1)
    hung = "[  243.3] INFO: task jbd2/sda1-8:131 blocked for more than 121 seconds.\n"
    world.consoles = [hung]
    assert world.rehearse().passed
    assert [full for _, full, _ in world.booted] == [True, True, False]
    world.consoles = [hung, hung]
    verdict = world.rehearse()
    assert "jbd2/sda1-8 waits" in verdict.failures[0].cause


def test_a_qemu_that_crashes_again_is_no_chance(world: World) -> None:
    world.machines(1)
    world.crashes = [True, True]
    assert not world.rehearse().passed
    assert [full for _, full, _ in world.booted] == [True, True]


def test_where_there_is_room_for_one_they_boot_one_after_the_other(world: World) -> None:
    world.machines(1)
    assert world.rehearse().passed
    assert world.booted == [(LOOK.title, True, 2), (LOOK.title, False, 2)]


def test_another_kind_of_machine_is_the_second_one(world: World) -> None:
    world.looks = (LOOK, BIOS)
    verdict = world.rehearse()
    assert [title for title, *_ in world.booted] == [LOOK.title, BIOS.title]
    (identity,) = [claim for claim in verdict.claims if claim.id == "identity"]
    assert BIOS.title in identity.title


def test_the_second_boot_can_be_left_out(world: World) -> None:
    world.alone = True
    verdict = world.rehearse(second_boot=False)
    assert len(world.booted) == 1
    assert "identity" not in {claim.id for claim in verdict.claims}


def test_no_other_kind_of_machine_boots_without_a_second_boot(world: World) -> None:
    world.alone = True
    world.looks = (LOOK, BIOS)
    verdict = world.rehearse(second_boot=False)
    assert [title for title, *_ in world.booted] == [LOOK.title]
    assert verdict.passed
    (identity,) = [claim for claim in verdict.claims if claim.id == "identity"]
    assert BIOS.title in identity.title
    assert identity.status is Status.UNREACHED
    assert "second_boot" in identity.evidence


@pytest.mark.parametrize("machines", [1, 2])
def test_a_first_boot_that_fails_is_explained_and_ends_the_other(
    world: World, machines: int
) -> None:
    world.machines(machines)
    world.error = "it asks for a login on its console and no ssh server answers"
    verdict = world.rehearse()
    assert len(world.booted) == machines
    assert world.cancelled.is_set() is (machines == 2)
    (failure,) = verdict.failures
    assert "datasource_list is pinned to NoCloud" in failure.cause
    assert [c.status for c in verdict.claims if c.id == "identity"] == [Status.UNREACHED]
    (log,) = verdict.consoles
    assert "Linux version" in log.read_text()


def test_a_shared_identity_fails_and_keeps_both_logs(world: World) -> None:
    world.second = {**FRESH, "host_keys": facts().host_keys}
    verdict = world.rehearse()
    assert [claim.id for claim in verdict.failures] == ["identity"]
    assert len(verdict.consoles) == 2
    assert [image.parent.name for image in world.explained] == ["1"], "its own boot's disk"


def test_what_ends_the_first_machine_ends_the_other(world: World) -> None:
    running = threading.Event()

    def boot(order: Order, task: Task, **given: Any) -> Seen:
        if order.full:
            running.wait(5)
            raise HostError("no swtpm")
        running.set()
        try:
            task.sleep(5)
        except Cancelled:
            world.cancelled.set()
            raise
        raise AssertionError

    world.monkeypatch.setattr(stage, "boot", boot)
    with pytest.raises(HostError, match="no swtpm"):
        world.rehearse()
    assert world.cancelled.is_set()


def test_a_check_that_ends_the_guest_fails_alone_and_keeps_the_ones_before(world: World) -> None:
    world.machines(1)

    def run_all(shell: Any, checks: Any, cloud: str) -> Iterator[Claim]:
        yield Claim("check-1", "a", Status.PROVED)
        yield Claim("check-2", "b", Status.FAILED, "the guest ended under it")
        raise BootError("it restarted", phase="ready", console="", hint="")

    def boot(order: Order, task: Task, **given: Any) -> Seen:
        found = seen(order.directory, known=facts(), reports=[READY], error="it restarted")
        with contextlib.suppress(BootError):
            given["act"](None)
        return found

    world.monkeypatch.setattr(stage, "run_all", run_all)
    world.monkeypatch.setattr(stage, "boot", boot)
    verdict = world.rehearse(checks=[{"run": "a"}, {"run": "b"}, {"run": "c"}])
    assert [claim.id for claim in verdict.failures] == ["check-2"]
    found = {claim.id: claim.status for claim in verdict.claims}
    assert found["check-1"] is Status.PROVED
    assert found["check-3"] is found["shutdown"] is Status.UNREACHED


def test_checks_have_their_lines_where_the_boot_never_came_so_far(world: World) -> None:
    world.machines(1)
    world.error = "no sign of life for 240 s"
    verdict = world.rehearse(checks=[{"run": "a"}])
    assert [c.status for c in verdict.claims if c.id == "check-1"] == [Status.UNREACHED]


def line(verdict: Rehearsal, id_: str) -> Claim:
    (claim,) = [claim for claim in verdict.claims if claim.id == id_]
    return claim


def rerun(verdict: Rehearsal) -> Claim:
    return line(verdict, "rerun")


@pytest.mark.parametrize(("late", "pressed"), [(True, "1"), (False, "first")])
def test_of_two_machines_the_one_that_is_through_first_is_shut_down(
    late: bool, pressed: str, world: World
) -> None:
    world.late = late
    verdict = world.rehearse()
    assert world.pressed == [pressed]
    shown = line(verdict, "shutdown")
    assert shown.status is Status.PROVED
    assert (LOOK.title in shown.evidence) is (pressed == "1"), "whose it is"


@pytest.mark.parametrize(
    ("machines", "settings"), [(1, {}), (2, {"rerun": True}), (2, {"second_boot": False})]
)
def test_a_machine_that_boots_alone_or_whose_disk_is_used_again_is_shut_down(
    machines: int, settings: dict[str, bool], world: World
) -> None:
    world.machines(machines)
    world.late = True if machines > 1 and settings.get("second_boot", True) else None
    # the used disk boots on its own, and nothing waits for another machine then
    world.both = threading.Barrier(1)
    verdict = world.rehearse(**settings)
    assert world.pressed == ["first"]
    assert line(verdict, "shutdown").status is Status.PROVED


def test_a_deaf_second_machine_fails_and_is_explained_by_its_own_disk(world: World) -> None:
    world.down, world.late = None, True
    verdict = world.rehearse()
    assert [claim.id for claim in verdict.failures] == ["shutdown"]
    assert [image.parent.name for image in world.explained] == ["1"]


def test_a_first_machine_that_failed_is_shut_down_for_its_logs(world: World) -> None:
    world.first, world.late = {"failed": ("broken.service",)}, True
    verdict = world.rehearse()
    assert sorted(world.pressed) == ["1", "first"]
    assert [claim.id for claim in verdict.failures] == ["units"]
    assert line(verdict, "shutdown").status is Status.PROVED


@pytest.mark.parametrize(("kvm", "settings"), [(True, {}), (False, {"rerun": True})])
def test_the_first_machines_own_disk_boots_as_another_instance(
    kvm: bool, settings: dict[str, bool], world: World
) -> None:
    world.machines(1)
    world.kvm(there=kvm)
    verdict = world.rehearse(**settings)
    assert rerun(verdict).status is Status.PROVED
    assert [full for _, full, _ in world.booted] == [True, False, False]
    assert world.bases == [
        *[(world.directory / "web.raw", "raw", SIZE)] * 2,
        (world.images[0], "qcow2", SIZE),
    ]
    assert len(verdict.boots) == 3


@pytest.mark.parametrize(
    ("kvm", "settings", "why"),
    [(False, {}, "set rerun = true"), (True, {"rerun": False}, "rerun is false")],
)
def test_where_it_would_take_long_it_is_left_out_and_said(
    kvm: bool, settings: dict[str, bool], why: str, world: World
) -> None:
    world.kvm(there=kvm)
    verdict = world.rehearse(**settings)
    assert verdict.passed
    assert len(world.booted) == 2
    assert rerun(verdict).status is Status.UNREACHED
    assert why in rerun(verdict).evidence


def test_what_does_not_run_again_fails_and_is_explained_by_the_used_disk(world: World) -> None:
    world.machines(1)
    world.second = {**FRESH, "begun": "token-1"}
    verdict = world.rehearse(rerun=True, second_boot=False)
    assert rerun(verdict).status is Status.FAILED
    assert world.explained == world.images[1:]
    assert len(verdict.consoles) == 2


def test_a_used_disk_that_failed_is_none(world: World) -> None:
    world.machines(1)
    world.error = "no sign of life for 240 s"
    assert rerun(world.rehearse(rerun=True)).status is Status.UNREACHED
    assert len(world.booted) == 1


def test_a_failures_log_survives_a_pass_of_another_disk_of_that_name(world: World) -> None:
    world.machines(1)
    world.error = "no sign of life for 240 s"
    (log,) = world.rehearse().consoles
    world.error = ""
    assert world.rehearse().consoles == ()
    assert log.exists()


def test_what_no_ipv6_leaves_open_is_said(world: World) -> None:
    world.looks = (dataclasses.replace(LOOK, addresses=("fd00:ec2::254",)),)
    world.monkeypatch.setattr(namespace, "probe", lambda: (("--net",), ""))
    world.monkeypatch.setattr(namespace, "ipv6_refusal", lambda: "Operation not supported")
    claims = world.rehearse().claims
    (claim,) = [claim for claim in claims if claim.id == "ipv6"]
    assert claim.status is Status.UNPROVABLE
    assert claim.evidence == "Operation not supported"


@pytest.mark.parametrize(
    ("line", "kinds"),
    [
        ("ClientAliveInterval 120", QUICK),
        ("HostKey /etc/ssh/ssh_host_rsa_key", ()),
        ("HostKeyAlgorithms rsa-sha2-512", ()),
    ],
)
def test_a_server_that_is_choosy_about_its_keys_gets_all_of_them(
    line: str, kinds: tuple[str, ...], world: World
) -> None:
    """Else none that it takes may be there, and nobody can log in."""
    world.files_of_disk = {
        **lint_world.good(),
        "/etc/ssh/sshd_config": b"Include /etc/ssh/sshd_config.d/*.conf\n",
        "/etc/ssh/sshd_config.d/10.conf": line.encode(),
    }
    world.rehearse()
    assert world.host_keys == [kinds, kinds]


def test_a_disk_that_cant_be_read_makes_the_keys_of_its_choice(world: World) -> None:
    world.rehearse()
    assert world.host_keys == [(), ()]


def test_logs_are_kept_when_asked_for(world: World) -> None:
    assert len(world.rehearse(keep=True).consoles) == 2

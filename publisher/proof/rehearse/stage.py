"""One rehearsal: the disk as new machines of one cloud."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from publisher.model import Disk, Spec
from publisher.proof.abilities import looked_at, takes_any_host_key
from publisher.proof.guest import Guest, Look
from publisher.proof.rehearse import autopsy, capacity, causes, judge, props
from publisher.proof.rehearse.boot import Button, Order, Seen, boot
from publisher.proof.rehearse.checks import left, run_all
from publisher.proof.rehearse.evidence import Evidence, Files
from publisher.proof.rehearse.userdata import QUICK
from publisher.proof.rehearse.verdict import Claim, Rehearsal, Status
from publisher.rehearsal import Rehearse
from publisher.task import Cancellation, Task
from publisher.vm import accelerator, namespace
from publisher.vm.shell import Shell
from publisher.vm.vanishing import vanishing


def rehearse_one(
    disk: Disk,
    guest: Guest,
    spec: Spec,
    settings: Rehearse,
    task: Task,
    *,
    scratch: Path,
    logs: Path,
    keep: bool = False,
) -> Rehearsal:
    """Boot the disk, on overlays in `scratch`, as the guest's looks; the consoles
    of a failure (with `keep` all) stay in `logs`. Raises HostError and Cancelled."""
    started = task.clock.monotonic()
    looks = guest.looks(looked_at(spec, guest, disk, task))
    with vanishing(scratch, f"{guest.name}-") as directory:
        booted = _order_of_boots(looks, again=settings.second_boot)
        beside = min(len(booted), capacity.PAIR, capacity.machines())
        cpus = capacity.processors(beside)
        left_out = _not_again(settings, spec)
        quick = QUICK if takes_any_host_key(disk, task) else ()
        orders = []
        for number, look in enumerate(booted):
            room, image = _room(directory / str(number))
            place = guest, look, spec.arch, image, settings, room
            orders.append(Order(*place, full=not number, host_keys=quick, cpus=cpus))
        acts = _boots(orders, disk, task, beside=beside, whole=not left_out)
        acts.append(_rerun(orders[0], acts[0].seen, disk, task, left_out))
        failed = any(act.failed for act in acts)
        claims = [claim for act in acts for claim in _explained(act, directory, task)]
        boots = [act.seen for act in acts if act.seen is not None]
        stem = f"{spec.digest[:12] or disk.path.stem}-{guest.name}"
        consoles = _keep(boots, logs, stem) if failed or keep else ()
    return Rehearsal(
        cloud=guest.name,
        machine=looks[0].title,
        claims=(*claims, *judge.left_out(looks[len(booted) :]), *_left_open(looks)),
        seconds=round(task.clock.monotonic() - started, 1),
        phases=boots[0].phases,
        boots=tuple(seen.seconds for seen in boots),
        consoles=consoles,
    )


def _left_open(looks: Sequence[Look]) -> list[Claim]:
    kind, refusal = namespace.probe()
    if not kind:
        return [*judge.limits(looks, refusal), *judge.unproven(looks)]
    return [*judge.without_ipv6(looks, namespace.ipv6_refusal()), *judge.unproven(looks)]


def _order_of_boots(looks: Sequence[Look], *, again: bool) -> Sequence[Look]:
    """`again`: every look once. Each boot after the first is another instance, so that
    with one look a second boot is needed only to show that."""
    if not again:
        return looks[:1]
    return (*looks, looks[0]) if len(looks) == 1 else looks


@dataclass(frozen=True, slots=True)
class _Act:
    """A boot, and the lines of the verdict that are about it; None where there was none."""

    seen: Seen | None
    claims: Sequence[Claim]

    @property
    def failed(self) -> bool:
        return any(claim.status is Status.FAILED for claim in self.claims)


def _room(directory: Path) -> tuple[Path, Path]:
    """A directory of a machine's own, and the overlay in it that is to be its disk."""
    directory.mkdir(mode=0o700)
    return directory, directory / "overlay.qcow2"


def _boots(
    orders: Sequence[Order], disk: Disk, task: Task, *, beside: int, whole: bool
) -> list[_Act]:
    """The boots of the disk; after a first one that failed there is no other one. `whole`:
    the first one's own disk will be booted again, so that it can't be cut off."""
    first_order, *others = orders
    button = Button()
    another = partial(boot, button=Button(taken=True) if whole or beside < 2 else button)
    asked, cloud = first_order.settings.checks, first_order.guest.name
    checked: list[Claim] = []

    def check(shell: Shell) -> None:
        checked.clear()
        # one by one: what was found before a guest died stays
        for claim in run_all(shell, asked, cloud):
            checked.append(claim)

    def judged(first: Seen) -> list[Claim]:
        return [*judge.claims(first, disk.size, checked), *checked]

    def sound(first: Seen) -> bool:
        return all(claim.status is not Status.FAILED for claim in judged(first))

    stop = Cancellation(task.cancellation)
    # the screen follows the first one
    quiet = Task(task.step, task.memory, cancellation=stop, clock=task.clock)
    with ThreadPoolExecutor(1, thread_name_prefix="rehearse-beside") as pool:
        try:
            running = [
                pool.submit(_boot, order, disk, quiet, another) for order in others if beside > 1
            ]
            first = _boot(
                first_order, disk, task, partial(boot, act=check, sound=sound, button=button)
            )
            checked += left(asked, cloud, checked, first)
            acts = [_Act(first, judged(first))]
            for number, order in enumerate(others):
                if first.error is not None:
                    acts.append(_Act(None, [judge.unreached(order.look)]))
                    continue
                task.phase(f"as another instance: {order.look.title}")
                seen = running[number].result() if running else _boot(order, disk, task, another)
                end = [judge.shut_down(seen)] if seen.pressed and not first.pressed else []
                acts.append(_Act(seen, [judge.another(seen, first), *end]))
            return acts
        finally:
            stop.cancel()


def _not_again(settings: Rehearse, spec: Spec) -> str:
    """Why a used disk is not booted, empty if it is."""
    if settings.rerun is None and accelerator.probe(spec.arch).kind == "tcg":
        return "left out where guests run emulated: set rerun = true"
    return "left out: rerun is false" if settings.rerun is False else ""


def _rerun(order: Order, first: Seen | None, disk: Disk, task: Task, left_out: str) -> _Act:
    """What a customer gets who makes an image of a machine that has run."""
    if first is None or first.error is not None:
        return _Act(None, [judge.not_again("")])
    if left_out:
        return _Act(None, [judge.not_again(left_out)])
    task.phase("as another instance, from the first one's disk")
    used = Disk(order.image, disk.size, "", (), "qcow2")
    room, image = _room(order.directory.with_name("rerun"))
    another = replace(order, image=image, directory=room, full=False, cpus=None)
    seen = _boot(another, used, task, partial(boot, button=Button(taken=True)))
    return _Act(seen, [judge.again(seen, first)])


def _boot(order: Order, disk: Disk, task: Task, run: Callable[[Order, Task], Seen]) -> Seen:
    """The boot that `run` does, and once another one when QEMU itself failed or its disk
    did not answer, which says nothing about the image."""
    props.overlay(disk, order.image, task)
    seen = run(order, task)
    if not seen.crashed and not seen.starved:
        return seen
    failed = "QEMU failed" if seen.crashed else "QEMU's disk did not answer any more"
    task.note(f"{failed}, the machine is booted anew: {seen.error}", "warning")
    again = order.directory.with_name(f"{order.directory.name}-again")
    again.mkdir(mode=0o700)
    order.image.unlink()
    props.overlay(disk, order.image, task)
    return run(replace(order, directory=again), task)


def _explained(act: _Act, scratch: Path, task: Task) -> Sequence[Claim]:
    """The lines, those that failed with their likely causes, from the disk of their boot."""
    if act.seen is None or not act.failed:
        return act.claims
    with autopsy.files(act.seen.image, scratch, task) as files:
        return [_with_cause(claim, act.seen, files) for claim in act.claims]


def _with_cause(claim: Claim, seen: Seen, files: Files) -> Claim:
    if claim.status is not Status.FAILED:
        return claim
    found = causes.likely(Evidence(claim.id, seen, files))
    return replace(claim, cause=found.cause, fix=found.fix) if found else claim


def _keep(boots: Sequence[Seen], logs: Path, stem: str) -> tuple[Path, ...]:
    """Bring the consoles where they outlive the rehearsal."""
    return tuple(_kept(boots, logs, stem))


def _kept(boots: Sequence[Seen], logs: Path, stem: str) -> Iterator[Path]:
    logs.mkdir(parents=True, exist_ok=True)
    for number, seen in enumerate(boots, 1):
        path = logs / f"{stem}-{number}.log"
        with contextlib.suppress(FileNotFoundError):
            shutil.move(seen.console, path)
            yield path

"""One rehearsal: the disk as two new machines of one cloud."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from publisher.model import Disk, Spec
from publisher.proof.abilities import looked_at
from publisher.proof.guest import Guest, Look
from publisher.proof.rehearse import autopsy, capacity, causes, judge, props
from publisher.proof.rehearse.boot import Order, Seen, boot
from publisher.proof.rehearse.checks import run_all
from publisher.proof.rehearse.evidence import Evidence, Files
from publisher.proof.rehearse.verdict import Claim, Rehearsal, Status
from publisher.rehearsal import Rehearse
from publisher.task import Cancellation, Task
from publisher.vm import namespace
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
        orders = []
        for number, look in enumerate(booted):
            room = directory / str(number)
            room.mkdir(mode=0o700)
            image = props.overlay(disk, room / "overlay.qcow2", task)
            orders.append(
                Order(guest, look, spec.arch, image, settings, room, full=not number, cpus=cpus)
            )
        boots, claims = _boots(orders, disk, task, beside=beside)
        failed = any(claim.status is Status.FAILED for claim in claims)
        if failed:
            claims = _explain(claims, orders, boots, directory, task)
        consoles = _keep(boots, logs, f"{spec.digest[:12] or disk.path.stem}-{guest.name}")
        if not (failed or keep):
            for path in consoles:
                path.unlink()
            consoles = ()
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
    return [*([] if kind else judge.limits(looks, refusal)), *judge.unproven(looks)]


def _order_of_boots(looks: Sequence[Look], *, again: bool) -> Sequence[Look]:
    """`again`: every look once. Each boot after the first is another instance, so that
    with one look a second boot is needed only to show that."""
    if not again:
        return looks[:1]
    return (*looks, looks[0]) if len(looks) == 1 else looks


def _boots(
    orders: Sequence[Order], disk: Disk, task: Task, *, beside: int
) -> tuple[list[Seen], list[Claim]]:
    """What was seen of each boot, and the lines about all; after a first boot that
    failed there is no other one."""
    first_order, *others = orders
    checked: list[Claim] = []

    def check(shell: Shell) -> None:
        checked[:] = run_all(shell, first_order.settings.checks, first_order.guest.name)

    stop = Cancellation(task.cancellation)
    # the screen follows the first one
    quiet = Task(task.step, task.memory, cancellation=stop, clock=task.clock)
    with ThreadPoolExecutor(1, thread_name_prefix="rehearse-beside") as pool:
        try:
            running = [pool.submit(_boot, order, disk, quiet) for order in others if beside > 1]
            first = _boot(first_order, disk, task, act=check)
            claims = [*judge.claims(first, disk.size), *checked]
            if first.error is not None:
                return [first], [*claims, *(judge.unreached(order.look) for order in others)]
            boots = [first]
            for number, order in enumerate(others):
                task.phase(f"as another instance: {order.look.title}")
                seen = running[number].result() if running else _boot(order, disk, task)
                boots.append(seen)
                claims.append(judge.another(seen, first))
            return boots, claims
        finally:
            stop.cancel()


def _boot(
    order: Order, disk: Disk, task: Task, *, act: Callable[[Shell], None] = lambda _: None
) -> Seen:
    """The boot, and once another one when QEMU itself failed, which says nothing about
    the disk."""
    seen = boot(order, task, act=act)
    if not seen.crashed:
        return seen
    task.note(f"QEMU failed, the machine is booted anew: {seen.error}", "warning")
    again = order.directory.with_name(f"{order.directory.name}-again")
    again.mkdir(mode=0o700)
    order.image.unlink()
    props.overlay(disk, order.image, task)
    return boot(replace(order, directory=again), task, act=act)


def _explain(
    claims: Sequence[Claim],
    orders: Sequence[Order],
    boots: Sequence[Seen],
    scratch: Path,
    task: Task,
) -> list[Claim]:
    """The failed lines with their likely causes, from the disk of their own boot."""
    explained = list(claims)
    last = len(boots) - 1
    for number in {0, last}:
        with autopsy.files(orders[number].image, scratch, task) as files:
            for at, claim in enumerate(claims):
                if (last if claim.id == "identity" else 0) == number:
                    explained[at] = _with_cause(claim, boots[number], files)
    return explained


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

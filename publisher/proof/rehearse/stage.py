"""One rehearsal: the disk as a new machine of one cloud, and then as another."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from publisher.model import Disk, Spec
from publisher.proof.guest import Guest, Look
from publisher.proof.rehearse import autopsy, causes, judge, props
from publisher.proof.rehearse.boot import Order, Seen, boot
from publisher.proof.rehearse.checks import run_all
from publisher.proof.rehearse.evidence import Evidence, Files
from publisher.proof.rehearse.shortcut import find
from publisher.proof.rehearse.verdict import Claim, Rehearsal, Status
from publisher.rehearsal import Rehearse
from publisher.task import Task
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
    """Boot the disk, on an overlay in `scratch`, as the guest's looks; the consoles
    of a failure (with `keep` all) stay in `logs`. Raises HostError and Cancelled."""
    started = task.clock.monotonic()
    looks = guest.looks(spec)
    with vanishing(scratch, f"{guest.name}-") as directory:
        image = props.overlay(disk, directory / "overlay.qcow2", task)
        booted = _order_of_boots(looks, again=settings.second_boot)
        orders = [Order(guest, look, spec.arch, image, settings) for look in booted]
        boots, claims = _boots(orders, disk, directory, task)
        failed = any(claim.status is Status.FAILED for claim in claims)
        if failed:
            claims = _explain(claims, boots, image, directory, task)
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
    orders: Sequence[Order], disk: Disk, directory: Path, task: Task
) -> tuple[list[Seen], list[Claim]]:
    """What was seen of each boot, and the lines about all; the first failed boot
    is the last one."""
    first_order, *others = orders
    checked: list[Claim] = []

    def check(shell: Shell) -> None:
        checked.extend(run_all(shell, first_order.settings.checks, first_order.guest.name))

    first = boot(first_order, _room(directory, 1), task, full=True, act=check)
    boots = [first]
    claims = [*judge.claims(first, disk.size), *checked]
    for number, order in enumerate(others, 2):
        if first.error is not None:
            claims.append(judge.unreached(order.look))
            continue
        task.phase(f"as another instance: {order.look.title}")
        room = _room(directory, number)
        known = order.look == first_order.look and first.facts
        shortcut = find(disk, known, room, task) if known and order.arch == "x86_64" else None
        seen = boot(order, room, task, full=False, shortcut=shortcut)
        boots.append(seen)
        claims.append(judge.again(seen, first))
    return boots, claims


def _room(directory: Path, number: int) -> Path:
    room = directory / str(number)
    room.mkdir(mode=0o700)
    return room


def _explain(
    claims: Sequence[Claim], boots: Sequence[Seen], image: Path, scratch: Path, task: Task
) -> list[Claim]:
    """The failed lines with their likely causes."""
    with autopsy.files(image, scratch, task) as files:
        return [
            _with_cause(claim, boots[-1] if claim.id == "identity" else boots[0], files)
            for claim in claims
        ]


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

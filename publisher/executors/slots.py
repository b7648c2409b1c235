"""How many steps of one sort run side by side on this machine."""

from __future__ import annotations

from publisher.errors import UsageError
from publisher.model import MIB
from publisher.plan import Step
from publisher.vm.host import free_memory, processors

MOVERS = 2
"""Steps that move a whole disk to or from one cloud: each has many requests under way,
and one image alone has at most two of them."""
OVERHEAD = 768
"""MiB that QEMU, its emulated devices and its translated code take at least besides the
guest; the code gets more where there is more (publisher.vm.accelerator.code_room)."""


class Slots:
    """What `execute` asks. Builds go one after another unless `builds` says otherwise:
    so the second one finds the checkpoints of the first."""

    def __init__(self, builds: int = 1) -> None:
        self._builds = builds

    def __call__(self, step: Step) -> tuple[str, int] | None:
        if step.kind == "build":
            return "build", self._builds
        if step.kind == "rehearse":
            from publisher.proof.rehearse import at_once

            return "rehearse", at_once(processors())
        if step.kind in ("upload", "verify"):
            return f"{step.kind} {step.inputs['provider']}", MOVERS
        return None


def check_builds(builds: int, *, interactive: bool = False) -> None:
    """Raise UsageError for none, for more than this machine has cores and memory for,
    and for more than one where each may ask for the terminal."""
    from publisher.build.builder import MEMORY

    if builds < 1:
        raise UsageError("nothing would be built", key="--builds", hint="write 1 or more")
    if builds > 1 and interactive:
        raise UsageError(
            "two builds at once can't both open a shell",
            key="--builds",
            hint="leave it out, or use --on-error=keep",
        )
    cores = processors()
    free = free_memory()
    room = free // ((MEMORY + OVERHEAD) * MIB)
    most = max(1, min(cores, room))
    if builds > most:
        raise UsageError(
            f"{builds} builds at once are too many for {cores} cores and "
            f"{free // MIB} MiB of free memory",
            key="--builds",
            hint=f"at most {most} fit",
        )

"""Runs steps on threads of this machine, each as soon as what it waits for is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeAlias

from publisher.plan import Step
from publisher.task import Cancellation

Work: TypeAlias = Callable[[Step], None]
Slots: TypeAlias = Callable[[Step], "tuple[str, int] | None"]
"""What a step occupies one of, by name, and how many of that there are; None: nothing."""


def _unlimited(_: Step) -> None:
    return None


def execute(
    steps: Sequence[Step],
    work: Work,
    cancellation: Cancellation,
    blocks: Callable[[Step, Step], bool],
    slots: Slots = _unlimited,
) -> Mapping[str, BaseException]:
    """Run `work` on all steps; returns the errors by step id.

    A step starts when every step of `steps` that it names in `needs` or
    `after` has ended and one of its `slots` is free, the plan's first ones first.
    It is left out when one of those failed or was left out and `blocks(step, failed
    one)`. After a cancellation nothing new starts.
    """
    waiting = {step.id: step for step in steps}
    by_id = dict(waiting)
    errors: dict[str, BaseException] = {}
    left_out: set[str] = set()
    ended: set[str] = set()
    running: dict[Future[None], Step] = {}

    def free(step: Step) -> bool:
        slot = slots(step)
        if slot is None:
            return True
        name, most = slot
        return sum((slots(other) or ("",))[0] == name for other in running.values()) < most

    with ThreadPoolExecutor(max(1, len(steps)), thread_name_prefix="step") as pool:
        while waiting or running:
            for step in list(waiting.values()):
                behind = [name for name in (*step.needs, *step.after) if name in by_id]
                bad = [name for name in behind if name in errors or name in left_out]
                if cancellation.cancelled or any(blocks(step, by_id[name]) for name in bad):
                    left_out.add(waiting.pop(step.id).id)
                elif all(name in ended or name in left_out for name in behind) and free(step):
                    running[pool.submit(work, waiting.pop(step.id))] = step
            if not running:
                continue
            finished, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
            for future in finished:
                step = running.pop(future)
                ended.add(step.id)
                error = future.exception()
                if error is not None:
                    errors[step.id] = error
    return errors

"""Which recorded outcomes still hold: the clouds are asked, the journal is only believed
where they agree."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from publisher.disks.store import Store
from publisher.journal import Outcome
from publisher.model import Audience, Image
from publisher.plan import Plan, Step
from publisher.proofs import outdone
from publisher.steps import images_of

PROOFS = ("lint", "secrets", "inventory", "rehearse")
"""Kinds of steps that tell of a disk; what they told stays true of the same bytes, though
a machine may come to tell more."""
Truth: TypeAlias = Mapping[str, Mapping[tuple[str, str], Image]]
"""What the clouds hold now: lane ▶ place ▶ Image."""


@dataclass(frozen=True, slots=True)
class Preview:
    """What a run would do with a step, and why. `parts`: the same for the steps of
    a build, as (title, action, reason)."""

    step: Step
    action: Literal["run", "reuse", "check"]
    reason: str
    parts: tuple[tuple[str, str, str], ...] = ()


def recorded_images(step: Step, outcomes: Mapping[str, Outcome], plan: Plan) -> list[Image]:
    """The images that a step is about, as the journal has them."""
    by_id = {s.id: s for s in plan.steps}
    source = {"verify": 1, "release": 0}.get(step.kind)
    about = by_id[step.needs[source]] if source is not None else step
    outcome = outcomes.get(about.key)
    if outcome is None or not {"image", "images"} & set(outcome.value):
        return []
    return images_of(outcome.value)


def broken(
    step: Step, outcomes: Mapping[str, Outcome], plan: Plan, store: Store, truth: Truth | None
) -> str:
    """Why the recorded outcome of a step does not hold, or "" if it does.

    Without `truth` the clouds are not asked, and their part is believed.
    """
    outcome = outcomes.get(step.key)
    if step.kind in ("check", "barrier"):
        return "always done before what follows"
    if outcome is None:
        return "not done yet" if not _changed(step, outcomes) else "its inputs changed"
    if step.kind in PROOFS:
        return _unproved(step, outcome, outcomes, plan, store)
    if step.kind in ("build", "download"):
        return "" if store.get(outcome.value["sha256"]) else "the disk left the store"
    if step.kind == "upload":
        return "" if "image" in outcome.value else "what was uploaded is looked for again"
    images = recorded_images(step, outcomes, plan)
    if not images:
        return "its images are not known"
    if step.kind == "verify" and set(outcome.value["verified"]) != {i.ref for i in images}:
        return "there are images that were not verified"
    if truth is None:
        return ""
    present = truth.get(step.lane, {})
    for image in images:
        now = present.get(image.place)
        if now is None:
            return f"{image.ref} is gone from {image.region}"
        if now.state != "available" or now.digest != image.digest:
            return f"{image.ref} is {now.state}"
        if step.kind == "release" and not _open_to(now, step.inputs["audience"]):
            return f"{image.ref} is {now.audience.kind}"
    return ""


def _unproved(
    step: Step, outcome: Outcome, outcomes: Mapping[str, Outcome], plan: Plan, store: Store
) -> str:
    """Why a proof has to be given again; never of a disk that would have to be made anew."""
    disk = outcomes.get(plan.step(step.needs[0]).key)
    if disk is None or not store.get(disk.value["sha256"]):
        return ""
    if step.kind == "inventory":
        return _changed_document(outcome)
    return outdone(outcome.value) if step.kind == "rehearse" else ""


def _changed_document(outcome: Outcome) -> str:
    for document in outcome.value["documents"]:
        path = Path(document["path"])
        try:
            same = hashlib.sha256(path.read_bytes()).hexdigest() == document["sha256"]
        except OSError:
            return f"{path.name} is gone"
        if not same:
            return f"{path.name} was changed"
    return ""


def _changed(step: Step, outcomes: Mapping[str, Outcome]) -> bool:
    return any(outcome.step == step.id for outcome in outcomes.values())


def _open_to(image: Image, wanted: Mapping[str, Any]) -> bool:
    audience = Audience.from_json(wanted)
    return image.audience.kind == audience.kind and set(image.audience.accounts) == set(
        audience.accounts
    )


def resolve(
    plan: Plan,
    outcomes: Mapping[str, Outcome],
    store: Store,
    truth: Truth | None,
    when: Callable[[Outcome], str],
) -> Sequence[Preview]:
    """Every step of the plan with what to do about it, in the plan's order.

    Backwards from the release: what holds needs nothing before it; what does not
    hold demands what it needs. A step that reads what another one makes
    anew, runs too: no lane stays on another disk than the rest.
    """
    by_id = {step.id: step for step in plan.steps}
    reasons = {s.id: broken(s, outcomes, plan, store, truth) for s in plan.steps}
    demanded: set[str] = set()

    def demand(step: Step) -> None:
        if step.id in demanded or not reasons[step.id]:
            return
        demanded.add(step.id)
        for name in (*step.needs, *step.after):
            # every upload asks for its own cloud's check: a build only waits for all of them
            if by_id[name].kind != "check" or by_id[name].lane == step.lane:
                demand(by_id[name])

    ends = [step for step in plan.steps if step.kind in ("release", "verify", *PROOFS)]
    for step in ends or plan.steps:
        demand(step)
    settled = False
    while not settled:
        settled = True
        for step in plan.steps:
            behind = [name for name in step.needs if name in demanded]
            if behind and step.id not in demanded:
                reasons[step.id] = f"{behind[0]} runs"
                demand(step)
                settled = False
    previews = []
    for step in plan.steps:
        if step.id in demanded:
            action: Literal["run", "check"] = "check" if step.kind == "check" else "run"
            previews.append(Preview(step, action, reasons[step.id]))
        else:
            outcome = outcomes.get(step.key)
            since = when(outcome) if outcome else ""
            previews.append(Preview(step, "reuse", since or "nothing behind it runs"))
    return previews

"""What a verdict leaves open because of the machine that made it, not because of the
image: told to whom it concerns, and shown once the machine can."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from publisher.proof.rehearse.judge import BLIND
from publisher.proof.rehearse.verdict import Claim, Rehearsal, Status
from publisher.vm import namespace


@dataclass(frozen=True, slots=True)
class Limit:
    """`refusal` tells why this machine can't show a line, or nothing when it can;
    `remedy` what would let it."""

    refusal: Callable[[], str]
    remedy: Callable[[], str]


_NETWORK = Limit(lambda: namespace.probe()[1], namespace.remedy)
_LIMITS = {
    "isolation": _NETWORK,
    "ipv6": Limit(lambda: namespace.ipv6_refusal(), lambda: "let this machine's kernel have IPv6"),
}
"""By the ids of lines."""


def _limit(claim: Claim) -> Limit | None:
    if claim.status is not Status.UNPROVABLE:
        return None
    return _NETWORK if claim.evidence == BLIND else _LIMITS.get(claim.id)


def warnings(rehearsal: Rehearsal) -> list[str]:
    """What could not be proved here, why, and what to do about it: a text a reason."""
    open_ends: dict[tuple[str, str], list[str]] = {}
    for claim in rehearsal.claims:
        limit = _limit(claim)
        if limit is not None:
            open_ends.setdefault((claim.evidence, limit.remedy()), []).append(claim.title)
    return [
        f"as {rehearsal.machine}: {Status.UNPROVABLE}: {', '.join(titles)}: {evidence}; "
        f"to prove more, {remedy}"
        for (evidence, remedy), titles in open_ends.items()
    ]


def outdone(rehearsal: Rehearsal) -> str:
    """Why it is worth a repetition: what it left open and this machine can show by now.
    Empty where there is nothing of that sort."""
    for claim in rehearsal.claims:
        limit = _limit(claim)
        if limit is not None and not limit.refusal():
            return f"this machine can show by now what it could not: {claim.title}"
    return ""

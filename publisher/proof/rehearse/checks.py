"""The user's own checks in the booted guest."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence

from publisher.proof.rehearse.verdict import Claim, Status
from publisher.rehearsal import Check
from publisher.vm.shell import Shell

_TAIL = 5
"""Lines of output that a verdict quotes."""
_LATE = (124, 137)
"""The status of timeout(1) when it had to end the command."""


def run_all(shell: Shell, checks: Sequence[Check], cloud: str) -> Iterator[Claim]:
    """A line of the verdict for each check that concerns this cloud. Raises
    BootError when the guest dies under one."""
    for number, check in enumerate(checks):
        if check.concerns(cloud):
            shell.task.phase(f"checking: {check.title}")
            yield _run(shell, check, f"check-{number + 1}")


def _run(shell: Shell, check: Check, name: str) -> Claim:
    # root's, because the login is a user's; timeout(1) ends what the command started, too
    limit = f"timeout -k 5 {check.timeout:g}"
    done = shell.command(f"sudo -n {limit} sh -c {shlex.quote(check.run)} </dev/null 2>&1")
    said = " / ".join(line for line in done.tail[-_TAIL:] if line.strip())
    evidence = f"status {done.status}" + (f": {said}" if said else "")
    if done.status in _LATE:
        return Claim(
            name, check.title, Status.FAILED, f"not done after {check.timeout:g} s; {evidence}"
        )
    if done.status != check.status:
        wanted = f"expected status {check.status}"
        return Claim(name, check.title, Status.FAILED, f"{evidence} ({wanted})")
    if check.output and not re.search(check.output, done.text):
        wanted = f"nothing matches {check.output!r}"
        return Claim(name, check.title, Status.FAILED, f"{evidence} ({wanted})")
    return Claim(name, check.title, Status.PROVED, evidence)

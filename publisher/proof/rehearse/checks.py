"""The user's own checks in the booted guest."""

from __future__ import annotations

import io
import re
import secrets
import shlex
from collections import deque
from collections.abc import Iterator, Sequence

from publisher.errors import BuildError
from publisher.model import MIB
from publisher.proof.rehearse.boot import Seen
from publisher.proof.rehearse.judge import BLIND, unseen
from publisher.proof.rehearse.verdict import Claim, Status
from publisher.rehearsal import Check
from publisher.vm.process import Completed
from publisher.vm.shell import Shell

_TAIL = 5
"""Lines of output that a verdict quotes."""
OUTPUT_MOST = MIB
"""Characters of a command's output in which `output` is looked for, from its start; behind
them only its last lines count."""
_LATE = 124
"""The status of timeout(1) when it had to end the command."""
_WRAPPED = 'trap "exit 124" TERM; sh -c "$1"; printf "\\n%s %s\\n" "$2" $?'
"""Tells the status apart from that of what runs it; timeout(1) ends all that it started."""


class _Output:
    """What a command prints, of which a bounded part is kept, and its own status, which
    stands behind a mark that no command knows."""

    def __init__(self, mark: str) -> None:
        self._mark = f"{mark} "
        self._text = io.StringIO()
        self.tail: deque[str] = deque(maxlen=_TAIL)
        self.status: int | None = None

    def take(self, line: str) -> None:
        if line.startswith(self._mark):
            self.status = int(line.removeprefix(self._mark))
            return
        if line.strip():
            self.tail.append(line)
        self._text.write(f"{line}\n"[: max(0, OUTPUT_MOST - self._text.tell())])

    def matches(self, pattern: str, done: Completed) -> bool:
        return any(re.search(pattern, text) for text in self._texts(done))

    def _texts(self, done: Completed) -> Iterator[str]:
        text = self._text.getvalue()
        # a line has its end, and before the mark another one
        yield text.removesuffix("\n").removesuffix("\n")
        if len(text) == OUTPUT_MOST:
            yield "\n".join(line for line in done.tail if not line.startswith(self._mark))


def run_all(shell: Shell, checks: Sequence[Check], cloud: str) -> Iterator[Claim]:
    """A line of the verdict for each check that concerns this cloud. Raises
    BootError when the guest dies under one, behind the line that says so."""
    for name, check in _concerned(checks, cloud):
        shell.task.phase(f"checking: {check.title}")
        try:
            claim = _run(shell, check, name)
        except BuildError as error:
            why = error.message.partition("; its console")[0]
            yield Claim(name, check.title, Status.FAILED, f"the guest ended under it: {why}")
            raise
        yield claim


def left(checks: Sequence[Check], cloud: str, done: Sequence[Claim], seen: Seen) -> Iterator[Claim]:
    """The lines of the checks that did not run, because the boot never came so far, ended,
    or nobody could log in."""
    status, why = (Status.UNPROVABLE, BLIND) if unseen(seen) else (Status.UNREACHED, "")
    ran = {claim.id for claim in done}
    for name, check in _concerned(checks, cloud):
        if name not in ran:
            yield Claim(name, check.title, status, why)


def _concerned(checks: Sequence[Check], cloud: str) -> Iterator[tuple[str, Check]]:
    for number, check in enumerate(checks, 1):
        if check.concerns(cloud):
            yield f"check-{number}", check


def _run(shell: Shell, check: Check, name: str) -> Claim:
    mark = secrets.token_hex(8)
    output = _Output(mark)
    # root's, because the login is a user's
    words = ["timeout", "-k", "5", f"{check.timeout:g}", "sh", "-c", _WRAPPED, "sh"]
    command = f"sudo -n {shlex.join([*words, check.run, mark])} </dev/null 2>&1"
    started = shell.task.clock.monotonic()
    done = shell.command(command, on_line=output.take)
    late = done.status == _LATE or shell.task.clock.monotonic() - started >= check.timeout
    status = done.status if output.status is None else output.status
    said = " / ".join(output.tail)
    evidence = f"status {status}" + (f": {said}" if said else "")
    if late and output.status is None:
        evidence = f"not done after {check.timeout:g} s" + (f": {said}" if said else "")
        return Claim(name, check.title, Status.FAILED, evidence)
    if status != check.status:
        wanted = f"expected status {check.status}"
        return Claim(name, check.title, Status.FAILED, f"{evidence} ({wanted})")
    if check.output and not output.matches(check.output, done):
        wanted = f"nothing matches {check.output!r}"
        return Claim(name, check.title, Status.FAILED, f"{evidence} ({wanted})")
    return Claim(name, check.title, Status.PROVED, evidence)

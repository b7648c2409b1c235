"""What becomes of a machine in which a step failed: it goes away, it is kept, or the
user gets a shell in it.

Builders' users ask for a pause at the error alone, for a retry of the failed step
alone, and for scripts that are read again before it (hashicorp/packer 409, 6661,
12233, 13128). So there are two retries: on the machine as it is now, with what was
changed in it by hand, or from the checkpoint before the step, without.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from publisher.errors import BuildError, PublishError
from publisher.task import Task
from publisher.vm.shell import Shell

Action: TypeAlias = Literal["cleanup", "keep", "shell"]
ACTIONS: tuple[Action, ...] = ("cleanup", "keep", "shell")
Decision: TypeAlias = Literal["retry", "again", "keep", "give up"]
"""retry: the step, on the machine as it is; again: from the last checkpoint."""


class Terminal(Protocol):
    """The user's terminal; whoever uses it is between `aside`'s begin and end."""

    @property
    def files(self) -> tuple[int, int]:
        """What the user types and what the user sees, as file descriptors."""

    def aside(self) -> AbstractContextManager[None]:
        """Take the display of the run away for so long."""

    def write(self, text: str) -> None: ...

    def ask(self, question: str, check: Callable[[], None]) -> str | None:
        """A line that the user types, None at the end of the input; `check` is called
        all the while and may raise."""


@dataclass(frozen=True, slots=True)
class OnError:
    """What to do when a step fails. `terminal` is needed for "shell"."""

    action: Action = "cleanup"
    terminal: Terminal | None = None
    turn: threading.Lock = field(default_factory=threading.Lock, compare=False)
    """Held while a build talks to the user: others that fail meanwhile wait."""


CLEANUP = OnError()

_CHOICES: dict[str, Decision | Literal["shell"]] = {
    "r": "retry",
    "c": "again",
    "s": "shell",
    "k": "keep",
    "a": "give up",
}
_QUESTION = """\
  r  retry {step} on the machine as it is now; the image counts as changed by hand
  c  run {step} from the last checkpoint, without what was changed
  s  back to the shell
  k  keep the machine and give up
  a  give up
What next? [{default}] """


def converse(
    terminal: Terminal, shell: Shell, step: str, error: PublishError, task: Task
) -> Decision:
    """Show what failed, open a shell in the guest, and ask what next when the user
    has left it: a status of 0 proposes the retry. Raises Cancelled."""
    terminal.write(f"\n{error}\n\nThis is a shell in the guest. Leave it to go on.\n")
    while True:
        status = _visit(terminal, shell, task)
        default = "c" if status is None else "a" if status else "r"
        question = _QUESTION.format(step=step, default=default)
        answer = _answer(terminal, question, default, task)
        if answer == "shell":
            continue
        if status is None and answer in ("retry", "keep"):
            terminal.write("The guest is gone: only c and a are left.\n")
            continue
        return answer


def _visit(terminal: Terminal, shell: Shell, task: Task) -> int | None:
    """The status of the user's shell; None when the guest can't be reached any more."""
    try:
        return shell.interact(*terminal.files)
    except (BuildError, OSError) as error:
        task.check()
        terminal.write(f"The guest can't be reached: {error}\n")
        return None


def _answer(
    terminal: Terminal, question: str, default: str, task: Task
) -> Decision | Literal["shell"]:
    while True:
        said = terminal.ask(question, task.check)
        if said is None:
            return "give up"
        word = said.strip().lower()[:1] or default
        if word in _CHOICES:
            return _CHOICES[word]

"""The build steps, run inside the guest."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from publisher.errors import BuildError
from publisher.recipe import BuildStep, Recipe, Script, local_file
from publisher.task import Task
from publisher.vm import process
from publisher.vm.shell import Shell

LINES = 20
"""Lines of a failed step's output in its error."""

_APT = "apt-get -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 -q -y"


def key(number: int) -> str:
    return f"build.steps[{number}]"


def check_files(recipe: Recipe, directory: Path) -> None:
    """Raise PipelineError for the first local file of a step that is missing."""
    for number, step in enumerate(recipe.steps):
        if isinstance(step.run, Script):
            local_file(directory, step.run.file, f"{key(number)}.run.file")
        if step.copy_ is not None:
            local_file(directory, step.copy_.from_, f"{key(number)}.copy.from")


def run_all(recipe: Recipe, directory: Path, shell: Shell, task: Task) -> None:
    """Run the steps in order. The first that fails raises BuildError with its key,
    its status and its last lines."""
    clock = task.clock
    for number, step in enumerate(recipe.steps):
        title = f"step {number + 1}/{len(recipe.steps)}: {step.title()}"
        task.phase(title)
        started = clock.monotonic()
        try:
            done = run(step, directory, shell, task.output)
        except BuildError as error:
            error.key = error.key or key(number)
            raise
        if done is not None and done.status:
            raise failure(number, step, done)
        task.phase(f"{title} · {clock.monotonic() - started:.1f} s")


def run(
    step: BuildStep, directory: Path, shell: Shell, output: Callable[[str], None]
) -> process.Completed | None:
    """One step; None when it can only fail by raising."""
    if step.packages is not None:
        names = " ".join(shlex.quote(name) for name in step.packages)
        return shell.script(f"{_APT} install --no-install-recommends -- {names}", on_line=output)
    if isinstance(step.run, Script):
        return shell.script((directory / step.run.file).read_text(), on_line=output)
    if step.run is not None:
        return shell.script(step.run, on_line=output)
    copy = step.copy_
    assert copy is not None
    mode = None if copy.mode is None else int(copy.mode, 8)
    shell.copy(directory / copy.from_, copy.to, mode=mode, owner=copy.owner)
    return None


def failure(number: int, step: BuildStep, done: process.Completed) -> BuildError:
    """What the user reads about a failed step."""
    last = "\n".join(f"  {line}" for line in done.tail[-LINES:]) or "  (it printed nothing)"
    how = f"status {done.status}" if done.status > 0 else f"signal {-done.status}"
    full = "No space left on device" in done.text
    return BuildError(
        f"step {number + 1} ({step.title()}) ended with {how}; its last lines:\n{last}",
        key=key(number),
        hint="the image's disk is full: make build.size larger"
        if full
        else "correct the step and run the same command again",
    )

"""The build steps, run inside the guest."""

from __future__ import annotations

import functools
import shlex
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from publisher.build import ansible, answers, secrets, template
from publisher.build_steps import BuildStep, Copy, Script
from publisher.errors import BuildError, PublishError
from publisher.model import Noun
from publisher.recipe import Recipe, local_file
from publisher.task import Task
from publisher.vm import process
from publisher.vm.shell import Shell

LINES = 20
"""Lines of a failed step's output in its error."""

_APT = "apt-get -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 -q -y"


def key(number: int) -> str:
    return f"build.steps[{number}]"


@dataclass(frozen=True, slots=True)
class Evidence(Noun):
    """A check that succeeded: the step's title, its script, and the last lines that
    it printed, at most 200."""

    title: str
    command: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Outcome(process.Completed):
    """How a step ended, without its secrets."""

    evidence: Evidence | None = None


def check_files(recipe: Recipe, directory: Path) -> None:
    """Raise PipelineError for the first local file, variable or secret of a step that
    is missing, HostError for a program of the host."""
    if recipe.source.installer is not None:
        answers.used(recipe.source.installer, directory)
        secrets.read_all(recipe.source.installer.secrets, directory, answers.KEY)
    for number, step in enumerate(recipe.steps):
        for suffix, name in step.local_files():
            local_file(directory, name, f"{key(number)}.{suffix}")
        secrets.read(step, directory, key(number))
        copy = step.copy_
        if copy is not None and copy.template:
            template.check(directory / copy.from_, copy.variables, f"{key(number)}.copy")
        if step.ansible is not None:
            ansible.require(f"{key(number)}.ansible")


def run_all(
    recipe: Recipe,
    directory: Path,
    shell: Shell,
    task: Task,
    *,
    first: int = 0,
    after: Callable[[int, Evidence | None], None] = lambda *_: None,
    rescue: Callable[[int, BuildError], None] | None = None,
    hand: Callable[[int, Mapping[str, str]], None] = lambda *_: None,
) -> None:
    """Run the steps in order, from the step `first`; `after` is called behind each
    one that succeeded, with what a check showed, and `hand` with the secrets of each
    before it gets them. The first that fails raises
    BuildError with its key, its status and its last lines, unless `rescue` takes
    that error and returns: then the step is run once more."""
    clock = task.clock
    for number, step in enumerate(recipe.steps):
        title = f"step {number + 1}/{len(recipe.steps)}: {step.title()}"
        if number < first:
            task.phase(f"{title} · from its checkpoint")
            continue
        while True:
            task.phase(title)
            started = clock.monotonic()
            try:
                evidence = _succeed(
                    number, step, directory, shell, task, functools.partial(hand, number)
                )
                break
            except BuildError as error:
                if rescue is None:
                    raise
                rescue(number, error)
        task.phase(f"{title} · {clock.monotonic() - started:.1f} s")
        after(number, evidence)


def _succeed(
    number: int,
    step: BuildStep,
    directory: Path,
    shell: Shell,
    task: Task,
    hand: Callable[[Mapping[str, str]], None],
) -> Evidence | None:
    try:
        done = run(step, directory, shell, task.output, hand)
    except BuildError as error:
        error.key = error.key or key(number)
        raise
    if done is not None and done.status:
        raise failure(number, step, done)
    return done.evidence if done is not None else None


def run(
    step: BuildStep,
    directory: Path,
    shell: Shell,
    output: Callable[[str], None],
    hand: Callable[[Mapping[str, str]], None] = lambda _: None,
) -> Outcome | None:
    """One step; None when it can only fail by raising. Its secrets, which `hand` is told
    first, stand in no line of the output, of the outcome or of an error."""
    hidden = secrets.read(step, directory, "build.steps")
    hand(hidden)
    redact = secrets.Redactor(hidden)
    try:
        done = _run(step, directory, shell, lambda line: output(redact(line)), hidden)
    except PublishError as error:
        redact.error(error)
        if hidden:
            raise error from None  # what caused it may show a value
        raise
    if done is None:
        return None
    tail = tuple(map(redact, done.tail))
    evidence = None
    if step.check is not None and step.script is not None and not done.status:
        text = step.script.inline or f"file {step.script.file}"
        evidence = Evidence(step.title(), redact(text.strip()), tail)
    return Outcome(done.status, tail, done.late, evidence)


def _run(
    step: BuildStep,
    directory: Path,
    shell: Shell,
    hear: Callable[[str], None],
    hidden: Mapping[str, str],
) -> process.Completed | None:
    if step.packages is not None:
        names = " ".join(shlex.quote(name) for name in step.packages)
        return shell.script(f"{_APT} install --no-install-recommends -- {names}", on_line=hear)
    if step.script is not None:
        return _attempts(step.script, directory, shell, hear, hidden)
    if step.ansible is not None:
        return ansible.play(step.ansible, directory, shell, hear, hidden)
    if step.copy_ is not None:
        _copy(step.copy_, directory, shell)
    else:
        shell.reboot()
    return None


def _attempts(
    script: Script,
    directory: Path,
    shell: Shell,
    hear: Callable[[str], None],
    hidden: Mapping[str, str],
) -> process.Completed:
    """Run a script until it succeeds, at most 1 + `retries` times."""
    text = script.inline
    if text is None:
        assert script.file is not None
        text = (directory / script.file).read_text()
    for attempt in range(1, script.retries + 2):
        done = shell.script(
            text,
            on_line=hear,
            interpreter=script.interpreter,
            environment={**script.environment, **hidden},
            directory=script.directory,
            timeout=script.timeout,
        )
        if not done.status or attempt > script.retries:
            break
        shell.task.phase(
            f"attempt {attempt} of {script.retries + 1} ended with {_how(done)}: "
            f"again in {script.pause} s"
        )
        shell.task.sleep(script.pause)
    return done


def _copy(copy: Copy, directory: Path, shell: Shell) -> None:
    mode = None if copy.mode is None else int(copy.mode, 8)
    source = directory / copy.from_
    if not copy.template:
        shell.copy(source, copy.to, mode=mode, owner=copy.owner)
        return
    with tempfile.TemporaryDirectory(prefix="publisher.") as made:
        filled = template.render(source, Path(made), copy.variables, "build.steps")
        shell.copy(filled, copy.to, mode=mode, owner=copy.owner)


def _how(done: process.Completed) -> str:
    if done.late:
        return "its time limit"
    return f"status {done.status}" if done.status > 0 else f"signal {-done.status}"


def failure(number: int, step: BuildStep, done: process.Completed) -> BuildError:
    """What the user reads about a failed step."""
    last = "\n".join(f"  {line}" for line in done.tail[-LINES:]) or "  (it printed nothing)"
    title = f"step {number + 1} ({step.title()})"
    if done.late and step.script is not None:
        return BuildError(
            f"{title} took longer than {step.script.timeout} s and was killed with all that it "
            f"had started; its last lines:\n{last}",
            key=f"{key(number)}.{step.kind}.timeout",
            hint="give it more time, or find out what it waited for",
        )
    full = "No space left on device" in done.text
    return BuildError(
        f"{title} ended with {_how(done)}; its last lines:\n{last}",
        key=key(number),
        hint="the image's disk is full: make build.size larger"
        if full
        else "correct the step and run the same command again",
    )

"""Source `command`: a builder of the user's own (mkosi, Nix, osbuild, Packer …) makes the disk."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from publisher.build.adopt import adopt
from publisher.errors import BuildError, HostError, PipelineError
from publisher.model import Spec
from publisher.recipe import Command, local_file
from publisher.task import Task
from publisher.vm import process

KEY = "build.source.command"
LINES = 20
"""Lines of a failed command's output in its error."""
_PASSED = (
    *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "SOURCE_DATE_EPOCH"),
    *("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
)


def prepare(
    source: Command,
    spec: Spec,
    size: int,
    *,
    directory: Path,
    scratch: Path,
    into: Path,
    task: Task,
) -> Path:
    """Run the command in `scratch`, which is made and removed, on copies of its
    inputs, and write the disk that it leaves to `into`, raw, `size` bytes.

    Cancelling kills its process group. Raises BuildError, HostError, PipelineError.
    """
    declared = _declared(source)
    work, temporary = scratch / "work", scratch / "tmp"
    for made in (work, temporary):
        made.mkdir(parents=True)
    try:
        _copy_inputs(source, directory, work, task)
        task.phase(f"running {_title(source)}")
        hide = _redactor(declared)
        done = process.run(
            _argv(source, work),
            task,
            on_line=lambda line: task.output(hide(line)),
            env={**_environment(spec, size, temporary), **declared},
            cwd=work,
        )
        if done.status:
            raise _failure(source, done, hide)
        return adopt(_output(source, work), size, into, task, f"{KEY}.output")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _declared(source: Command) -> dict[str, str]:
    """The variables that the pipeline names. Raises PipelineError for one that is not set."""
    found = {}
    for number, name in enumerate(source.environment):
        if name not in os.environ:
            raise PipelineError(
                f"the environment variable {name} is not set",
                key=f"{KEY}.environment[{number}]",
                hint=f"export {name}",
            )
        found[name] = os.environ[name]
    return found


def _environment(spec: Spec, size: int, temporary: Path) -> dict[str, str]:
    """What every command gets; the PUBLISH_ variables are inputs of the build anyway."""
    return {
        **{name: os.environ[name] for name in _PASSED if name in os.environ},
        "TMPDIR": str(temporary),
        "PUBLISH_NAME": spec.name,
        "PUBLISH_VERSION": spec.version,
        "PUBLISH_ARCH": spec.arch,
        "PUBLISH_SIZE": str(size),
    }


def _redactor(declared: Mapping[str, str]) -> Callable[[str], str]:
    """Writes the values of declared variables as ${NAME}."""
    hidden = {
        line.strip(): name
        for name, value in declared.items()
        for line in value.splitlines()
        if len(line.strip()) > 3
    }

    def hide(text: str) -> str:
        for value in sorted(hidden, key=len, reverse=True):
            text = text.replace(value, f"${{{hidden[value]}}}")
        return text

    return hide


def _copy_inputs(source: Command, directory: Path, work: Path, task: Task) -> None:
    for number, name in enumerate(source.inputs):
        task.check()
        found = local_file(directory, name, f"{KEY}.inputs[{number}]")
        target = work / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            if found.is_dir():
                shutil.copytree(found, target, symlinks=True, dirs_exist_ok=True)
            else:
                shutil.copy2(found, target)
        except (OSError, shutil.Error) as error:
            raise HostError(
                f"cannot copy {name}: {error}", key=f"{KEY}.inputs[{number}]"
            ) from error


def _argv(source: Command, work: Path) -> list[str]:
    if isinstance(source.run, str):
        return ["sh", "-euc", source.run]
    program, *arguments = source.run
    if "/" in program:
        return [str(work / program), *arguments]
    if shutil.which(program) is None:
        raise HostError(f"{program} is not installed", key=f"{KEY}.run", hint="install it")
    return [program, *arguments]


def _title(source: Command) -> str:
    if isinstance(source.run, str):
        lines = source.run.strip().splitlines() or [""]
        return f"{lines[0]}{' …' if len(lines) > 1 else ''}"
    return shlex.join(source.run)


def _failure(source: Command, done: process.Completed, hide: Callable[[str], str]) -> BuildError:
    last = "\n".join(f"  {hide(line)}" for line in done.tail[-LINES:]) or "  (it printed nothing)"
    how = f"status {done.status}" if done.status > 0 else f"signal {-done.status}"
    return BuildError(
        f"{_title(source)} ended with {how}; its last lines:\n{last}",
        key=f"{KEY}.run",
        hint="it sees only its declared inputs, in an empty directory",
    )


def _output(source: Command, work: Path) -> Path:
    path = work / source.output
    if path.is_file():
        return path
    left = sorted(p.relative_to(work).as_posix() for p in work.iterdir())
    raise BuildError(
        f"{_title(source)} left no file {source.output}",
        key=f"{KEY}.output",
        hint=f"it left {_some(left)}",
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (" …" if len(names) > 10 else "") or "nothing"

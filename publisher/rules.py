"""What no cloud would take, said offline and before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from publisher import provider
from publisher.errors import PipelineError
from publisher.flavours import Flavour, Pipeline
from publisher.model import GIB, MIB, Severity
from publisher.settings import Problem, complain
from publisher.sources import DEBIAN_LEAST


def validate(pipeline: Pipeline, only: Sequence[str] = ()) -> None:
    """Ask every target offline and at once whether its cloud would take this.

    `only` narrows it to some targets. Raises PipelineError with everything
    that a cloud's rules refuse.
    """
    problems: list[Problem] = []
    for flavour in pipeline.flavours:
        problems += _located(flavour, _problems(pipeline, flavour, only))
    problems += _same_names(pipeline, only)
    problems += _same_audiences(pipeline, only)
    if problems:
        raise complain(list(dict.fromkeys(problems)), pipeline.path.name)


def _located(flavour: Flavour, problems: Iterator[Problem]) -> Iterator[Problem]:
    """The same where the file has it, not where a file without variants would."""
    for problem in problems:
        yield replace(problem, key=flavour.key(problem.key))


def _problems(pipeline: Pipeline, flavour: Flavour, only: Sequence[str]) -> Iterator[Problem]:
    spec = flavour.spec()
    sized = False
    for name, options in flavour.targets.items():
        if only and name not in only:
            continue
        kind = provider.load(name)
        wrong_size = _size_problems(spec.size, kind.traits)
        sized = sized or bool(wrong_size)
        yield from wrong_size
        try:
            options.fill(spec)
            findings = kind(options).validate(replace(spec, size=0) if wrong_size else spec)
        except PipelineError as error:
            key = f"targets.{name}.{(error.key or 'name').removeprefix(f'targets.{name}.')}"
            yield Problem(key, error.message, error.hint)
            continue
        for finding in findings:
            if finding.severity is Severity.ERROR:
                key = f"targets.{name}.{finding.key}" if finding.key else f"targets.{name}"
                yield Problem(key, pipeline.redact(finding.evidence), finding.fix)
    if flavour.build.source.debian and spec.size < DEBIAN_LEAST and not sized:
        message = f"size too small: Debian takes at least {show_size(DEBIAN_LEAST)}"
        yield Problem("build.size", message, 'write "2GiB" or more')


def _same_names(pipeline: Pipeline, only: Sequence[str]) -> Iterator[Problem]:
    """What two images of the release would both be called in a cloud."""
    taken: dict[tuple[str, str, str], Flavour] = {}
    for flavour in pipeline.flavours:
        for target, options in flavour.targets.items():
            if only and target not in only:
                continue
            try:
                claims = options.claims(flavour.spec())
            except PipelineError:
                continue  # told already
            for option, names in claims.items():
                for name in names:
                    first = taken.setdefault((target, option, name), flavour)
                    if first is not flavour:
                        yield Problem(
                            flavour.key(f"targets.{target}.{option}"),
                            f"{first.label} and {flavour.label} would both be {name!r}",
                            "write {name} into it, which differs between them, or give one of "
                            "them another",
                        )
                        break


def _same_audiences(pipeline: Pipeline, only: Sequence[str]) -> Iterator[Problem]:
    """Images that a cloud can only open together, but that are to be opened differently."""
    opened: dict[tuple[str, str], Flavour] = {}
    for flavour in pipeline.flavours:
        for target, options in flavour.targets.items():
            whole = options.opened_as()
            if not whole or (only and target not in only):
                continue
            first = opened.setdefault((target, whole), flavour)
            if first.audience(target) != flavour.audience(target):
                yield Problem(
                    flavour.key(f"targets.{target}"),
                    f"{target} opens {whole} as a whole: {first.label} would be "
                    f"{first.audience(target).kind} and {flavour.label} "
                    f"{flavour.audience(target).kind}",
                    "give each audience a place of its own, or leave the target out of one: "
                    f"targets.{target} = false",
                )


def _size_problems(size: int, traits: provider.Traits) -> list[Problem]:
    title, multiple, largest = traits.title, traits.size_multiple, traits.size_max
    if size < multiple:
        message = f"size too small: {title} takes disks from {show_size(multiple)}"
        return [Problem("build.size", message, f'write "{show_size(multiple)}" or more')]
    if size > largest:
        message = f"size too large: {title} takes disks up to {show_size(largest)}"
        return [Problem("build.size", message, f'write "{show_size(largest)}" or less')]
    if size % multiple:
        unit = "GiB" if multiple == GIB else show_size(multiple)
        message = f"not whole {unit}: {title} takes multiples of {show_size(multiple)}"
        above = (size // multiple + 1) * multiple
        return [Problem("build.size", message, f'write "{show_size(above)}"')]
    return []


def show_size(size: int) -> str:
    """A size as it is written in a pipeline file."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB")):
        if size % unit == 0:
            return f"{size // unit}{name}"
    return f"{size}"

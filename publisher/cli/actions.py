"""What run, plan, migrate and schema do: load, choose, hand to the engine, show."""

from __future__ import annotations

import contextlib
import json as jsons
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from publisher import digests
from publisher.cli import terminal
from publisher.cli.screen import screen
from publisher.cli.signals import cancelling
from publisher.cli.words import chosen
from publisher.events import Note
from publisher.pipeline import Pipeline, load, load_options, validate
from publisher.provider import Emulated, Provider

if TYPE_CHECKING:
    from publisher.attesting import Attest
    from publisher.plan import Plan


def sandbox_defaults(kind: type[Provider]) -> Mapping[str, object]:
    """Required options that fit a stand-in."""
    return kind.sandbox_options() if isinstance(kind, Emulated) else {}


def _load(file: Path, settings: Sequence[str], sandbox: bool) -> Pipeline:
    if sandbox:
        return load(file, settings=settings, environ=os.environ, defaults=sandbox_defaults)
    return load(file, settings=settings, environ=os.environ)


@contextlib.contextmanager
def clouds(names: Sequence[str], state: Path, *, sandbox: bool) -> Iterator[None]:
    """The clouds as the environment has them, or their stand-ins."""
    if not sandbox:
        yield
        return
    from publisher.sandbox import Sandboxes

    with Sandboxes(names, state):
        yield


def run(
    file: Path,
    *,
    settings: Sequence[str],
    only: str,
    variants: Sequence[str],
    archs: Sequence[str],
    builds: int,
    sandbox: bool,
    on_error: str,
    state: Path,
    json: bool,
    plain: bool,
) -> None:
    from publisher.executors.slots import check_builds

    terminal.check(on_error, json=json)
    drawn, names, attest = _drawn(
        file, settings, only, variants, archs, sandbox=sandbox, state=state
    )
    check_builds(builds, interactive=on_error == "shell")
    _execute(
        drawn,
        names,
        state,
        sandbox=sandbox,
        on_error=on_error,
        builds=builds,
        attest=attest,
        json=json,
        plain=plain,
    )


def _drawn(
    file: Path,
    settings: Sequence[str],
    only: str,
    variants: Sequence[str],
    archs: Sequence[str],
    *,
    sandbox: bool,
    state: Path,
) -> tuple[Plan, Sequence[str], Attest | None]:
    """The plan of a pipeline file, the targets that it goes to, and who signs it."""
    import publisher.plan

    digests.keep(state)
    pipeline = _load(file, settings, sandbox).choose(variants, archs)
    names = chosen(only, pipeline.targets, "target") or pipeline.targets
    validate(pipeline, names)
    return publisher.plan.plan(pipeline, names, realm(sandbox)), names, pipeline.attest


def realm(sandbox: bool) -> str:
    """What sets the outcomes of stand-ins apart, so that the real clouds never meet them."""
    return "sandbox" if sandbox else ""


def _execute(
    drawn: Plan,
    names: Sequence[str],
    state: Path,
    *,
    sandbox: bool,
    on_error: str = "cleanup",
    builds: int = 1,
    attest: Attest | None = None,
    json: bool,
    plain: bool,
) -> None:
    import publisher.run

    with (
        cancelling() as cancellation,
        clouds(names, state, sandbox=sandbox),
        screen(json=json, plain=plain) as sink,
    ):
        made = publisher.run.run(
            drawn,
            state=state,
            sink=sink,
            cancellation=cancellation,
            on_error=terminal.on_error(on_error, sink),
            builds=builds,
        )
        if attest is not None:
            from publisher.cli.attesting import sign_run

            signed = sign_run(made, attest, state=state)
            if signed is not None:
                sink(Note("info", f"signed: {signed}"))


def plan(
    file: Path,
    *,
    settings: Sequence[str],
    only: str,
    variants: Sequence[str],
    archs: Sequence[str],
    sandbox: bool,
    state: Path,
    json: bool,
) -> None:
    import publisher.run
    from publisher.cli import tables

    drawn, _, _ = _drawn(file, settings, only, variants, archs, sandbox=sandbox, state=state)
    previews = publisher.run.preview(drawn, state=state)
    if json:
        steps = [
            {
                "step": p.step.id,
                "kind": p.step.kind,
                "lane": p.step.lane,
                "key": p.step.key,
                "action": p.action,
                "reason": p.reason,
                "parts": [
                    dict(zip(("title", "action", "reason"), q, strict=True)) for q in p.parts
                ],
            }
            for p in previews
        ]
        document = {
            "title": drawn.title,
            "name": drawn.name,
            "version": drawn.version,
            "flavours": [planned.to_json() for planned in drawn.flavours],
            "steps": steps,
        }
        print(jsons.dumps(document, indent=2))  # noqa: T201
        return
    tables.write_plan(drawn.title, [(p.step.id, p.action, p.reason, p.parts) for p in previews])


def migrate(
    source: str,
    targets: Sequence[str],
    *,
    name: str,
    version: str,
    pipeline: Path | None,
    settings: Sequence[str],
    sandbox: bool,
    state: Path,
    json: bool,
    plain: bool,
) -> None:
    import publisher.migrate
    from publisher import provider

    given = load_options(pipeline, settings=settings, environ=os.environ)
    named = dict.fromkeys(text.partition(":")[0] for text in (source, *targets))
    clouds = [cloud for cloud in named if cloud in provider.names()]
    if sandbox:
        given = {
            cloud: {**sandbox_defaults(provider.load(cloud)), **given.get(cloud, {})}
            for cloud in {*clouds, *given}
        }
    drawn = publisher.migrate.plan_migration(
        source,
        targets,
        name=name or None,
        version=version or None,
        options=given,
        realm=realm(sandbox),
    )
    _execute(drawn, clouds, state, sandbox=sandbox, json=json, plain=plain)


def schema() -> None:
    from publisher.schema import schema

    print(jsons.dumps(schema(), indent=2))  # noqa: T201

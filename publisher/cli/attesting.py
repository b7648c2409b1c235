"""What attest sign and attest verify do."""

from __future__ import annotations

import json as jsons
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from publisher import manifest, provider
from publisher.attesting import Attest
from publisher.cli.actions import clouds, sandbox_defaults
from publisher.cli.releases import find
from publisher.cli.signals import cancelling
from publisher.cli.tables import write
from publisher.cli.words import chosen
from publisher.errors import HostError, ProofError, UsageError
from publisher.manifest import Manifest, manifest_path
from publisher.migrate import complete_options
from publisher.pipeline import load_options
from publisher.proof import attest
from publisher.proof.attest.verify import refuse
from publisher.provider import Provider
from publisher.task import detached

NAME = "attestation.intoto.jsonl"


def sign(release: str, key: str, passphrase: str, output: Path | None, *, state: Path) -> None:
    made, path = _manifest(release, state)
    into = output or path.with_name(NAME)
    _sign(made, _signing(Attest(key=key, passphrase=passphrase)), into)
    write(str(into))


def sign_run(made: Manifest, wanted: Attest, *, state: Path) -> Path | None:
    """Sign what a run published, as its pipeline asks for; None where that is done."""
    into = manifest_path(state, made.name, made.version).with_name(NAME)
    by = _signing(wanted)
    if _holds(into, made, by):
        return None
    _sign(made, by, into)
    return into


def _signing(wanted: Attest) -> attest.Signing:
    return attest.Signing(wanted.key, os.environ.get(wanted.passphrase))


def _holds(file: Path, made: Manifest, by: attest.Signing) -> bool:
    """Whether a file holds what would be signed now, signed by the same key."""
    try:
        signed = attest.read_own(file.read_bytes(), by)
    except (OSError, ProofError):
        return False
    wanted: list[Mapping[str, Any]] = jsons.loads(jsons.dumps(list(attest.statements(made))))
    return signed == wanted


def _sign(made: Manifest, by: attest.Signing, into: Path) -> None:
    signed = attest.sign(attest.statements(made), by)
    partial = into.with_name(into.name + ".partial")
    try:
        partial.write_bytes(signed)
        os.replace(partial, into)
    except OSError as error:
        raise HostError(f"cannot write {into}: {error.strerror}") from error


def _manifest(release: str, state: Path) -> tuple[Manifest, Path]:
    """The whole release, also where one of its images is named: all are signed together."""
    path = Path(release).expanduser()
    if not (path.suffix == ".json" or path.is_file()):
        found = find(release, state)
        path = manifest_path(state, found.name, found.version)
    made = manifest.read(path)
    if made is None:
        raise UsageError(f"{path} holds no manifest of a release", hint="check the path")
    return made, path


def verify(
    file: Path,
    key: str,
    *,
    identity: str,
    issuer: str,
    release: str,
    digests: Sequence[str],
    required: str,
    content: bool,
    pipeline: Path | None,
    settings: Sequence[str],
    sandbox: bool,
    state: Path,
    json: bool,
) -> None:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from error
    kinds = chosen(required, attest.PROOFS, "proof")
    by = attest.Signing(key, identity=identity, issuer=issuer)
    attested = attest.read(attest.read_signed(data, by))
    attested.expect(release, digests)
    subjects = attested.subjects
    names = list(dict.fromkeys(s.provider for s in subjects if s.provider))
    unknown = [name for name in names if name not in provider.names()]
    if unknown:
        raise ProofError(f"there is no provider {unknown[0]!r} here to ask about its images")
    given = load_options(pipeline, settings=settings, environ=os.environ)
    lines: list[attest.Line] = []
    with (
        cancelling() as cancellation,
        clouds(names, state, sandbox=sandbox),
        tempfile.TemporaryDirectory() as memory,
    ):
        task = detached(Path(memory), "attest", cancellation=cancellation)
        scratch = state / "scratch"
        scratch.mkdir(parents=True, exist_ok=True)
        connect = _connector(given, sandbox=sandbox)
        for line in attest.verify(
            subjects, connect, task, content=content, scratch=scratch, regions=_regions(given)
        ):
            lines.append(line)
            if not json:
                _write(line)
    if json:
        document = {
            "release": {"name": attested.name, "version": attested.version},
            "subjects": [subject.to_json() for subject in subjects],
            "proofs": {
                disk: [result.to_json() for result in found]
                for disk, found in attested.proofs.items()
            },
            "images": [line.to_json() for line in lines],
        }
        print(jsons.dumps(document, indent=2))  # noqa: T201
    else:
        _write_proofs(attested)
    refuse(lines)
    attested.require(kinds)


def _write_proofs(attested: attest.Attested) -> None:
    for disk, found in attested.proofs.items():
        for result in found:
            style = "green" if result.passed else "yellow"
            write(f"{result.proof:10} {disk}: {result.told}", style)


def _regions(given: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Sequence[str]]:
    """The regions of a pipeline's targets by provider."""
    regions = {name: options.get("regions", ()) for name, options in given.items()}
    return {
        name: [r["name"] if isinstance(r, Mapping) else str(r) for r in found]
        for name, found in regions.items()
    }


def _write(line: attest.Line) -> None:
    if line.differs:
        write(f"differs   {line.subject}: {line.differs}", "bold red")
    else:
        write(f"as signed {line.subject} ({line.checked})", "green")


def _connector(
    given: Mapping[str, Mapping[str, Any]], *, sandbox: bool
) -> Callable[[attest.Subject], Provider]:
    """Providers with the options that a reference and the pipeline give, one for
    each set of those."""
    made: dict[str, Provider] = {}

    def connect(subject: attest.Subject) -> Provider:
        kind = provider.load(subject.provider)
        own = given.get(subject.provider, {})
        own = {**(sandbox_defaults(kind) if sandbox else {}), **own}
        values = {**own, **kind.options.from_reference(subject.ref, own)}
        if "regions" in kind.options.model_fields:
            values["regions"] = [subject.region]
        key = f"{subject.provider} {jsons.dumps(values, sort_keys=True, default=str)}"
        if key not in made:
            made[key] = kind(complete_options(kind, values, subject.name))
        return made[key]

    return connect

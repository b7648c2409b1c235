"""What a run shows of a disk before a byte of it is uploaded."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, cast
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from publisher import events, provenance, provider, run, steps
from publisher.attesting import Attest
from publisher.build.builder import TRACES
from publisher.cli.attesting import sign_run
from publisher.cli.main import run as command
from publisher.cli.releases import options_of
from publisher.context import Context
from publisher.errors import PipelineError, ProofError, PublishError
from publisher.events import Note
from publisher.manifest import Manifest
from publisher.model import MIB, Disk, Finding, Image, Severity, Spec, Upload
from publisher.pipeline import load
from publisher.plan import Plan, Step, plan
from publisher.proof import attest
from publisher.proof.guest import Guest, Look
from publisher.proof.inspect.budget import Unreadable
from publisher.proof.inspect.inspection import Inspection
from publisher.proof.rehearse import Claim, Rehearsal, Status
from publisher.proof.rehearse.judge import BLIND
from publisher.proof.rules import Evidence, Rule
from publisher.proof.secrets.trace import Trace
from publisher.provider import Options, Traits
from publisher.rehearsal import Rehearse
from publisher.task import Retry, Task
from publisher.vm import namespace
from tests.unit.nimbus import CLOUDS, PROVIDERS, Cloud, Nimbus, NimbusOptions
from tests.unit.secret_samples import SWAP

FILE = """
[image]
name = "web"
version = "1.0.0"

[build]
size = "2GiB"
source.debian.suite = "bookworm"

[targets.cumulus]

[targets.nimbus]

[lint]
ignore = [
    { rule = "claims.firmware", reason = "the disk of the test is none" },
    { rule = "boot.firmware", reason = "the same" },
    { rule = "disk.root", reason = "the same" },
    { rule = "lint.unreadable", reason = "the same" },
]
"""
TOKEN = "correct horse battery staple 42"


class CumulusGuest:
    """A cloud's machine, and one rule: the disk's first byte is no X."""

    name = "cumulus"
    title = "Cumulus"

    def rules(self, spec: Spec | None) -> Sequence[Rule]:
        def check(disk: Inspection) -> Sequence[Evidence]:
            marked = disk.disk.read(0, 1) == b"X"
            return [Evidence("the first byte is X")] if marked else []

        why, url = "Cumulus does not take it.", "https://example.com"
        return [Rule("cumulus.first", Severity.ERROR, "No X", why, url, "write something", check)]

    def looks(self, spec: Spec) -> Sequence[Look]:
        return []

    def abilities(self, disk: Inspection) -> Sequence[str]:
        first = disk.disk.read(0, 1)
        if first == b"?":
            raise Unreadable("there is no reader for it")
        return ["fast"] if first == b"F" else []


class CumulusOptions(NimbusOptions):
    cloud: str = "cumulus"


class Cumulus(Nimbus):
    name: ClassVar[str] = "cumulus"
    traits: ClassVar[Traits] = replace(Nimbus.traits, title="Cumulus", boots=True)
    options: ClassVar[type[Options]] = CumulusOptions

    told: ClassVar[dict[str, Any]] = {}
    """Verb ▶ the abilities that it was told of."""

    def upload(self, disk: Disk, spec: Spec, task: Task) -> Upload:
        self.told["upload"] = spec.abilities
        return super().upload(disk, spec, task)

    def register(self, upload: Upload, spec: Spec, task: Task) -> Image:
        self.told["register"] = spec.abilities
        return super().register(upload, spec, task)

    @classmethod
    def guest(cls, options: Options | None) -> Guest:
        return cast("Guest", CumulusGuest())


class World:
    """A state directory, the disk that the build gives, and what rehearsals say."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.content = b"disk"
        self.values: Mapping[str, str] = {}
        self.failing = ""
        self.open_ends: tuple[Claim, ...] = ()
        self.rehearsed: list[Rehearse] = []

    def plan(self, text: str = FILE, *settings: str) -> Plan:
        path = self.directory / "pipeline.toml"
        path.write_text(text)
        return plan(load(path, settings=settings, environ={}))

    def publish(self, text: str = FILE, *settings: str, **options: Any) -> Manifest:
        return run.run(
            self.plan(text, *settings),
            state=self.directory / "state",
            retry=Retry(2, 0.001, 0.001),
            **options,
        )

    def build(self, step: Step, context: Context, task: Task) -> Mapping[str, Any]:
        spec = replace(Spec.from_json(step.inputs["spec"]), run=context.run)
        path = context.store.scratch("built.raw")
        content = self.content.ljust(len(SWAP), b"\0")
        path.write_bytes((content[:4086] + SWAP[4086:] + content[4096:]).ljust(MIB, b"\0"))
        value = steps.disk_value(context.store.add(path), spec)
        kept = [Trace.of(label, value).to_json() for label, value in self.values.items()]
        return {**value, TRACES: kept}

    def rehearse(
        self,
        disk: Disk,
        guests: Sequence[Guest],
        spec: Spec,
        settings: Rehearse,
        task: Task,
        **_: object,
    ) -> Sequence[Rehearsal]:
        self.rehearsed.append(settings)
        (guest,) = guests
        status = Status.FAILED if self.failing else Status.PROVED
        claim = Claim("login", "a login works", status, cause=self.failing, fix="mend sshd")
        return [Rehearsal(guest.name, guest.title, (claim, *self.open_ends), 1.0)]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path)
    kinds = {**PROVIDERS, "cumulus": Cumulus}
    monkeypatch.setattr(provider, "load", kinds.__getitem__)
    monkeypatch.setattr(provider, "names", lambda: sorted(kinds))
    monkeypatch.setattr(provenance, "host_tools", lambda *_: {})
    monkeypatch.setitem(steps.RUNBOOK, "build", made.build)
    monkeypatch.setattr("publisher.proof.rehearse.rehearse", made.rehearse)
    for name in ("cumulus", "nimbus"):
        monkeypatch.setitem(CLOUDS, name, Cloud())
    return made


def uploaded() -> bool:
    return any("upload" in cloud.calls for cloud in CLOUDS.values())


def test_every_upload_waits_for_the_proofs_of_all_clouds(world: World) -> None:
    drawn = world.plan()
    assert [s.id for s in drawn.steps if s.lane == "proof"] == ["lint", "secrets", "inventory"]
    before = {"lint", "secrets", "inventory", "cumulus.rehearse"}
    assert before < set(drawn.step("cumulus.upload").after)
    assert before < set(drawn.step("nimbus.upload").after)
    assert set(drawn.step("cumulus.rehearse").after) == before - {"cumulus.rehearse"}


def test_what_a_proof_asks_for_is_no_part_of_an_uploads_key(world: World) -> None:
    plain = world.plan()
    other = world.plan(FILE, "rehearse.second_boot=false", "lint.strict=true")
    assert plain.step("cumulus.rehearse").key != other.step("cumulus.rehearse").key
    assert plain.step("lint").key != other.step("lint").key
    assert plain.step("cumulus.upload").key == other.step("cumulus.upload").key


def test_what_was_proved_stands_in_the_manifest(world: World) -> None:
    (flavour,) = world.publish().flavours
    assert flavour.proofs["rehearsals"]["cumulus"]["claims"][0]["status"] == "proved by boot"
    assert flavour.proofs["secrets"] == {"findings": []}
    documents = {d["format"]: d for d in flavour.proofs["inventory"]["documents"]}
    assert set(documents) == {"cyclonedx", "spdx"}
    bom = json.loads(Path(documents["cyclonedx"]["path"]).read_text())
    assert bom["bomFormat"] == "CycloneDX"


def test_what_a_release_was_made_with_is_known_afterwards(world: World) -> None:
    dev = '[variants.dev]\ntargets.cumulus.regions = ["south"]\n[variants.prod]\n'
    world.publish(FILE + dev)
    made = world.publish(FILE + dev, 'targets.nimbus.regions=["north", "east"]')
    known = {f.label: options_of(made, f, world.directory / "state") for f in made.flavours}
    regions = {
        label: {name: options["regions"] for name, options in by_cloud.items()}
        for label, by_cloud in known.items()
    }
    assert regions == {
        "dev": {"cumulus": ["south"], "nimbus": ["north", "east"]},
        "prod": {"cumulus": ["north"], "nimbus": ["north", "east"]},
    }


def test_nothing_is_proved_twice_of_the_same_disk(world: World) -> None:
    world.publish()
    world.publish()
    assert len(world.rehearsed) == 1
    world.publish(FILE + '[[rehearse.checks]]\nrun = "true"\n')
    assert [len(settings.checks) for settings in world.rehearsed] == [0, 1]
    assert CLOUDS["cumulus"].calls.count("upload") == 1


def open_end(name: str, title: str, evidence: str) -> Claim:
    return Claim(name, title, Status.UNPROVABLE, evidence)


BLINDED = (
    open_end("user-data", "user data ran", BLIND),
    open_end("growth", "the root file system grew", BLIND),
    open_end("isolation", "the cloud's network", "the kernel's own isolation (not permitted)"),
    open_end("hardware", "the machine", "a device that QEMU has not"),
)


def test_what_this_machine_could_not_prove_is_a_warning(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(namespace, "probe", lambda: ((), "not permitted"))
    world.open_ends = BLINDED
    seen: list[events.Event] = []
    world.publish(sink=seen.append)
    notes = [e for e in seen if isinstance(e, events.Note) and e.level == "warning"]
    first, second = [note.text for note in notes if "not provable" in note.text]
    assert f"Cumulus: not provable here: user data ran, the root file system grew: {BLIND}" in first
    assert "the cloud's network: the kernel's own isolation (not permitted); to prove" in second
    assert "allow user namespaces" in second


def test_a_machine_that_can_prove_more_repeats_the_rehearsal(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def publish(*, isolated: bool) -> int:
        answer = (("--net",), "") if isolated else ((), "not permitted")
        monkeypatch.setattr(namespace, "probe", lambda: answer)
        world.open_ends = () if isolated else BLINDED
        world.publish()
        return len(world.rehearsed)

    assert [publish(isolated=False), publish(isolated=False)] == [1, 1]
    assert [publish(isolated=True), publish(isolated=True), publish(isolated=False)] == [2, 2, 2]
    assert CLOUDS["cumulus"].calls.count("upload") == 1


def test_a_machine_with_ipv6_by_now_repeats_the_rehearsal(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = "Operation not supported"
    monkeypatch.setattr(namespace, "probe", lambda: (("--net",), ""))
    monkeypatch.setattr(namespace, "ipv6_refusal", lambda: refusal)
    world.open_ends = (open_end("ipv6", "the metadata service's IPv6 address", refusal),)
    world.publish()
    world.publish()
    assert len(world.rehearsed) == 1
    refusal = ""
    world.publish()
    assert len(world.rehearsed) == 2


def test_no_disk_is_built_anew_to_prove_more_of_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.open_ends = BLINDED
    monkeypatch.setattr(namespace, "probe", lambda: ((), "not permitted"))
    world.publish()
    monkeypatch.setattr(namespace, "probe", lambda: (("--net",), ""))
    for path in (world.directory / "state").rglob("*.raw"):
        path.unlink()
    world.publish()
    assert len(world.rehearsed) == 1


@pytest.mark.long
def test_a_killed_run_leaves_no_overlays(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def rehearse(*_: object, scratch: Path, **__: object) -> None:
        (scratch / "overlay.qcow2").write_text("x")
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr("publisher.proof.rehearse.rehearse", rehearse)
    child = multiprocessing.get_context("fork").Process(target=world.publish)
    child.start()
    child.join(30)
    assert child.exitcode == -signal.SIGKILL
    deadline = time.monotonic() + 5
    while list((world.directory / "state" / "scratch").iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("harm", ["gone", "changed"])
def test_a_document_that_does_not_hold_is_written_again_and_nothing_else(
    world: World, harm: str
) -> None:
    def documents() -> Mapping[str, str]:
        (flavour,) = world.publish().flavours
        return {d["path"]: d["sha256"] for d in flavour.proofs["inventory"]["documents"]}

    before = documents()
    path = Path(max(before))
    whole = path.read_bytes()
    if harm == "gone":
        path.unlink()
    else:
        path.write_text("{}")
    assert documents() == before
    assert path.read_bytes() == whole
    assert [cloud.calls.count("upload") for cloud in CLOUDS.values()] == [1, 1]
    assert len(world.rehearsed) == 1


def test_a_document_without_its_disk_costs_no_other_disk(world: World) -> None:
    (flavour,) = world.publish().flavours
    path = Path(flavour.proofs["inventory"]["documents"][0]["path"])
    path.unlink()
    for disk in (world.directory / "state").rglob("*.raw"):
        disk.unlink()
    drawn = run.preview(world.plan(), state=world.directory / "state")
    assert {p.step.id: p.action for p in drawn}["build"] == "reuse"


def test_a_failed_rehearsal_keeps_every_byte_here(world: World) -> None:
    world.failing = "sshd refuses"
    with pytest.raises(
        ProofError, match="as Cumulus: not so: a login works: sshd refuses"
    ) as caught:
        world.publish()
    assert "mend sshd" in caught.value.hint
    assert not uploaded()
    world.failing = ""
    world.publish()
    assert uploaded()


def test_a_rule_of_one_cloud_keeps_every_byte_here(world: World) -> None:
    world.content = b"X marks"
    with pytest.raises(ProofError, match=r"cumulus.first: the first byte is X"):
        world.publish()
    assert not uploaded()
    assert not world.rehearsed


@pytest.mark.parametrize(
    ("content", "abilities", "notes"),
    [
        (b"Fast disk", ("fast",), []),
        (b"disk", (), []),
        (b"? disk", None, ["there is no reader for it"] * 2),
    ],
)
@pytest.mark.parametrize("lint", ["true", "false"])
def test_an_image_is_registered_as_what_its_disk_bears(
    world: World, content: bytes, abilities: Any, notes: list[str], lint: str
) -> None:
    world.content = content
    told: list[str] = []

    def sink(event: object) -> None:
        if isinstance(event, Note) and "can't be read" in event.text:
            told.append(event.text)

    world.publish(FILE, f"lint.enabled={lint}", sink=sink)
    assert Cumulus.told == {"upload": abilities, "register": abilities}
    assert len(told) == len(notes)
    assert all(note in text for note, text in zip(notes, told, strict=True))


def test_what_nobody_knows_of_a_disk_is_no_part_of_a_steps_key() -> None:
    spec = Spec("web", "1")
    assert "abilities" not in spec.to_json()
    looked_at = replace(spec, abilities=("fast",))
    assert Spec.from_json(looked_at.to_json()) == looked_at


def test_a_rule_may_be_ignored_with_a_reason_that_is_kept(world: World) -> None:
    world.content = b"X marks"
    known = FILE.replace("ignore = [", 'ignore = [{rule = "cumulus.first", reason = "known"},')
    (flavour,) = world.publish(known).flavours
    told = {f["rule"]: f for f in flavour.proofs["lint"]["findings"]}
    assert told["cumulus.first"]["severity"] == "note"
    assert "(ignored: known)" in told["cumulus.first"]["evidence"]


SECRET_IN = f"x{TOKEN}x".encode()


def test_a_secret_of_the_build_is_a_warning_for_a_private_release(world: World) -> None:
    world.content, world.values = SECRET_IN, {"the secret T": TOKEN}
    seen: list[Finding] = []

    def sink(event: object) -> None:
        seen.extend(filter(None, [getattr(event, "finding", None)]))

    (flavour,) = world.publish(sink=sink).flavours
    (found,) = flavour.proofs["secrets"]["findings"]
    assert found["severity"] == "warning"
    assert "the secret T" in found["evidence"]
    assert [f.rule for f in seen if f.rule.startswith("secrets.")] == [found["rule"]]
    everything = "".join(
        path.read_text(errors="replace")
        for path in (world.directory / "state").rglob("*")
        if path.is_file() and path.suffix != ".raw"
    )
    assert TOKEN not in everything


def test_a_secret_of_the_build_stops_a_public_release(world: World) -> None:
    world.content, world.values = SECRET_IN, {"the secret T": TOKEN}
    with pytest.raises(ProofError, match=r"a public image must hold no secret: .*the secret T"):
        world.publish(FILE, "release.audience=public")
    assert not uploaded()


SHORT = FILE.replace(
    "[targets.cumulus]",
    '[[build.steps]]\nrun = "true"\nsecrets.PIN = { environment = "THE_PIN" }\n[targets.cumulus]',
)
PIN = "build.steps[0].secrets.PIN"


def test_values_that_are_still_at_hand_are_looked_for_in_all_forms(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = "a/b c?d-e&f-g/h"
    monkeypatch.setenv("THE_PIN", value)
    world.content, world.values = quote(value, safe="").encode(), {PIN: value}
    (flavour,) = world.publish(SHORT).flavours
    (found,) = flavour.proofs["secrets"]["findings"]
    assert "the secret PIN of build.steps[0] (in a URL)" in found["evidence"]
    monkeypatch.delenv("THE_PIN")
    assert world.publish(SHORT, "image.version=2").flavours[0].proofs["secrets"]["findings"] == []


def test_the_value_of_a_resumed_step_is_looked_for_beside_todays(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THE_PIN", "what it was changed into")
    world.content, world.values = SECRET_IN, {PIN: TOKEN}
    (flavour,) = world.publish(SHORT).flavours
    (found,) = flavour.proofs["secrets"]["findings"]
    assert "an earlier value of the secret PIN of build.steps[0]" in found["evidence"]


@pytest.mark.parametrize("at_hand", [True, False])
def test_a_secret_too_short_to_be_looked_for_stops_a_public_release(
    world: World, monkeypatch: pytest.MonkeyPatch, at_hand: bool
) -> None:
    world.values = {PIN: "12345" if at_hand else "123456789"}
    if at_hand:
        monkeypatch.setenv("THE_PIN", world.values[PIN])
    shown: list[Finding] = []

    def sink(event: object) -> None:
        shown.extend(filter(None, [getattr(event, "finding", None)]))

    world.publish(SHORT, sink=sink)
    told = [f for f in shown if f.rule == "secrets.too-short"]
    assert [f.severity for f in told] == [Severity.WARNING]
    public = ("release.audience=public", "image.version=2")
    with pytest.raises(ProofError, match=r"the secret PIN of build.steps.0. was not looked for"):
        world.publish(SHORT, *public)
    accepted = '[[secrets.ignore]]\nrule = "secrets.too-short"\nreason = "a PIN"\n'
    world.publish(SHORT + accepted, *public)


def test_a_known_finding_may_be_let_through(world: World) -> None:
    world.content, world.values = SECRET_IN, {"the secret T": TOKEN}
    rule = world.publish().flavours[0].proofs["secrets"]["findings"][0]["rule"]
    ignored = f'[[secrets.ignore]]\nrule = "{rule}"\nreason = "a test"\n'
    world.publish(FILE + ignored, "release.audience=public", "image.version=2")
    assert uploaded()


@pytest.mark.parametrize(
    ("setting", "steps_left_out"),
    [
        ("lint.enabled=false", {"lint"}),
        ("secrets.enabled=false", {"secrets"}),
        ("rehearse.enabled=false", {"cumulus.rehearse"}),
    ],
)
def test_each_proof_can_be_left_out(world: World, setting: str, steps_left_out: set[str]) -> None:
    everything = {step.id for step in world.plan().steps}
    assert everything - {step.id for step in world.plan(FILE, setting).steps} == steps_left_out


def test_a_check_belongs_to_the_clouds_that_it_names(world: World) -> None:
    checks = '[[rehearse.checks]]\nrun = "true"\non = ["nimbus"]\n'
    settings = world.plan(FILE + checks).step("cumulus.rehearse").inputs["rehearse"]
    assert settings["checks"] == []


@pytest.mark.parametrize(
    ("text", "key", "hint"),
    [
        (
            '[[rehearse.checks]]\nrun = "true"\non = ["nimbsu"]\n',
            "rehearse.checks[0].on[0]",
            'did you mean "nimbus"?',
        ),
        ('[[rehearse.checks]]\nrun = "true"\noutput = "("\n', "rehearse.checks[0].output", ""),
        ("[rehearse]\nstrikt = true\nstal = 20\n", "rehearse.stal", 'did you mean "stall"?'),
        ("[secrets]\nignore = [{ rule = 'x' }]\n", "secrets.ignore[0].reason", ""),
    ],
)
def test_the_sections_are_strict(world: World, text: str, key: str, hint: str) -> None:
    with pytest.raises(PipelineError) as caught:
        world.plan(FILE + text)
    assert key in str(caught.value)
    assert hint in f"{caught.value} {caught.value.hint}"


def test_an_optional_clouds_failed_rehearsal_keeps_only_that_cloud(world: World) -> None:
    world.failing = "sshd refuses"
    with pytest.raises(PublishError, match=r"published, but without cumulus\.rehearse"):
        world.publish(FILE + '[release]\nrequired = ["nimbus"]\n')
    assert "upload" in CLOUDS["nimbus"].calls
    assert "upload" not in CLOUDS["cumulus"].calls


def new_key(path: Path) -> Path:
    private = Ed25519PrivateKey.generate()
    path.write_bytes(
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )
    return path


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return new_key(tmp_path / "key.pem")


def test_a_release_is_signed_once_by_whom_the_pipeline_names(world: World, key: Path) -> None:
    path = world.directory / "pipeline.toml"
    path.write_text(FILE + '[attest]\nkey = "key.pem"\n')
    wanted = load(path, environ={}).attest
    assert wanted is not None
    assert wanted.key == str(key)
    state = world.directory / "state"
    made = world.publish()
    signed = sign_run(made, wanted, state=state)
    assert signed is not None
    assert "PRIVATE" not in signed.read_text()
    assert sign_run(made, wanted, state=state) is None
    assert sign_run(world.publish(), wanted, state=state) is None


@pytest.mark.parametrize("harm", ["emptied", "cut", "of another release", "older key"])
def test_a_signed_file_that_does_not_hold_is_signed_anew(
    world: World, key: Path, tmp_path: Path, harm: str
) -> None:
    made, state = world.publish(), world.directory / "state"
    signed = sign_run(made, Attest(key=str(key)), state=state)
    assert signed is not None
    whole, wanted = signed.read_bytes(), Attest(key=str(key))
    if harm == "emptied":
        signed.write_bytes(b"")
    elif harm == "cut":
        signed.write_bytes(whole.splitlines(keepends=True)[0])
    elif harm == "of another release":
        sign_run(replace(made, run="other"), wanted, state=state)
    else:
        wanted = Attest(key=str(new_key(tmp_path / "new.pem")))
    assert sign_run(made, wanted, state=state) == signed
    assert attest.read_own(signed.read_bytes(), attest.Signing(wanted.key))
    assert (signed.read_bytes() == whole) == (harm != "older key")


def test_a_run_signs_what_it_publishes(
    world: World, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUBLISH_STATE_DIR", str(world.directory / "state"))
    path = world.directory / "pipeline.toml"
    path.write_text(FILE + f'[attest]\nkey = "{key.name}"\n')
    assert command(["run", str(path), "--plain"]) == 0
    (signed,) = world.directory.rglob("attestation.intoto.jsonl")
    assert attest.read(attest.read_own(signed.read_bytes(), attest.Signing(str(key)))).name == "web"


def test_a_key_that_is_missing_is_told_before_anything_runs(world: World) -> None:
    with pytest.raises(PipelineError) as caught:
        world.plan(FILE + '[attest]\nkey = "no.pem"\n')
    assert caught.value.key == "attest.key" or "attest.key" in str(caught.value)


def test_no_variant_is_signed_by_somebody_else(world: World, key: Path) -> None:
    assert key.exists()
    text = FILE + '[variants.dev]\nattest.key = "key.pem"\n'
    with pytest.raises(PipelineError, match=r"variants\.dev\.attest"):
        world.plan(text)

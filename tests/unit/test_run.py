"""The engine, on three clouds in memory."""

from __future__ import annotations

import dataclasses
import errno
import gzip
import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from publisher import events, provenance, provider, run
from publisher.errors import (
    Cancelled,
    ConflictError,
    HostError,
    ProviderError,
    PublishError,
    StateError,
    UsageError,
)
from publisher.journal import Journal, read_outcomes, release_directory
from publisher.manifest import manifests
from publisher.migrate import name_in, plan_migration
from publisher.model import MIB, Audience, Finding, Image, Severity, Spec
from publisher.plan import Plan, Target, plan_download
from publisher.task import Cancellation, Retry
from tests.unit import lint_world
from tests.unit.ext_disk import ext_disk
from tests.unit.nimbus import CLOUDS, PROVIDERS, Cloud, NimbusOptions, fail
from tests.unit.secret_samples import SWAP

CONTENT = os.urandom(4086) + SWAP[4086:] + bytes(MIB - 8192) + os.urandom(4096)
PUBLIC = Audience("public")


@pytest.fixture(autouse=True)
def clouds(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Cloud]]:
    def load(name: str) -> type[provider.Provider]:
        if name not in PROVIDERS:
            raise UsageError(f"there is no provider {name!r}")
        return PROVIDERS[name]

    monkeypatch.setattr(provider, "load", load)
    monkeypatch.setattr(provider, "names", lambda: sorted(PROVIDERS))
    CLOUDS.clear()
    for name in PROVIDERS:
        CLOUDS[name] = Cloud()
    origin = CLOUDS["cirrus"]
    origin.images["north/origin"] = Image("cirrus", "north", "north/origin", "origin", "1.0.0", "?")
    origin.bytes["north/origin"] = CONTENT
    yield CLOUDS
    CLOUDS.clear()


def make_plan(
    *,
    audience: Audience = PUBLIC,
    optional: tuple[str, ...] = (),
    regions: tuple[str, ...] = ("north", "south"),
) -> Plan:
    """cirrus:north/origin ▶ nimbus and stratus."""
    targets = [
        Target(name, NimbusOptions(regions=regions), audience, () if name in optional else regions)
        for name in ("nimbus", "stratus")
    ]
    source = {
        "reference": "cirrus:north/origin",
        "provider": "cirrus",
        "options": NimbusOptions().model_dump(mode="json"),
    }
    return plan_download(source, Spec("demo", "1.0.0"), targets, MIB, {})


@pytest.fixture
def go(tmp_path: Path) -> Callable[..., Any]:
    def go(plan: Plan | None = None, **options: Any) -> Any:
        return run.run(plan or make_plan(), state=tmp_path, retry=Retry(2, 0.001, 0.001), **options)

    return go


def opened(cloud: str) -> set[str]:
    return {i.region for i in CLOUDS[cloud].images.values() if i.audience == PUBLIC}


def test_a_run_publishes_everywhere_and_writes_the_manifest(
    go: Callable[..., Any], tmp_path: Path
) -> None:
    manifest = go()
    assert opened("nimbus") == opened("stratus") == {"north", "south"}
    assert {image.reference for image in manifest.images} == {
        f"{cloud}:{image.ref}"
        for cloud in ("nimbus", "stratus")
        for image in CLOUDS[cloud].images.values()
    }
    assert manifest.audience == {"nimbus": "public", "stratus": "public"}
    (flavour,) = manifest.flavours
    assert (flavour.arch, flavour.firmware) == ("aarch64", "uefi")
    assert manifests(tmp_path) == [manifest]
    assert all(image.digest == flavour.digest for image in manifest.images)


def test_a_second_run_asks_the_clouds_once_and_does_nothing(go: Callable[..., Any]) -> None:
    first = go()
    for cloud in CLOUDS.values():
        cloud.calls.clear()
    seen: list[events.Event] = []
    assert go(sink=seen.append) == first
    assert CLOUDS["nimbus"].calls == CLOUDS["stratus"].calls == ["find"]
    assert CLOUDS["cirrus"].calls == []
    assert not any(isinstance(event, events.StepStarted) for event in seen)
    assert isinstance(seen[-1], events.RunFinished)
    assert seen[-1].reused


def test_a_lost_journal_costs_no_second_resource(go: Callable[..., Any], tmp_path: Path) -> None:
    first = go()
    (release_directory(tmp_path, "demo", "1.0.0") / "journal").unlink()
    CLOUDS["nimbus"].calls.clear()
    second = go()
    assert {i.reference for i in second.images} == {i.reference for i in first.images}
    assert len(CLOUDS["nimbus"].images) == 2
    assert "upload" not in CLOUDS["nimbus"].calls


def test_an_image_that_vanished_is_made_again_and_only_that_one(go: Callable[..., Any]) -> None:
    go()
    gone = next(r for r, i in CLOUDS["nimbus"].images.items() if i.region == "south")
    del CLOUDS["nimbus"].images[gone]
    for cloud in CLOUDS.values():
        cloud.calls.clear()
    go()
    assert opened("nimbus") == {"north", "south"}
    assert "upload" not in CLOUDS["nimbus"].calls
    assert "verify" in CLOUDS["nimbus"].calls
    assert CLOUDS["stratus"].calls == ["find"]


def test_one_reference_in_two_regions_is_two_images(
    go: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a gallery, whose version has the same id in every region."""
    gone: set[str] = set()

    def one_reference(image: Image) -> Image:
        return dataclasses.replace(image, ref="the-image")

    nimbus = PROVIDERS["nimbus"]
    find, copy = nimbus.find, nimbus.copy
    monkeypatch.setattr(
        nimbus,
        "find",
        lambda *a: [one_reference(i) for i in find(*a) if i.region not in gone],
    )
    monkeypatch.setattr(nimbus, "copy", lambda *a: [one_reference(i) for i in copy(*a)])
    for verb in ("verify", "release", "withdraw"):
        monkeypatch.setattr(nimbus, verb, lambda *a: CLOUDS["nimbus"].call("touched"))
    plan = make_plan(audience=Audience())
    manifest = go(plan)
    regions = [i.region for i in manifest.images if i.provider == "nimbus"]
    assert regions == ["north", "south"]
    assert go(plan) == manifest
    gone.add("south")
    CLOUDS["nimbus"].calls.clear()
    go(plan)
    assert "copy" in CLOUDS["nimbus"].calls


def test_an_image_that_somebody_closed_is_opened_again(go: Callable[..., Any]) -> None:
    go()
    for ref, image in CLOUDS["stratus"].images.items():
        CLOUDS["stratus"].images[ref] = Image(**{**as_fields(image), "audience": Audience()})
    CLOUDS["stratus"].calls.clear()
    go()
    assert opened("stratus") == {"north", "south"}
    assert "verify" not in CLOUDS["stratus"].calls


def test_the_tools_of_this_machine_are_named_with_their_versions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = provenance.host_tools("x86_64")
    assert set(asked) <= {"qemu-system-x86_64", "qemu-img", "mmdebstrap"}
    assert bool(asked) == any(map(shutil.which, ("qemu-img", "mmdebstrap")))
    for version in asked.values():
        assert re.fullmatch(r"\d+(\.\d+)+", version)
    nimbus = PROVIDERS["nimbus"]
    monkeypatch.setattr(nimbus, "traits", dataclasses.replace(nimbus.traits, extra="aws"))
    assert provenance.tools(["nimbus"])["boto3"] == importlib.metadata.version("boto3")


def as_fields(image: Image) -> dict[str, Any]:
    return {name: getattr(image, name) for name in Image.__dataclass_fields__}


def test_nothing_opens_while_one_cloud_is_not_verified(go: Callable[..., Any]) -> None:
    fail("stratus", "verify")
    with pytest.raises(ProviderError, match="stratus refuses to verify"):
        go()
    assert opened("nimbus") == opened("stratus") == set()
    assert "release" not in CLOUDS["nimbus"].calls
    assert "verify" in CLOUDS["nimbus"].calls, "the other cloud's work is not thrown away"


def test_the_next_run_continues_where_the_failed_one_stopped(go: Callable[..., Any]) -> None:
    fail("stratus", "verify")
    with pytest.raises(ProviderError):
        go()
    CLOUDS["stratus"].before = lambda verb: None
    for cloud in CLOUDS.values():
        cloud.calls.clear()
    go()
    assert opened("nimbus") == opened("stratus") == {"north", "south"}
    assert "download" not in CLOUDS["cirrus"].calls
    assert not {"upload", "register", "copy", "verify"} & CLOUDS["nimbus"].verbs()
    assert not {"upload", "register", "copy"} & CLOUDS["stratus"].verbs()


def test_what_was_opened_is_closed_again_when_another_cloud_cannot_open(
    go: Callable[..., Any],
) -> None:
    ready = threading.Event()

    def after(verb: str) -> None:
        if verb == "release" and len(opened("nimbus")) == 2:
            ready.set()

    CLOUDS["nimbus"].after = after

    def refuse(verb: str) -> None:
        if verb == "release":
            assert ready.wait(10)
            raise ProviderError("stratus may not open", provider="stratus")

    CLOUDS["stratus"].before = refuse
    with pytest.raises(ProviderError, match="may not open"):
        go()
    assert ready.is_set()
    assert opened("nimbus") == opened("stratus") == set()
    CLOUDS["stratus"].before = lambda verb: None
    go()
    assert opened("nimbus") == opened("stratus") == {"north", "south"}


def test_an_optional_cloud_that_fails_keeps_only_itself_closed(go: Callable[..., Any]) -> None:
    fail("stratus", "upload")
    plan = make_plan(optional=("stratus",))
    with pytest.raises(PublishError, match="published, but without stratus"):
        go(plan)
    assert opened("nimbus") == {"north", "south"}
    assert opened("stratus") == set()


def test_a_finding_of_a_check_stops_before_any_byte_moves(go: Callable[..., Any]) -> None:
    CLOUDS["nimbus"].findings.append(
        Finding("region", Severity.ERROR, "no such region", "choose another", "regions[1]")
    )
    with pytest.raises(ProviderError) as caught:
        go()
    assert caught.value.key == "targets.nimbus.regions[1]"
    assert "download" not in CLOUDS["cirrus"].calls
    assert "upload" not in CLOUDS["stratus"].calls


def test_other_content_under_the_same_name_is_a_conflict(
    go: Callable[..., Any], tmp_path: Path
) -> None:
    go()
    CLOUDS["cirrus"].bytes["north/origin"] = CONTENT[:-4096] + bytes(4096)
    (release_directory(tmp_path, "demo", "1.0.0") / "journal").unlink()
    for file in (tmp_path / "store" / "disks").iterdir():
        file.unlink()
    with pytest.raises(ConflictError):
        go()


def test_a_cancelled_run_ends_and_the_next_one_continues(go: Callable[..., Any]) -> None:
    cancellation = Cancellation()

    def cancel(verb: str) -> None:
        if verb == "register":
            cancellation.cancel()

    CLOUDS["nimbus"].after = cancel
    with pytest.raises(Cancelled):
        go(cancellation=cancellation)
    assert opened("nimbus") == opened("stratus") == set()
    go()
    assert opened("nimbus") == opened("stratus") == {"north", "south"}
    assert CLOUDS["nimbus"].calls.count("upload") == 1


def test_a_preview_says_why_and_writes_nothing(go: Callable[..., Any], tmp_path: Path) -> None:
    state = tmp_path / "elsewhere"
    before = {p.step.id: p for p in run.preview(make_plan(), state=state)}
    assert not state.exists()
    assert before["nimbus.upload"].action == "run"
    assert before["nimbus.check"].action == "check"
    assert before["download"].reason == "not done yet"
    go()
    for cloud in CLOUDS.values():
        cloud.calls.clear()
    after = {p.step.id: p for p in run.preview(make_plan(), state=tmp_path)}
    assert {p.action for p in after.values()} == {"reuse"}
    assert after["nimbus.release"].reason.startswith("done 20")
    changed = {p.step.id: p for p in run.preview(make_plan(audience=Audience()), state=tmp_path)}
    assert changed["nimbus.release"].action == "run"
    assert changed["nimbus.release"].reason == "its inputs changed"
    assert changed["nimbus.verify"].action == "reuse"
    assert not any(cloud.calls for cloud in CLOUDS.values())


def test_two_runs_of_one_release_at_once_are_refused(
    go: Callable[..., Any], tmp_path: Path
) -> None:
    with (
        Journal(tmp_path, "demo", "1.0.0"),
        pytest.raises(StateError, match=f"process {os.getpid()}"),
    ):
        go()


def test_a_journal_torn_by_a_crash_keeps_what_was_whole(
    go: Callable[..., Any], tmp_path: Path
) -> None:
    go()
    journal = release_directory(tmp_path, "demo", "1.0.0") / "journal"
    whole = read_outcomes(journal.parent)
    data = journal.read_bytes()
    journal.write_bytes(data[:-30])
    CLOUDS["nimbus"].calls.clear()
    assert len(read_outcomes(journal.parent)) in (len(whole), len(whole) - 1)
    go()
    assert len(CLOUDS["nimbus"].images) == 2


def test_a_run_killed_by_sigkill_leaves_a_journal_that_the_next_one_reads(tmp_path: Path) -> None:
    script = (
        "import os,sys,signal\n"
        "from pathlib import Path\n"
        "from publisher.journal import Journal, Outcome\n"
        "j = Journal(Path(sys.argv[1]), 'demo', '1'); j.begin()\n"
        "j.done(Outcome('a', 'k', {'x': 1}))\n"
        'os.write(j._handle, b\'deadbeef {"fact": "do\')\n'
        "print(j.run, flush=True); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == -9
    with Journal(tmp_path, "demo", "1") as journal:
        assert journal.run == done.stdout.strip()
        assert journal.resumed
        assert journal.outcomes["k"].value == {"x": 1}
        journal.undone("k")
    assert read_outcomes(release_directory(tmp_path, "demo", "1")) == {}


def test_a_migration_takes_its_plan_from_the_references(
    go: Callable[..., Any], tmp_path: Path
) -> None:
    plan = plan_migration("cirrus:north/origin", ["nimbus:north,south", "stratus"], version="2.0.0")
    assert (plan.name, plan.version) == ("origin", "2.0.0")
    manifest = go(plan)
    assert len(manifest.images) == 3
    assert all(image.audience == Audience() for image in manifest.images)
    assert CLOUDS["nimbus"].bytes["south/img1"] == CONTENT


def test_a_migration_within_one_cloud_reads_and_writes_in_different_places(
    go: Callable[..., Any],
) -> None:
    manifest = go(plan_migration("cirrus:north/origin", ["cirrus:south"], version="2.0.0"))
    assert [image.region for image in manifest.images] == ["south"]


@pytest.mark.parametrize(
    ("source", "targets", "message"),
    [
        ("north", ["nimbus"], "is no source of a migration"),
        ("file:/nowhere/disk.qcow2", ["nimbus"], "does not exist"),
        ("cumulus:x", ["nimbus"], "there is no provider"),
        ("cirrus:north/origin", ["nimbus:north", "nimbus:south"], "named twice"),
    ],
)
def test_a_migration_that_cannot_be_planned_says_why(
    source: str, targets: list[str], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        plan_migration(source, targets)


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("us-east-1/ami-0123", ("ami-0123", "1.0.0")),
        ("sub/group/Gallery/Web_Server/3.2.1", ("web-server", "3.2.1")),
        ("/tmp/My Disk.qcow2", ("my-disk", "1.0.0")),
        ("web.img.xz", ("web", "1.0.0")),
    ],
)
def test_a_reference_suggests_a_name_and_a_version(
    reference: str, expected: tuple[str, str]
) -> None:
    assert name_in(reference) == expected


@pytest.mark.skipif(not shutil.which("qemu-img"), reason="qemu-img is missing")
def test_a_packed_disk_file_is_unpacked_and_published(
    go: Callable[..., Any], tmp_path: Path
) -> None:
    packed = tmp_path / "web.raw.gz"
    packed.write_bytes(gzip.compress(CONTENT))
    manifest = go(plan_migration(f"file:{packed}", ["nimbus:north"]))
    assert manifest.flavours[0].digest == hashlib.sha256(CONTENT).hexdigest()
    assert CLOUDS["nimbus"].bytes["north/img0"] == CONTENT
    assert not list((tmp_path / "store" / "scratch").iterdir())


def test_a_migration_is_warned_of_secrets_and_lists_packages_before_the_upload(
    go: Callable[..., Any], tmp_path: Path
) -> None:
    disk = ext_disk(tmp_path, {"/root/.bash_history": "ls\n"})
    drawn = plan_migration(f"file:{disk}", ["nimbus:north"])
    assert {"secrets", "inventory"} <= set(drawn.step("nimbus.upload").after)
    (flavour,) = go(drawn).flavours
    rules = {finding["rule"]: finding for finding in flavour.proofs["secrets"]["findings"]}
    assert rules["secrets.history"]["severity"] == "warning"
    assert Path(flavour.proofs["inventory"]["documents"][0]["path"]).exists()


@pytest.mark.skipif(not shutil.which("qemu-img"), reason="qemu-img is missing")
@pytest.mark.parametrize(
    ("core", "esp", "known"),
    [
        (b"\xea", lint_world.good_esp(), ("x86_64", "bios+uefi")),
        (b"\xea", {}, ("x86_64", "bios")),
        (b"\0", lint_world.good_esp(), ("x86_64", "uefi")),
        (b"\0", {"/EFI/BOOT/BOOTAA64.EFI": lint_world.loader(machine=0xAA64)}, ("aarch64", "uefi")),
    ],
)
def test_a_disk_file_becomes_an_image_for_what_it_boots_on(
    go: Callable[..., Any],
    tmp_path: Path,
    core: bytes,
    esp: lint_world.Files,
    known: tuple[str, str],
) -> None:
    files = lint_world.good()
    if known[0] == "aarch64":
        files["/bin/sh"] = b"\x7fELF\x02\x01\x01" + bytes(11) + b"\xb7\x00"
    path = lint_world.disk_file(tmp_path, files, esp or {"/README": b""})
    with path.open("r+b") as file:
        file.seek(MIB)
        file.write(core * 512)
    (flavour,) = go(plan_migration(f"file:{path}", ["nimbus:north"])).flavours
    assert (flavour.arch, flavour.firmware) == known


def test_a_required_cloud_is_closed_again_although_an_optional_one_has_no_image(
    go: Callable[..., Any],
) -> None:
    plan = make_plan(optional=("stratus",))
    fail("stratus", "upload")

    def lose(verb: str) -> None:
        if verb == "release":
            raise ProviderError("nimbus may not answer", provider="nimbus")

    CLOUDS["nimbus"].after = lose
    with pytest.raises(ProviderError, match="may not answer"):
        go(plan)
    assert opened("nimbus") == set()


def test_one_cloud_that_cannot_be_closed_does_not_keep_another_open(go: Callable[..., Any]) -> None:
    def refuse(verb: str) -> None:
        if verb == "withdraw":
            raise ConnectionResetError("gone")

    def lose(verb: str) -> None:
        if verb == "release":
            raise ProviderError("no answer", provider="both")

    CLOUDS["nimbus"].before = refuse
    CLOUDS["nimbus"].after = CLOUDS["stratus"].after = lose
    seen: list[events.Event] = []
    with pytest.raises(ProviderError, match="no answer"):
        go(sink=seen.append)
    assert opened("stratus") == set()
    assert any(
        isinstance(e, events.Note) and "nimbus could not be closed again: gone" in e.text
        for e in seen
    )


def test_what_an_interrupted_run_opened_is_closed_when_the_rest_cannot_open(
    go: Callable[..., Any],
) -> None:
    cancellation = Cancellation()
    both = threading.Event()

    def cancel(verb: str) -> None:
        if verb == "release" and len(opened("nimbus")) == 2:
            both.set()

    def late(verb: str) -> None:
        if verb == "release":
            assert both.wait(10)
            cancellation.cancel()
            raise Cancelled

    CLOUDS["nimbus"].after, CLOUDS["stratus"].before = cancel, late
    with pytest.raises(Cancelled):
        go(cancellation=cancellation)
    assert (opened("nimbus"), opened("stratus")) == ({"north", "south"}, set())
    CLOUDS["stratus"].before = lambda verb: None
    fail("stratus", "release")
    with pytest.raises(ProviderError):
        go()
    assert opened("nimbus") == set()


def test_what_an_earlier_release_opened_stays_open_when_a_new_cloud_fails(
    go: Callable[..., Any],
) -> None:
    both = make_plan()
    one = dataclasses.replace(
        both, steps=tuple(s for s in both.steps if s.lane != "stratus" and s.id != "barrier")
    )
    one = dataclasses.replace(one, steps=tuple(dataclasses.replace(s, after=()) for s in one.steps))
    go(one)
    fail("stratus", "release")
    with pytest.raises(ProviderError):
        go(both)
    assert opened("nimbus") == {"north", "south"}


def test_the_manifest_is_of_the_plan_that_was_run(go: Callable[..., Any], tmp_path: Path) -> None:
    first = go()
    north = go(make_plan(regions=("north",)))
    assert len(north.images) == 2
    assert [i.reference for i in go().images] == [i.reference for i in first.images]
    assert manifests(tmp_path)[0].images == first.images


def test_a_run_that_died_before_its_manifest_is_finished_by_the_next(
    go: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(make_plan(audience=Audience()))
    with monkeypatch.context() as patched:
        patched.setattr("publisher.manifest.os.replace", no_space)
        with pytest.raises(HostError, match="everything is published, but") as caught:
            go()
    assert caught.value.exit_code == 4
    assert go().audience == {"nimbus": "public", "stratus": "public"}
    assert manifests(tmp_path)[0].audience == {"nimbus": "public", "stratus": "public"}
    with Journal(tmp_path, "demo", "1.0.0") as journal:
        assert not journal.resumed


def no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_journal_on_a_full_disk_says_so_and_lets_go_of_its_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("publisher.journal.os.pwrite", no_space)
        with pytest.raises(HostError, match="cannot write the state directory"):
            Journal(tmp_path, "demo", "1")
    with Journal(tmp_path, "demo", "1") as journal:
        assert not journal.resumed


def test_a_manifest_is_utf_8_in_every_locale(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from publisher import manifest\n"
        "image = manifest.Flavour('demo', 'x86_64', 'uefi', '', 0, 0,\n"
        "    evidence=({'lines': ['\\u2713']},))\n"
        "made = manifest.Manifest('demo', '1', 'run', 'now', (image,), ())\n"
        "manifest.write(made, Path(sys.argv[1]))\n"
        "assert manifest.read(Path(sys.argv[1])).flavours[0].evidence[0]['lines'] == ['\\u2713']\n"
    )
    path = tmp_path / "manifest.json"
    latin = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run(
        [sys.executable, "-c", script, str(path)], env={**os.environ, **latin}, check=True
    )
    assert "\u2713" in path.read_text(encoding="utf-8")


def test_two_releases_may_bring_in_the_same_image_at_once(go: Callable[..., Any]) -> None:
    def renamed(name: str) -> Plan:
        steps = make_plan().steps
        named = [
            dataclasses.replace(s, inputs={**s.inputs, "spec": {**s.inputs["spec"], "name": name}})
            if "spec" in s.inputs
            else s
            for s in steps
        ]
        return dataclasses.replace(make_plan(), name=name, steps=tuple(named))

    both = threading.Barrier(2)

    def together(event: events.Event) -> None:
        if isinstance(event, events.StepPhase) and event.phase == "storing the disk":
            both.wait(10)

    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda name: go(renamed(name), sink=together), ("one", "other")))
    assert [manifest.name for manifest in made] == ["one", "other"]
    assert made[0].flavours[0].digest == made[1].flavours[0].digest

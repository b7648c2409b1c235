"""publish rehearse: which disk and clouds, how verdicts are shown, exit codes."""

from __future__ import annotations

import json
import struct
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from publisher import manifest
from publisher.cli import rehearsing, subjects
from publisher.disks.store import Store
from publisher.errors import HostError
from publisher.journal import Journal, Outcome
from publisher.model import MIB, Disk, Spec
from publisher.proof.guest import Guest
from publisher.proof.rehearse import Claim, Rehearsal, Status
from publisher.rehearsal import Rehearse
from publisher.task import Cancellation
from tests.unit import lint_world, pipeline_fakes
from tests.unit.cli_fakes import Command
from tests.unit.test_rehearse_parts import Nimbus

PROVED = Claim("root", "root file system found", Status.PROVED, "/dev/nvme0n1p1")
LINT = Claim("hardware", "drivers", Status.LINT, "the driver stratus")
FAILED = Claim(
    "login", "a login works", Status.FAILED, "no ssh", "cloud-init is off", "switch it on"
)
UNREACHED = Claim("units", "no unit failed", Status.UNREACHED)


class Engine:
    """Stands in for publisher.proof.rehearse.rehearse; ends as the test says."""

    def __init__(self, **claims: Sequence[Claim]) -> None:
        self.claims = claims
        self.disk: Disk | None = None
        self.spec: Spec | None = None
        self.settings: Rehearse | None = None

    def __call__(
        self,
        disk: Disk,
        guests: Sequence[Guest],
        spec: Spec,
        settings: Rehearse,
        *_: Any,
        task_of: Callable[[Guest, Cancellation], Any],
        on_end: Callable[[Rehearsal], None],
        **__: Any,
    ) -> Sequence[Rehearsal]:
        self.disk, self.spec, self.settings = disk, spec, settings
        done = []
        for guest in guests:
            task_of(guest, Cancellation()).phase("booting: kernel")
            claims = tuple(self.claims.get(guest.name, (PROVED, LINT)))
            logs = () if FAILED not in claims else (Path("/logs/1.log"),)
            done.append(
                Rehearsal(guest.name, "Nimbus n1, UEFI", claims, 90, boots=(50, 40), consoles=logs)
            )
            on_end(done[-1])
        return done


@pytest.fixture
def publish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    def guests(clouds: str, given: object, own: Sequence[str] = ()) -> list[Guest]:
        return [Nimbus(name) for name in (clouds or "aws,gcp").split(",")]

    monkeypatch.setattr(subjects, "guests", guests)
    return Command(tmp_path, monkeypatch, capsys)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    made = Engine()
    monkeypatch.setattr(rehearsing, "rehearse", made)
    return made


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "web.raw"
    path.write_bytes(b"\x01" * MIB)
    return path


def test_a_disk_that_passes_is_shown_claim_by_claim(
    publish: Command, engine: Engine, disk: Path
) -> None:
    assert publish("rehearse", str(disk)).code == 0
    assert "aws: Nimbus n1, UEFI (1 min 30 s, boots of 50 s, 40 s)" in publish.out
    assert "gcp: Nimbus n1, UEFI" in publish.out
    assert "✓ root file system found  /dev/nvme0n1p1" in publish.out
    assert "by lint only: the driver stratus" in publish.out
    assert "proved by lint" not in publish.out
    assert "booting: kernel" in publish.err
    assert engine.disk == Disk(disk, MIB, "", ())
    assert engine.spec == Spec("web", "", firmware="bios+uefi", size=MIB)


def test_a_long_check_does_not_move_what_stands_beside_it(
    publish: Command, engine: Engine, disk: Path
) -> None:
    command = "test -e " + " -a -e ".join(f"/srv/shop/{name}" for name in "abcdefghij")
    fine = Claim("check-1", command, Status.PROVED, "status 0")
    wrong = Claim("check-2", f"{command} # again", Status.FAILED, "status 1")
    engine.claims = {"aws": (PROVED, fine, wrong)}
    assert publish("rehearse", str(disk), "--as", "aws").code
    lines = publish.out.splitlines()
    (root,) = [line for line in lines if "/dev/nvme0n1p1" in line]
    (first,) = [line for line in lines if line.endswith("status 0")]
    assert root.index("/dev/nvme0n1p1") == first.index("status 0") == 68
    assert "…  status 0" in first
    assert f"✗ {command} # again  status 1" in lines


@pytest.mark.parametrize("kind", ["raw", "qcow2", "vmdk", "vpc"])
def test_a_disk_boots_by_what_it_can(
    publish: Command, engine: Engine, disk: Path, tmp_path: Path, kind: str
) -> None:
    active = b"\x80".ljust(4, b"\0") + b"\x83".ljust(4, b"\0") + struct.pack("<II", 1, 1024)
    with disk.open("r+b") as file:
        file.write(b"\xfa".ljust(446, b"\0") + active.ljust(64, b"\0") + b"\x55\xaa")
    if kind != "raw":
        raw, disk = disk, tmp_path / f"other.{kind}"
        subprocess.run(["qemu-img", "convert", "-O", kind, raw, disk], check=True)
    seen = []
    for words in ((), ("--firmware", "uefi")):
        assert publish("rehearse", str(disk), *words).code == 0
        assert engine.spec is not None
        seen.append(engine.spec.firmware)
    assert seen == ["bios", "uefi"]


@pytest.mark.parametrize("readable", [True, False])
def test_a_disk_boots_on_the_processor_that_it_is_for(
    publish: Command, engine: Engine, tmp_path: Path, *, readable: bool
) -> None:
    """As its programs tell, or where nobody can read them its loader."""
    files = lint_world.good()
    files["/bin/sh"] = b"\x7fELF\x02\x01\x01" + bytes(11) + b"\xb7\x00"
    esp: lint_world.Files = {"/EFI/BOOT/BOOTAA64.EFI": lint_world.loader(machine=0xAA64)}
    disk = lint_world.disk_file(tmp_path, files, esp)
    if not readable:
        with disk.open("r+b") as file:
            file.seek(8 * MIB)
            file.write(bytes(15 * MIB))
    seen = []
    for words in ((), ("--arch", "x86_64", "--firmware", "bios"), ("--arch", "aarch64")):
        assert publish("rehearse", str(disk), *words).code == 0
        assert engine.spec is not None
        seen.append((engine.spec.arch, engine.spec.firmware))
    assert seen == [("aarch64", "uefi"), ("x86_64", "bios"), ("aarch64", "uefi")]


def test_a_failure_shows_cause_fix_and_log_and_exits_with_6(
    publish: Command, engine: Engine, disk: Path
) -> None:
    engine.claims = {"gcp": (PROVED, FAILED, UNREACHED)}
    assert publish("rehearse", str(disk)).code == 6
    lines = publish.out.splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("✗ a login works"))
    assert lines[at + 1 : at + 3] == ["  cause: cloud-init is off", "  fix: switch it on"]
    assert any(line.startswith("– no unit failed") for line in lines)
    assert "  console: /logs/1.log" in lines
    assert "1 of 2 rehearsals failed: gcp" in publish.err


def test_json_ends_with_all_verdicts(publish: Command, engine: Engine, disk: Path) -> None:
    engine.claims = {"aws": (FAILED,)}
    assert publish("rehearse", str(disk), "--as", "aws", "--json").code == 6
    events = [json.loads(line) for line in publish.out.splitlines()]
    (last,) = [event for event in events if event.get("event") == "Rehearsed"]
    (verdict,) = [Rehearsal.from_json(data) for data in last["rehearsals"]]
    assert verdict.failures == (FAILED,)
    assert [e["step"] for e in events if e.get("event") == "StepFailed"] == ["aws"]


def test_other_formats_are_booted_as_they_are(
    publish: Command, engine: Engine, disk: Path, tmp_path: Path
) -> None:
    other = tmp_path / "web.qcow2"
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", disk, other], check=True)
    assert publish("rehearse", str(other), "--firmware", "uefi").code == 0
    assert engine.disk is not None
    assert (engine.disk.path, engine.disk.format) == (other, "qcow2")
    assert engine.disk.size == MIB
    assert engine.spec is not None
    assert engine.spec.firmware == "uefi"


def test_a_packed_disk_is_unpacked_for_the_time_being(
    publish: Command, engine: Engine, disk: Path, tmp_path: Path
) -> None:
    subprocess.run(["gzip", "-k", str(disk)], check=True)
    assert publish("rehearse", str(disk.with_suffix(".raw.gz"))).code == 0
    assert engine.disk is not None
    assert engine.disk.size == MIB
    assert not engine.disk.path.exists()
    assert list((publish.state / "scratch").iterdir()) == []


def test_settings_come_from_a_pipeline(publish: Command, engine: Engine, disk: Path) -> None:
    text = publish.file.read_text() + '[[rehearse.checks]]\nrun = "nginx -t"\n'
    publish.file.write_text(text)
    assert publish("rehearse", str(disk), "--pipeline", str(publish.file)).code == 0
    assert engine.settings is not None
    assert [check.run for check in engine.settings.checks] == ["nginx -t"]


def test_settings_need_no_pipeline(publish: Command, engine: Engine, disk: Path) -> None:
    words = ("rehearse.second_boot=false", "rehearse.timeout=60", "targets.nimbus.workers=3")
    given = [word for text in words for word in ("--set", text)]
    assert publish("rehearse", str(disk), *given).code == 0
    assert engine.settings == Rehearse(second_boot=False, timeout=60)


def release(publish: Command, **options: Any) -> None:
    """A release web 1.0.0 in the state directory, published with these options."""
    source = publish.state.parent / "source.raw"
    source.write_bytes(b"\x02" * MIB)
    disk = Store(publish.state).add(source)
    flavour = manifest.Flavour("web", "aarch64", "uefi", disk.sha256, disk.size, MIB)
    made = manifest.Manifest("web", "1.0.0", "run1", "2026-01-01T00:00:00Z", (flavour,), ())
    with Journal(publish.state, "web", "1.0.0") as journal:
        for number, values in enumerate(({"boot": "uefi"}, options)):
            outcome = {"audience": {"kind": "private"}, "options": values}
            journal.done(Outcome("nimbus.release", str(number), outcome, 1.0, number))
    manifest.write(made, manifest.manifest_path(publish.state, "web", "1.0.0"))


@pytest.mark.parametrize(
    ("words", "boot", "workers"),
    [
        ([], "bios", 5),
        (["--set", "targets.nimbus.workers=3"], "bios", 3),
        (["--pipeline", "{file}"], "uefi", 8),
    ],
)
def test_a_release_is_rehearsed_with_the_options_that_it_was_made_with(
    publish: Command,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    boot: str,
    workers: int,
) -> None:
    release(publish, boot="bios", workers=5, encryption=None)
    asked: list[Any] = []

    def guests(_: str, given: dict[str, Any]) -> list[Guest]:
        asked.append(pipeline_fakes.NimbusOptions.model_validate(given["nimbus"]))
        return [Nimbus("nimbus")]

    monkeypatch.setattr(subjects, "guests", guests)
    assert publish("rehearse", "web", *(w.format(file=publish.file) for w in words)).code == 0
    assert [(options.boot, options.workers) for options in asked] == [(boot, workers)]
    assert engine.spec is not None
    assert (engine.spec.name, engine.spec.version, engine.spec.arch) == ("web", "1.0.0", "aarch64")


@pytest.mark.parametrize(
    ("setting", "code", "said"),
    [
        ("rehearse.second_boots=false", 3, 'did you mean "second_boot"?'),
        ("build.size=2GiB", 2, "--set build.size=2GiB: has no effect on a rehearsal without"),
    ],
)
def test_a_setting_without_effect_is_refused(
    publish: Command, engine: Engine, disk: Path, setting: str, code: int, said: str
) -> None:
    assert publish("rehearse", str(disk), "--set", setting).code == code
    assert said in publish.err
    assert engine.settings is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["missing.raw"], "missing.raw does not exist"),
        (["nobody@1.0"], "there is no release 'nobody@1.0'"),
        (["{disk}", "--firmware", "uboot"], "there is no firmware 'uboot'"),
        (["{disk}", "--arch", "arm64"], "there is no architecture 'arm64'"),
        (["{disk}", "--arch", "aarch64", "--firmware", "bios"], "aarch64 has no BIOS"),
    ],
)
def test_what_can_not_be_is_a_usage_error(
    publish: Command, engine: Engine, disk: Path, words: list[str], said: str
) -> None:
    assert publish("rehearse", *(word.format(disk=disk) for word in words)).code == 2
    assert said in publish.err


def test_an_error_of_the_host_ends_the_lanes(
    publish: Command, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, task_of: Callable[..., Any], **__: Any) -> None:
        task_of(Nimbus("aws"), Cancellation())
        raise HostError("swtpm is not installed")

    monkeypatch.setattr(rehearsing, "rehearse", fail)
    assert publish("rehearse", str(disk), "--json").code == 4
    assert '"StepFailed"' in publish.out
    assert "swtpm is not installed" in publish.out

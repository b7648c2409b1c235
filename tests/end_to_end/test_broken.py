"""Good images that were broken in one way each: what keeps them from their cloud is
found before a byte is uploaded, and its cause is named."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from publisher import provider
from publisher.cli.actions import sandbox_defaults
from publisher.cli.linting import place
from publisher.flavours import Flavour
from publisher.model import Disk, Finding, Severity
from publisher.pipeline import load
from publisher.proof.guest import Guest, Rehearsable
from publisher.proof.lint import lint
from publisher.proof.rehearse import boot, rehearse
from publisher.proof.secrets import Known, search
from publisher.rehearsal import Rehearse
from publisher.task import detached
from tests.end_to_end.broken import BOOTS, BROKEN, SECRETS, Boots, Broken
from tests.end_to_end.command import DEMO
from tests.end_to_end.workbench import Workbench

pytestmark = pytest.mark.qemu


@pytest.fixture(scope="module")
def _own(sealed: Disk, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    made = Workbench(sealed.path, tmp_path_factory.mktemp("broken"))
    yield made
    made.close()


@pytest.fixture
def bench(_own: Workbench) -> Iterator[Workbench]:
    """The demo's disk to be broken, and as good as new for the next test."""
    yield _own
    _own.mend()


@pytest.fixture(scope="module")
def flavour() -> Flavour:
    """What the demo's pipeline claims of its disk."""
    (only,) = load(Path(DEMO), settings=[], environ=os.environ, defaults=sandbox_defaults).flavours
    return only


def linted(disk: Disk, cloud: str, flavour: Flavour, memory: Path) -> Sequence[Finding]:
    guest = guest_of(cloud, flavour)
    return serious(lint(disk, [guest], (), detached(memory), flavour.spec()))


def guest_of(cloud: str, flavour: Flavour) -> Guest:
    kind = provider.load(cloud)
    assert issubclass(kind, Rehearsable)
    return kind.guest(flavour.targets[cloud])


def serious(findings: Sequence[Finding]) -> Sequence[Finding]:
    return [finding for finding in findings if finding.severity is not Severity.NOTE]


@pytest.mark.parametrize("cloud", ["aws", "azure", "gcp"])
def test_nothing_is_wrong_with_the_good_image(
    bench: Workbench, flavour: Flavour, cloud: str, tmp_path: Path
) -> None:
    assert linted(bench.disk(), cloud, flavour, tmp_path) == []


def test_the_good_image_holds_no_secret(bench: Workbench, tmp_path: Path) -> None:
    assert serious(search(bench.disk(), Known(), detached(tmp_path))) == []


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.name)
def test_lint_names_what_is_broken_and_nothing_else(
    broken: Broken, bench: Workbench, flavour: Flavour, tmp_path: Path
) -> None:
    broken.spoil(bench)
    for cloud in broken.clouds:
        found = linted(bench.disk(), cloud, flavour, tmp_path)
        rule, *also = (name.format(cloud=cloud) for name in (broken.rule, *broken.also))
        assert {finding.rule for finding in found} == {rule, *also}
        told = next(finding for finding in found if finding.rule == rule)
        assert broken.words in told.evidence
        assert place(told).startswith(broken.place)
        assert told.severity is (Severity.WARNING if broken.warns else Severity.ERROR)
        assert told.fix


@pytest.mark.parametrize("broken", SECRETS, ids=lambda broken: broken.name)
def test_the_secret_gate_names_what_is_left_and_nothing_else(
    broken: Broken, bench: Workbench, tmp_path: Path
) -> None:
    broken.spoil(bench)
    found = serious(search(bench.disk(), Known(), detached(tmp_path)))
    assert {finding.rule for finding in found} == {broken.rule}
    assert all(broken.words in finding.evidence and finding.fix for finding in found)


@pytest.mark.slow
@pytest.mark.parametrize("broken", BOOTS, ids=lambda broken: broken.name)
def test_a_boot_shows_what_no_reading_of_the_disk_does(
    broken: Boots,
    bench: Workbench,
    flavour: Flavour,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(boot, "GRACE", 15.0)  # nobody waits for an ssh server that never comes
    broken.spoil(bench)
    assert linted(bench.disk(), broken.cloud, flavour, tmp_path) == []
    settings = Rehearse(second_boot=False, rerun=broken.rerun, stall=120)
    (verdict,) = rehearse(
        bench.disk(),
        [guest_of(broken.cloud, flavour)],
        replace(flavour.spec(), firmware="uefi"),  # by BIOS would be another boot
        settings,
        detached(tmp_path),
        scratch=tmp_path / "scratch",
        logs=tmp_path / "logs",
    )
    (failure,) = [claim for claim in verdict.failures if claim.id == broken.claim]
    assert broken.words in failure.cause
    assert failure.fix
    assert {claim.cause for claim in verdict.failures} == {failure.cause}

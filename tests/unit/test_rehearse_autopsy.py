"""What the disk of a guest that failed is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from publisher.disks import foreign
from publisher.model import MIB, Disk
from publisher.proof.inspect.inspection import Inspection
from publisher.proof.inspect.kernel import Kernel
from publisher.proof.rehearse import autopsy, props
from publisher.task import Task, detached


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return detached(tmp_path / "memory")


def overlay(tmp_path: Path, task: Task) -> Path:
    base = tmp_path / "disk.raw"
    base.write_bytes(bytes(2 * MIB))
    return props.overlay(Disk(base, 2 * MIB, "", ()), tmp_path / "overlay.qcow2", task)


def test_a_disk_without_a_file_system_still_tells_why_it_does_not_boot(
    tmp_path: Path, task: Task
) -> None:
    image = overlay(tmp_path, task)
    with autopsy.files(image, tmp_path, task) as files:
        assert files.boot_fault("bios") == "the first sector holds no boot code"
        assert files.boot_fault("uefi") == "there is no EFI system partition"
        assert files.text("/etc/fstab") == files.link("/x") == files.arch() == ""
        assert files.driver("nvme") == ""
        assert not files.exists("/etc")
        assert files.glob("/*") == []
    assert foreign.info(image, "qcow2")
    assert not (tmp_path / "autopsy.raw").exists()


def test_a_driver_is_looked_for_in_the_kernel_that_starts(
    tmp_path: Path, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Found(Kernel):
        def __init__(self, place: str) -> None:
            self.place = place

        def driver(self, module: str) -> str:  # type: ignore[override]
            return self.place

    monkeypatch.setattr(Inspection, "kernels", lambda _: (Found("initramfs"), Found("absent")))
    with autopsy.files(overlay(tmp_path, task), tmp_path, task) as files:
        assert files.driver("nvme") == "initramfs"


def test_a_disk_that_can_not_be_opened_tells_nothing(tmp_path: Path, task: Task) -> None:
    with autopsy.files(tmp_path / "missing", tmp_path, task) as files:
        assert files.boot_fault("bios") == files.driver("nvme") == files.arch() == ""

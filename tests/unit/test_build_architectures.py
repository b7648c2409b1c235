"""What differs between architectures: tables, loaders, and how foreign programs run."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import get_args

import pytest

from publisher.build import (
    binfmt,
    files,
    identity,
    layout,
    mmdebstrap,
    namespace,
    partition,
    suites,
)
from publisher.build.grow import partitions
from publisher.errors import HostError, PipelineError
from publisher.model import GIB, Arch
from publisher.recipe import bootable
from publisher.vm import host
from publisher.vm.arch import PLATFORMS, Platform, is_native
from publisher.vm.probe import GUESTS

X86, ARM = PLATFORMS["x86_64"], PLATFORMS["aarch64"]
NOBODY = namespace.Namespace("none", ())
HERE = next((row for row in PLATFORMS.values() if is_native(row.arch)), X86)
FOREIGN = next(row for row in PLATFORMS.values() if not is_native(row.arch))
IDENTITY = identity.derive("demo", "1.0")
ALL = pytest.mark.parametrize("platform", PLATFORMS.values(), ids=lambda row: row.arch)


def test_every_architecture_of_a_pipeline_has_its_rows() -> None:
    known = set(get_args(Arch))
    for table in (PLATFORMS, GUESTS, partition.ROOT, binfmt._EXIT):
        assert set(table) == known
    assert all(row.arch == arch for arch, row in PLATFORMS.items())


@pytest.mark.parametrize("suite", ["bullseye", "bookworm", "trixie", "sid"])
def test_every_suite_has_a_kernel_and_a_signed_loader(suite: str) -> None:
    x86, arm = suites.packages(suite, X86), suites.packages(suite, ARM)
    assert {"linux-image-cloud-amd64", "grub-cloud-amd64"} <= set(x86)
    assert {"linux-image-cloud-arm64", "grub-efi-arm64-signed", "shim-signed"} <= set(arm)
    assert not any("amd64" in name for name in arm)


def test_a_suite_whose_packages_make_no_links_into_usr_gets_them() -> None:
    assert suites.merged_usr("bullseye", X86) == ("bin", "sbin", "lib", "lib64")
    assert suites.merged_usr("bullseye", ARM) == ("bin", "sbin", "lib")
    assert suites.merged_usr("bookworm", X86) == suites.merged_usr("sid", ARM) == ()


def test_the_tree_is_prepared_before_any_package(tmp_path: Path) -> None:
    (tmp_path / "etc/apt/preferences.d").mkdir(parents=True)
    preferences = tmp_path / "preferences"
    preferences.write_text("Package: x\n")
    arguments = [str(tmp_path), str(preferences), "bin", "lib64"]
    subprocess.run(["sh", "-euc", mmdebstrap.SETUP, "sh", *arguments], check=True)
    assert (tmp_path / "bin").readlink() == Path("usr/bin")
    assert (tmp_path / "lib64").resolve() == (tmp_path / "usr/lib64").resolve()
    assert (tmp_path / "etc/apt/preferences.d/absent").read_text() == "Package: x\n"


@pytest.mark.parametrize(
    ("firmware", "platform", "made"),
    [
        ("bios+uefi", X86, "bios+uefi"),
        ("bios", X86, "bios"),
        ("uefi", X86, "uefi"),
        ("bios+uefi", ARM, "uefi"),
        ("uefi", ARM, "uefi"),
    ],
)
def test_a_disk_boots_in_those_ways_that_its_architecture_has(
    firmware: str, platform: Platform, made: str
) -> None:
    assert bootable(firmware, platform.arch) == made  # type: ignore[arg-type]


def test_bios_alone_is_refused_where_there_is_none() -> None:
    with pytest.raises(PipelineError, match="aarch64 has no BIOS") as caught:
        bootable("bios", "aarch64")
    assert caught.value.key == "build.firmware"
    assert 'firmware = "uefi"' in caught.value.hint


def test_a_disk_without_bios_has_no_partition_for_it_and_names_its_root(tmp_path: Path) -> None:
    made = layout.partitions(IDENTITY, bootable("bios+uefi", "aarch64"), ARM, 2 * GIB)
    assert {part.kind for part in made} == {partition.ESP, partition.ROOT["aarch64"]}
    head, tail = partition.table(IDENTITY.disk, 2 * GIB, made)
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.write(head)
        file.truncate(2 * GIB - len(tail))
        file.seek(0, 2)
        file.write(tail)
    assert [extent.offset for extent in partitions(disk)] == [layout.ROOT_OFFSET]


def test_the_console_of_the_emulator_is_the_kernels_main_one() -> None:
    assert files.command_line(X86).split()[:2] == ["console=tty0", "console=ttyS0,115200"]
    line = files.command_line(ARM).split()
    assert [word for word in line if word.startswith("console=")] == [
        "console=tty0",
        "console=ttyS0,115200",
        "console=ttyAMA0,115200",
    ]


# -- running foreign programs


@ALL
def test_the_trial_program_says_that_it_ran(platform: Platform, tmp_path: Path) -> None:
    path = tmp_path / "program"
    path.write_bytes(binfmt.program(platform))
    path.chmod(0o755)
    emulator = [] if platform is HERE else [host.emulator(platform)]
    if None in emulator:
        pytest.skip(f"{platform.emulators[0]} is missing")
    assert subprocess.run([*filter(None, emulator), str(path)]).returncode == 42


def test_the_registered_line_is_the_emulators_own() -> None:
    """As qemu-user-static's own file in /usr/lib/binfmt.d has it, but for the flags."""
    assert binfmt.entry(ARM, "/usr/bin/qemu-aarch64-static") == (
        r":qemu-aarch64:M::\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
        r":\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
        ":/usr/bin/qemu-aarch64-static:OPF"
    )


def test_native_programs_need_no_emulator(tmp_path: Path) -> None:
    assert binfmt.emulating(NOBODY, HERE, tmp_path) is NOBODY


def test_a_host_that_runs_them_already_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binfmt, "require_emulator", lambda _: "/bin/emulator")
    runs = namespace.Namespace("runs", ("sh", "-c", "exit 42", "sh"))
    assert binfmt.emulating(runs, FOREIGN, tmp_path) is runs


def test_a_host_that_cannot_says_what_to_allow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binfmt, "require_emulator", lambda _: "/bin/emulator")
    refuses = namespace.Namespace("no", ("sh", "-c", "echo not permitted >&2; exit 1", "--user"))
    with pytest.raises(HostError, match=r"don't run here.*\(not permitted\)") as caught:
        binfmt.emulating(refuses, FOREIGN, tmp_path)
    assert caught.value.key == "image.arch"
    assert FOREIGN.emulator_package in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_only_a_foreign_architecture_needs_the_emulator() -> None:
    def names(platform: Platform) -> set[str]:
        return {requirement.name for requirement in host.requirements(platform.arch)}

    assert FOREIGN.emulators[0] in names(FOREIGN)
    assert FOREIGN.qemu in names(FOREIGN)
    assert not {FOREIGN.emulators[0], FOREIGN.qemu} & names(HERE)


def test_a_missing_emulator_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "which", lambda _: None)
    with pytest.raises(HostError, match=f"{FOREIGN.qemu} is not installed") as caught:
        host.require(FOREIGN.qemu)
    assert f"package {FOREIGN.qemu_package}" in caught.value.hint
    with pytest.raises(HostError, match=f"{FOREIGN.emulators[0]} is not installed") as caught:
        host.require_emulator(FOREIGN)
    assert f"package {FOREIGN.emulator_package}" in caught.value.hint


def test_an_emulator_that_needs_libraries_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, content in (("static", b"\x7fELF"), ("shared", b"\x7fELF...../lib64/ld-linux-x.so")):
        (tmp_path / name).write_bytes(content)
    given = dict(zip(FOREIGN.emulators, (None, str(tmp_path / "shared")), strict=True))
    monkeypatch.setattr(host, "which", given.get)
    assert host.emulator(FOREIGN) is None
    given[FOREIGN.emulators[1]] = str(tmp_path / "static")
    assert host.emulator(FOREIGN) == str(tmp_path / "static")


def test_programs_are_emulated_on_the_quick_processor(tmp_path: Path) -> None:
    assert mmdebstrap._environment(tmp_path, ARM)["QEMU_CPU"] == ARM.cpu == "neoverse-n1"

"""The boot's phase, read from what real guests printed."""

from __future__ import annotations

import pytest

from publisher.vm.console import Phase, Tracker, plain

BIOS = [
    "\x1bc\x1b[?7l\x1b[2J\x1b[0mSeaBIOS (version 1.16.2-debian-1.16.2-1)\r",
    "Booting from Hard Disk...\r",
    "GRUB loading.\r",
    "Welcome to GRUB!\r",
    "[    0.000000] Linux version 6.1.0-56-cloud-amd64 (debian-kernel@lists.debian.org)\r",
    "[    4.118392] Run /init as init process\r",
    "Loading, please wait...\r",
    "Begin: Running /scripts/init-bottom ... done.\r",
    "[    9.906562] systemd[1]: Inserted module 'autofs4'\r",
    "Welcome to \x1b[1mDebian GNU/Linux 12 (bookworm)\x1b[0m!\r",
    "[   18.060736] cloud-init[312]: Cloud-init v. 22.4.2 running 'init-local' at Mon\r",
    "[   31.949898] cloud-init[360]: Cloud-init v. 22.4.2 running 'init' at Mon, 23 Nov 2026\r",
    "[\x1b[0;32m  OK  \x1b[0m] Started \x1b[0;1;39mssh.service\x1b[0m - OpenBSD Secure Shell.\r",
    "Debian GNU/Linux 12 localhost ttyS0\r",
]
PHASES = [
    *(Phase.FIRMWARE, Phase.FIRMWARE, Phase.BOOTLOADER, Phase.BOOTLOADER, Phase.KERNEL),
    *(Phase.KERNEL, Phase.KERNEL, Phase.INIT, Phase.INIT, Phase.INIT, Phase.NETWORK),
    *(Phase.CLOUD_INIT, Phase.SSHD, Phase.SSHD),
]


def test_each_line_of_a_bios_boot_moves_the_phase_as_far_as_it_proves() -> None:
    tracker = Tracker()
    seen = []
    for line in BIOS:
        tracker.feed(line.encode() + b"\n")
        seen.append(tracker.phase)
    assert seen == PHASES
    assert not tracker.fatal


@pytest.mark.parametrize(
    ("line", "phase"),
    [
        ('BdsDxe: loading Boot0001 "UEFI Misc Device" from PciRoot(0x0)', Phase.FIRMWARE),
        ('BdsDxe: starting Boot0001 "UEFI Misc Device" from PciRoot(0x0)', Phase.BOOTLOADER),
        ("EFI stub: Loaded initrd from LINUX_EFI_INITRD_MEDIA_GUID device path", Phase.KERNEL),
    ],
)
def test_uefi_names_the_loader_that_it_starts(line: str, phase: Phase) -> None:
    tracker = Tracker()
    tracker.feed(f"{line}\r\n".encode())
    assert tracker.phase is phase


@pytest.mark.parametrize("size", [1, 3, 7, 64])
def test_the_size_of_the_pieces_does_not_matter(size: int) -> None:
    told: list[Phase] = []
    tracker = Tracker(told.append)
    data = "".join(f"{line}\n" for line in BIOS).encode()
    for at in range(0, len(data), size):
        tracker.feed(data[at : at + size])
    assert told == sorted(set(PHASES) - {Phase.FIRMWARE})
    assert tracker.last_lines(1) == "Debian GNU/Linux 12 localhost ttyS0"


def test_phases_never_go_back_and_are_timed() -> None:
    now = [100.0]
    tracker = Tracker(clock=lambda: now[0])
    now[0] = 103.5
    tracker.feed(b"[    0.000000] Linux version 6.1\n")
    now[0] = 110.0
    tracker.feed(b"GRUB loading.\n")
    tracker.enter(Phase.READY)
    assert tracker.phase is Phase.READY
    assert tracker.seconds == {"firmware": 0.0, "kernel": 3.5, "ready": 10.0}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("Boot failed: not a bootable disk", "the firmware found nothing to boot"),
        ("No bootable device.", "the firmware found nothing to boot"),
        ("BdsDxe: No bootable option or device was found.", "UEFI found nothing to boot"),
        ("grub rescue> ", "GRUB did not find its configuration"),
        (
            "[    2.1] Kernel panic - not syncing: VFS: Unable to mount root fs",
            "kernel panic: VFS: Unable to mount root fs",
        ),
        (
            "ALERT!  UUID=0b1c does not exist.  Dropping to a shell!",
            "the initramfs did not find the root file system: "
            "UUID=0b1c does not exist.  Dropping to a shell!",
        ),
        ("You are in emergency mode. After logging in, type", "systemd stopped in emergency mode"),
        ("error: bad shim signature.", "secure boot refused the loader"),
    ],
)
def test_a_boot_that_can_not_succeed_is_known_at_once(line: str, reason: str) -> None:
    tracker = Tracker()
    tracker.feed(line.encode() + (b"" if line.endswith("> ") else b"\n"))
    assert tracker.fatal == reason


def test_the_last_lines_are_plain_text() -> None:
    tracker = Tracker()
    tracker.feed("".join(f"{line}\n" for line in BIOS).encode() + b"localhost login: ")
    assert "\x1b" not in tracker.last_lines()
    assert tracker.last_lines(2).splitlines()[-1].startswith("localhost login:")
    assert plain("a\x1b[0;32mb\x1b[?7lc\r") == "abc"


def test_a_question_for_a_login_is_timed_once_and_forgotten_at_a_restart() -> None:
    now = [100.0]
    tracker = Tracker(clock=lambda: now[0])
    tracker.feed(b"localhost login: x\n")
    seen = [tracker.prompted]
    tracker.feed(b"Debian GNU/Linux 12 localhost ttyS0\r\n\r\nlocalhost log")
    now[0] = 105.0
    tracker.feed(b"in: ")
    now[0] = 109.0
    tracker.feed(b"[   40.0] a late line\nlocalhost login: ")
    seen.append(tracker.prompted)
    tracker.restart()
    assert [*seen, tracker.prompted] == [None, 105.0, None]

"""Lint's rules on drivers that are there and are not to be loaded."""

from __future__ import annotations

from typing import Any

import pytest

from publisher import provider
from publisher.model import Finding
from tests.unit import lint_world as world
from tests.unit.lint_broken import ERROR, GRUB, INITRD, WARNING, replace
from tests.unit.lint_world import EARLY, VERSION, Files, World, good
from tests.unit.test_lint_rules import RULES

CONF = "/etc/modprobe.d/ours.conf"


def with_copy(*paths: str) -> bytes:
    """An initramfs that holds these files, too."""
    drivers = [f"usr/lib/modules/{VERSION}/{world.module(name)}" for name in EARLY]
    return world.cpio([*drivers, *(path.lstrip("/") for path in paths)])


def told(rule: str, files: Files) -> list[Finding]:
    return world.found(RULES[rule], World({**good(), **files}))


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("azure.file-systems", "install udf /bin/true # CIS"),
        ("azure.file-systems", "blacklist udf"),
        ("aws.network-driver", "blacklist ena"),
        ("azure.network-driver", "blacklist hv-netvsc"),
        ("gcp.gvnic-driver", "install gve /usr/bin/true"),
        ("gcp.network-driver", "blacklist virtio_net"),
    ],
)
def test_a_driver_that_is_not_loaded_is_as_good_as_none(rule: str, text: str) -> None:
    files: Files = {CONF: f"# ours\n{text}\n".encode()}
    (finding,) = [f for f in told(rule, files) if "not loaded" in f.evidence]
    assert text in finding.evidence
    assert (finding.path, finding.line) == (CONF, 2)
    assert finding.severity is RULES[rule].severity


@pytest.mark.parametrize("command", ["blacklist virtio_scsi", "install virtio-scsi /bin/false"])
def test_for_the_root_disk_the_copy_in_the_initramfs_counts(command: str) -> None:
    files: Files = {CONF: command.encode()}
    (later,) = told("gcp.disk-driver", files)
    assert "an initramfs that is built anew" in later.evidence
    assert later.severity is WARNING
    (now,) = told("gcp.disk-driver", {**files, INITRD: with_copy(CONF)})
    assert now.severity is ERROR
    assert command in now.evidence


def test_who_names_a_driver_loads_it_in_spite_of_a_blacklist() -> None:
    files: Files = {CONF: b"blacklist virtio_scsi\n", INITRD: with_copy(CONF)}
    files["/etc/initramfs-tools/modules"] = b"# early\nvirtio_scsi\n"
    assert told("gcp.disk-driver", files) == []
    assert told("gcp.disk-driver", {**files, CONF: b"install virtio_scsi /bin/true\n"}) != []
    late: Files = {CONF: b"blacklist ena\n", "/etc/modules-load.d/net.conf": b"ena\n"}
    assert told("aws.network-driver", late) == []
    del late["/etc/modules-load.d/net.conf"]
    assert told("aws.network-driver", {**late, "/etc/initramfs-tools/modules": b"ena\n"}) != []


@pytest.mark.parametrize(
    ("argument", "rules"),
    [
        ("modprobe.blacklist=virtio_scsi,ena", ("gcp.disk-driver", "aws.network-driver")),
        ("module_blacklist=hv-storvsc,udf", ("azure.disk-driver", "azure.file-systems")),
        ("rd.driver.blacklist=virtio_scsi", ("gcp.disk-driver",)),
    ],
)
def test_the_kernels_arguments_count(argument: str, rules: tuple[str, ...]) -> None:
    files = good()
    replace(GRUB, "ro console", f"{argument} ro console")(files)
    for rule in rules:
        (finding,) = told(rule, files)
        assert argument in finding.evidence
        assert (finding.severity, finding.path, finding.line) == (ERROR, GRUB, 3)
    files["/etc/initramfs-tools/modules"] = b"virtio_scsi\nhv_storvsc\n"
    stays = "module_blacklist" in argument
    assert bool(told(rules[0], files)) is stays, "a name goes over a blacklist, not over the kernel"


def test_what_counts_in_the_initramfs_alone_does_not_count_after_it() -> None:
    files = good()
    replace(GRUB, "ro console", "rd.driver.blacklist=ena,nvme ro console")(files)
    assert told("aws.network-driver", files) == []
    assert told("aws.nvme-driver", files) == [], "it is built in"


@pytest.mark.parametrize(
    "files",
    [
        {"/usr/lib/modprobe.d/x.conf": b"blacklist ena\n", "/etc/modprobe.d/x.conf": b""},
        {"/etc/modprobe.d/x.conf.old": b"blacklist ena\n"},
        {CONF: b"#blacklist ena\nblacklist nouveau\nblacklist\ninstall ena\n"},
        {CONF: b"install ena /sbin/modprobe --ignore-install ena; /usr/bin/tune\n"},
        {CONF: b"options ena force_large_llq_header=1\n"},
    ],
)
def test_other_lines_and_hidden_files_say_nothing(files: Files) -> None:
    assert told("aws.network-driver", files) == []


def test_a_file_of_a_package_counts_where_none_hides_it() -> None:
    files: Files = {"/usr/lib/modprobe.d/x.conf": b"blacklist ena\n"}
    (finding,) = told("aws.network-driver", files)
    assert finding.path == "/usr/lib/modprobe.d/x.conf"


def test_what_is_not_loaded_is_not_declared_either() -> None:
    def abilities(name: str, text: str) -> set[str]:
        kind: Any = provider.load(name)
        files: Files = {**good(), CONF: text.encode()}
        return set(kind.guest(None).abilities(World(files)))

    assert abilities("aws", "blacklist ena\n") == set()
    assert "GVNIC" not in abilities("gcp", "blacklist gve\n")
    both = "blacklist mlx5_core\nblacklist mana\n"
    assert "accelerated_networking" not in abilities("azure", both)
    assert "accelerated_networking" in abilities("azure", "blacklist mana\n")
    assert "nvme" not in abilities("azure", "blacklist pci_hyperv\n")


def test_a_claim_of_what_is_not_loaded_is_an_error() -> None:
    kind: Any = provider.load("aws")
    given = kind.options(regions=("us-east-1",), ena=True)
    rules = {rule.id: rule for rule in kind.guest(given).rules(None)}
    disk = World({**good(), CONF: b"blacklist ena\n"})
    (finding,) = world.found(rules["aws.network-driver"], disk)
    assert (finding.severity, finding.key) == (ERROR, "targets.aws.ena")

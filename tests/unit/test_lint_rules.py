"""Lint's rules: a good disk breaks none; each broken one is told with the right cause."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from publisher import provider
from publisher.model import Finding, Severity, Spec
from publisher.proof.checks import boot
from publisher.proof.inspect.budget import Damaged, Unreadable
from publisher.proof.inspect.inspection import Inspection
from publisher.proof.inspect.partitions import Partition, Table
from publisher.proof.inspect.volume import Volume
from publisher.proof.lint import rules_for
from tests.unit import lint_world as world
from tests.unit.lint_broken import BROKEN, ERROR, INITRD, NOTE, WARNING, Change, absent
from tests.unit.lint_world import MODULES, UNITS, WANTS, Files, Link, World, good, good_esp

CLOUDS = [provider.load(name).guest(None) for name in ("aws", "gcp", "azure")]  # type: ignore[attr-defined]
RULES = {rule.id: rule for rule in rules_for(CLOUDS)}


def findings(disk: World) -> list[Finding]:
    return [finding for rule in RULES.values() for finding in world.found(rule, disk)]


def test_a_good_disk_breaks_no_rule_of_any_cloud() -> None:
    (only,) = findings(World())
    assert (only.rule, only.severity) == ("azure.rootdelay", Severity.NOTE)


@pytest.mark.parametrize("cloud", CLOUDS, ids=lambda cloud: cloud.name)
def test_a_clouds_rules_bear_its_name_and_are_the_same_with_a_pipeline(cloud: Any) -> None:
    ids = [rule.id for rule in cloud.rules(None)]
    assert all(ident.startswith(f"{cloud.name}.") for ident in ids)
    assert ids == [rule.id for rule in cloud.rules(Spec("web", "1"))]


def test_every_rule_says_why_with_a_page_and_a_fix() -> None:
    for rule in RULES.values():
        assert rule.url.startswith("https://"), rule.id
        assert len(rule.why) > 30, rule.id
        assert rule.fix, rule.id
    assert len(RULES) == len(rules_for(CLOUDS)), "two rules have one id"


@pytest.mark.parametrize(
    ("rule", "change", "severity", "text", "place"),
    BROKEN,
    ids=[f"{rule}-{number}" for number, (rule, *_) in enumerate(BROKEN)],
)
def test_a_broken_installation_is_told_with_its_place(
    rule: str, change: Change, severity: Severity, text: str, place: str
) -> None:
    files = good()
    change(files)
    told = world.found(RULES[rule], World(files))
    assert any(
        finding.severity is severity
        and text in finding.evidence
        and f"{finding.path}:{finding.line}" == place
        for finding in told
    ), told


def test_an_old_waagent_is_an_error() -> None:
    files = good()
    files["/usr/sbin/waagent"] = b""
    path = "/usr/lib/python3/dist-packages/azurelinuxagent/common/version.py"
    files[path] = b"AGENT_VERSION = '2.2.40'\n"
    (told,) = world.found(RULES["azure.agent"], World(files))
    assert "2.2.40, not 2.2.41" in told.evidence


def test_without_an_initramfs_a_slow_root_disk_needs_a_delay() -> None:
    files = good()
    del files[INITRD]
    (told,) = world.found(RULES["azure.rootdelay"], World(files))
    assert told.severity is WARNING


# -- firmware


def test_a_disk_without_a_loader_at_the_removable_path_boots_by_bios_only() -> None:
    esp = good_esp()
    esp["/EFI/debian/shimx64.efi"] = esp.pop("/EFI/BOOT/BOOTX64.EFI")
    spec = Spec("web", "1", firmware="uefi")
    (told,) = world.found({r.id: r for r in rules_for((), spec)}["claims.firmware"], World(esp=esp))
    assert "only /boot/efi/EFI/debian/shimx64.efi" in told.evidence
    assert told.key == "build.firmware"
    (note,) = world.found(RULES["azure.generation"], World(esp=esp))
    assert note.severity is NOTE


@pytest.mark.parametrize(
    ("machine", "name"),
    [(62, "BOOTX64.EFI"), (183, "BOOTAA64.EFI"), (8, "BOOTX64.EFI or BOOTAA64.EFI")],
)
def test_the_loader_that_lacks_is_named_for_the_processor(machine: int, name: str) -> None:
    elf = b"\x7fELF" + bytes(14) + machine.to_bytes(2, "little")
    esp = {path: data for path, data in good_esp().items() if "BOOTX64" not in path}
    fault = boot.uefi_fault(World({**good(), "/bin/sh": elf}, esp=esp))
    assert fault is not None
    assert fault.text == f"the EFI system partition has no EFI/BOOT/{name}"


def test_shim_without_what_it_starts_does_not_boot() -> None:
    shim = world.loader() + "\\grubx64.efi".encode("utf-16-le")
    alone = World(esp={**good_esp(), "/EFI/BOOT/BOOTX64.EFI": shim})
    fault = boot.uefi_fault(alone)
    assert fault is not None
    assert "shim wants EFI/BOOT/grubx64.efi" in fault.text
    for second in ("grubx64.efi", "fbx64.efi"):
        esp = {**good_esp(), "/EFI/BOOT/BOOTX64.EFI": shim, f"/EFI/BOOT/{second}": b""}
        assert boot.uefi_fault(World(esp=esp)) is None


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (bytes(440), "no boot code"),
        (bytes(world.GRUB).replace(b"\0\x08", b"\0\x18", 1), "second"),
    ],
    ids=["empty", "elsewhere"],
)
def test_boot_code_must_be_there_and_lead_to_its_second_part(code: bytes, text: str) -> None:
    disk = World(table=Table("gpt", world.PARTITIONS, code))
    spec = Spec("web", "1", firmware="bios")
    (told,) = world.found({r.id: r for r in rules_for((), spec)}["claims.firmware"], disk)
    assert told.key == "build.firmware"
    assert ("no boot code" if text == "no boot code" else "nothing") in told.evidence


def test_a_disk_that_boots_by_nothing_is_an_error() -> None:
    disk = World(esp={}, table=Table("gpt", world.PARTITIONS, bytes(440)))
    (told,) = world.found(RULES["boot.firmware"], disk)
    assert "neither by BIOS" in told.evidence


def test_the_architecture_is_the_disks_own() -> None:
    rules = {rule.id: rule for rule in rules_for((), Spec("web", "1", arch="aarch64"))}
    (told,) = world.found(rules["claims.arch"], World())
    assert (told.key, "x86_64" in told.evidence) == ("image.arch", True)


# -- the initramfs


@pytest.mark.parametrize(
    ("files", "place"),
    [
        ({"/usr/lib/dracut/dracut.conf.d/01-dist.conf": b'hostonly="yes"'}, "01-dist.conf:1"),
        (
            {
                "/usr/lib/dracut/dracut.conf.d/01-dist.conf": b'hostonly="yes"',
                "/usr/lib/dracut/dracut.conf.d/02-generic-image.conf": b'hostonly="no"',
            },
            "",
        ),
        (
            {
                "/usr/lib/dracut/dracut.conf.d/01-dist.conf": b'hostonly="yes"',
                "/etc/dracut.conf.d/01-dist.conf": b"",
            },
            "",
        ),
        (
            {"/etc/dracut.conf": b"hostonly=no", "/etc/dracut.conf.d/1.conf": b"hostonly=yes # x"},
            "1.conf:1",
        ),
        ({"/etc/dracut.conf": b"# ours\nhostonly='yes' hostonly_mode=strict"}, "dracut.conf:2"),
        ({"/etc/dracut.conf.d/1.conf": b'#hostonly="yes"\nhostonly_cmdline="yes"\n"'}, ""),
        ({"/etc/dracut.conf.d/1.conf": b"hostonly=yes\nhostonly=no # hostonly=yes\n"}, ""),
        (
            {
                "/etc/dracut.conf.d/10-ours.conf": b"hostonly=no\n",
                "/usr/lib/dracut/dracut.conf.d/90-theirs.conf": b"hostonly=yes\n",
            },
            "90-theirs.conf:1",
        ),
    ],
)
def test_dracut_is_told_by_the_last_of_its_files(files: Files, place: str) -> None:
    told = world.found(RULES["initramfs.generic"], World({**good(), **files}))
    assert [f"{f.path}:{f.line}".endswith(place) for f in told] == ([True] if place else [])


def test_what_initramfs_tools_is_told_last_counts() -> None:
    def told(last: bytes) -> list[Finding]:
        files: Files = {"/etc/initramfs-tools/initramfs.conf": b"MODULES=dep\n"}
        files["/etc/initramfs-tools/conf.d/x"] = last
        return world.found(RULES["initramfs.generic"], World({**good(), **files}))

    assert told(b"MODULES=most\n") == []
    (finding,) = told(b"MODULES=list\n")
    assert (finding.path, finding.line) == ("/etc/initramfs-tools/conf.d/x", 1)


def test_machines_of_arm_are_none_of_xens() -> None:
    files = good()
    absent("xen-blkfront", "xen-netfront")(files)
    assert len(world.found(RULES["aws.xen-driver"], World(files))) == 2
    files["/bin/sh"] = b"\x7fELF\x02\x01\x01" + bytes(11) + b"\xb7\x00"
    assert world.found(RULES["aws.xen-driver"], World(files)) == []


def test_azures_provisioning_needs_udf_and_the_firmware_fat() -> None:
    for name in ("udf", "vfat"):
        files = good()
        absent(name)(files)
        (told,) = world.found(RULES["azure.file-systems"], World(files))
        assert f"no driver {name}" in told.evidence


@pytest.mark.parametrize("kind", ["auto", "vfat", "msdos", "ext4,vfat"])
def test_a_file_system_may_be_named_in_several_ways(kind: str) -> None:
    files = {**good(), "/etc/fstab": f"UUID={world.ESP_UUID} /boot/efi {kind} rw 0 1\n".encode()}
    assert world.found(RULES["fstab.device"], World(files)) == []


# -- partitions


def test_swap_on_the_disk_is_an_error_for_azure_only() -> None:
    swap = Partition(2, "swap", "0002", "", 63 * MIB_, MIB_)
    disk = World(more=[Volume(swap, "swap")])
    told = findings(disk)
    assert [f.rule for f in told if "swap" in f.evidence] == ["azure.swap"]


MIB_ = 1024 * 1024


def test_partitions_behind_the_root_keep_it_from_growing() -> None:
    behind = Partition(2, "linux", "0002", "", 63 * MIB_, MIB_)
    disk = World(table=Table("gpt", (*world.PARTITIONS, behind), bytes(world.GRUB)))
    (told,) = world.found(RULES["disk.growth"], disk)
    assert told.severity is WARNING


def test_compute_engine_boots_no_disk_without_a_partition_table() -> None:
    rule = RULES["gcp.partition-table"]
    (told,) = world.found(rule, World(table=Table("none")))
    assert told.severity is ERROR
    assert world.found(rule, World(table=Table("mbr", world.PARTITIONS))) == []


def test_a_damaged_table_is_told() -> None:
    disk = World(table=Table("gpt", (), bytes(440), ("its checksum is wrong",)))
    (told,) = world.found(RULES["disk.partition-table"], disk)
    assert told.severity is ERROR
    with pytest.raises(Damaged, match="its checksum is wrong"):
        Inspection.volumes(disk)


def test_a_root_without_a_reader_is_told_and_nothing_passes_silently() -> None:
    disk = World(fault=Unreadable("there is no reader for xfs"))
    (told,) = world.found(RULES["disk.not-readable"], disk)
    assert told.severity is WARNING
    with pytest.raises(Unreadable, match="no reader for xfs"):
        list(RULES["aws.nvme-driver"].check(disk))


def test_a_damaged_root_is_an_error() -> None:
    disk = World(fault=Damaged("its root is not a directory"))
    assert world.found(RULES["disk.root"], disk)[0].severity is ERROR


def test_an_installation_that_tells_of_no_drivers_is_not_decided() -> None:
    files = good()
    for name in ("modules.dep", "modules.builtin"):
        del files[f"{MODULES}/{name}"]
    with pytest.raises(Unreadable, match="tells of no drivers"):
        list(RULES["aws.nvme-driver"].check(World(files)))


# -- agents


def unprovisioned(more: Files) -> World:
    """The good disk without cloud-init."""
    files = {**good(), **more}
    del files["/usr/bin/cloud-init"]
    return World({path: content for path, content in files.items() if "cloud-" not in path})


GOOGLES = {"/usr/bin/google_guest_agent": b""}
GOOGLE, MANAGER_OF_GOOGLES = "google-guest-agent.service", "google-guest-agent-manager.service"


def test_googles_agent_must_start() -> None:
    def told(more: Files) -> list[str]:
        found = world.found(RULES["gcp.agent"], unprovisioned({**GOOGLES, **more}))
        return [finding.evidence for finding in found]

    for more in ({}, unit(GOOGLE), {**unit(GOOGLE, "masked"), **unit(MANAGER_OF_GOOGLES)}):
        assert told(more) == []
    for state in ("masked", "disabled"):
        assert told(unit(GOOGLE, state)) == [
            f"cloud-init is not installed, and {GOOGLE} is {state}"
        ]
    masked = {**good(), **GOOGLES, **unit(GOOGLE, "masked")}
    assert world.found(RULES["gcp.agent"], World(masked)) == [], "cloud-init does it"


@pytest.mark.parametrize(
    "path", ["/usr/bin/ignition", "/usr/lib/dracut/modules.d/30ignition/x", "/usr/bin/afterburn"]
)
def test_ignition_sets_instances_up_too(path: str) -> None:
    for rule in ("aws.agent", "gcp.agent", "azure.agent"):
        assert world.found(RULES[rule], unprovisioned({})) != []
        assert world.found(RULES[rule], unprovisioned({path: b""})) == []


WAAGENT: Files = {"/usr/sbin/waagent": b""}


@pytest.mark.parametrize(
    ("conf", "version", "text"),
    [
        ("", "2.15.0", ""),
        ("Provisioning.Agent=auto\n", "2.15.0", ""),
        ("Provisioning.Agent=waagent # ours\n", "2.15.0", ""),
        ("Provisioning.Agent=cloud-init\n", "2.15.0", "cloud-init, which is not installed"),
        ("Provisioning.Agent=auto\nProvisioning.Agent=disabled\n", "2.15.0", "Agent=disabled"),
        ("Provisioning.Enabled=n\n", "2.15.0", ""),
        ("Provisioning.Enabled=n\n", "2.2.44", "Provisioning.Enabled=n"),
        ("Provisioning.Enabled=y\n", "2.2.44", ""),
    ],
)
def test_waagent_must_be_told_to_set_instances_up(conf: str, version: str, text: str) -> None:
    files: Files = {**WAAGENT, **unit("walinuxagent.service"), "/etc/waagent.conf": conf.encode()}
    path = "/usr/lib/python3/dist-packages/azurelinuxagent/common/version.py"
    files[path] = f"AGENT_VERSION = '{version}'\n".encode()
    told = world.found(RULES["azure.agent"], unprovisioned(files))
    assert [text in finding.evidence for finding in told] == ([True] if text else [])
    assert all(f.path == "/etc/waagent.conf" and f.line == conf.count("\n") for f in told)
    assert world.found(RULES["azure.agent"], World({**good(), **files})) == [], "cloud-init does it"


@pytest.mark.parametrize("name", ["walinuxagent.service", "waagent.service"])
@pytest.mark.parametrize("state", ["masked", "disabled"])
def test_waagent_must_start(name: str, state: str) -> None:
    files = {**WAAGENT, **unit(name, state)}
    (told,) = world.found(RULES["azure.agent"], unprovisioned(files))
    assert "neither waagent's unit nor cloud-init" in told.evidence


# -- cloud-init


def test_todays_units_and_arguments_that_turn_nothing_off_are_right() -> None:
    files = good()
    for name in ("cloud-init-main.service", "cloud-init-network.service"):
        files.update(unit(name))
    files[f"{UNITS}/cloud-init.target"] = b"[Unit]\n"
    files["/usr/lib/systemd/system-generators/cloud-init-generator"] = b"#!/bin/sh\n"
    arguments = b"ci.di.policy=search,notfound=enabled cloud-init=enabled dsx=1 console=tty0"
    grub = files["/boot/grub/grub.cfg"]
    assert isinstance(grub, bytes)
    files["/boot/grub/grub.cfg"] = grub.replace(b"console=tty0", arguments)
    assert [f.rule for f in findings(World(files))] == ["azure.rootdelay"]


# -- the network


def unit(name: str, state: str = "enabled") -> Files:
    found: Files = {f"{UNITS}/{name}": b"[Unit]\n"}
    if state == "enabled":
        found[f"{WANTS}/{name}"] = Link(f"{UNITS}/{name}")
    if state == "masked":
        found[f"/etc/systemd/system/{name}"] = Link("/dev/null")
    return found


NETWORKD, MANAGER, IFUPDOWN = (
    *("systemd-networkd.service", "NetworkManager.service", "networking.service"),
)


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({**unit(MANAGER), **unit(NETWORKD, "masked")}, ""),
        ({**unit(NETWORKD), **unit(MANAGER, "masked")}, ""),
        (unit("network.service"), "the service network sets the network up"),
        ({**unit(IFUPDOWN), **unit(NETWORKD, "disabled")}, "ifupdown sets the network up"),
        ({**unit(IFUPDOWN), "/usr/sbin/dhcpcd": b""}, ""),
        ({**unit(IFUPDOWN), **unit(NETWORKD)}, ""),
        (unit(NETWORKD, "disabled"), ""),
        (unit(NETWORKD, "masked"), "neither systemd-networkd"),
        ({**unit(NETWORKD), f"/etc/systemd/system/{NETWORKD}": b""}, "neither systemd-networkd"),
    ],
)
def test_what_sets_the_network_up_has_a_dhcp_client(more: Files, text: str) -> None:
    files = {**good(), **more}
    del files["/usr/sbin/dhclient"]
    told = world.found(RULES["network.dhcp-client"], World(files))
    assert [text in finding.evidence for finding in told] == ([True] if text else [])


@pytest.mark.parametrize(("starter", "silent"), [("/usr/sbin/netplan", True), ("/opt/x", False)])
def test_a_service_that_is_not_enabled_needs_somebody_who_starts_it(
    starter: str, silent: bool
) -> None:
    files = {**good(), **unit(NETWORKD, "disabled"), starter: b""}
    for path in ("/usr/sbin/dhclient", "/usr/bin/cloud-init"):
        del files[path]
    told = world.found(RULES["network.dhcp-client"], World(files))
    assert (told == []) is silent
    assert silent or "systemd-networkd.service is installed and not enabled" in told[0].evidence


# -- links


def test_a_merged_usr_is_followed() -> None:
    files = good()
    files["/usr/bin/sh"] = files.pop("/bin/sh")
    files["/bin"] = Link("usr/bin")
    assert World(files).arch() == "x86_64"


# -- the locale and the name server


def archive(*names: str) -> bytes:
    """glibc's archive of locales, as far as its names go (locarchive.h)."""
    text = b"".join(name.encode() + b"\0" for name in names)
    head = struct.pack("<14I", 0xDE020109, 0, 56, 0, 0, 56, len(text), len(text), *[0] * 6)
    return head + text + b"xx_XX.utf8\0"


@pytest.mark.parametrize(
    ("setting", "more"),
    [
        ("LANG=", {}),
        ("LANG=C.UTF-8\nLANGUAGE=de:en", {}),
        ("LANG='POSIX'\nLC_ALL=C", {}),
        ('LANG="de_DE.UTF-8"', {"/usr/lib/locale/locale-archive": archive("de_DE.utf8")}),
        ("LANG=de_DE.ISO-8859-1", {"/usr/lib/locale/locale-archive": archive("de_DE.iso88591")}),
        ("LANG=de_DE@euro", {"/usr/lib/locale/locale-archive": archive("C.utf8", "de_DE@euro")}),
        ("LANG=en_US.UTF-8", {"/usr/lib/locale/en_US.utf8/LC_CTYPE": b""}),
        ("LANG=en_US.UTF-8", {"/lib/ld-musl-x86_64.so.1": b""}),
    ],
)
def test_a_locale_that_is_there_is_none_of_lints_business(setting: str, more: Files) -> None:
    files = {**good(), "/etc/default/locale": setting.encode(), **more}
    assert world.found(RULES["locale.default"], World(files)) == []


def test_what_stands_behind_the_names_of_the_archive_is_no_locale() -> None:
    files = {**good(), "/etc/locale.conf": b"LANG=xx_XX.UTF-8\n"}
    files["/usr/lib/locale/locale-archive"] = archive("de_DE.utf8")
    (told,) = world.found(RULES["locale.default"], World(files))
    assert told.evidence == "LANG=xx_XX.UTF-8 is not in /usr/lib/locale"
    files["/usr/lib/locale/locale-archive"] = b"no archive".ljust(64)
    with pytest.raises(Unreadable, match="no archive of locales"):
        list(RULES["locale.default"].check(World(files)))


def test_one_file_under_both_names_is_told_once() -> None:
    files = {**good(), "/etc/locale.conf": b"LANG=de_DE.UTF-8\n"}
    files["/etc/default/locale"] = Link("../locale.conf")
    (told,) = world.found(RULES["locale.default"], World(files))
    assert told.path == "/etc/default/locale"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (
            "/etc/netplan/1.yaml",
            "nameservers:\n  addresses: [1.1.1.1]\nroutes: [{via: 10.0.0.1}]\n",
        ),
        ("/etc/network/interfaces", "iface lo inet loopback\n address 127.0.0.2\n"),
        ("/etc/network/interfaces", "iface br0 inet static\n address 10.0.2.15\n"),
        ("/etc/systemd/network/1.network", "[Match]\nName=wg0\n[Network]\nAddress=10.9.0.1/24\n"),
        (
            "/etc/systemd/network/1.network",
            "[Match]\nName=en*\n[Network]\nDHCP=yes\nDNS=10.0.0.2\n",
        ),
        ("/etc/sysconfig/network-scripts/ifcfg-lo", "DEVICE=lo\nIPADDR=127.0.0.1\n"),
    ],
)
def test_what_is_no_cards_own_address(path: str, text: str) -> None:
    assert world.found(RULES["network.address"], World({**good(), path: text.encode()})) == []


@pytest.mark.parametrize(
    ("content", "more"),
    [
        (b"", {}),
        (b"nameserver 9.9.9.9\nnameserver 2620:fe::fe\n", {}),
        (b"nameserver 169.254.169.253\nnameserver 168.63.129.16\n", {}),
        (b"nameserver\nnameserver nobody\noptions 10.0.2.3\n", {}),
        (b"nameserver 127.0.0.53\n", {"/usr/lib/systemd/systemd-resolved": b""}),
        (b"nameserver 127.0.0.1\n", {"/usr/sbin/unbound": b""}),
        (Link("../run/systemd/resolve/stub-resolv.conf"), {}),
        (Link("/srv/resolv"), {"/srv/resolv": b"nameserver 10.0.2.3\n"}),
    ],
)
def test_a_name_server_that_answers_anywhere_is_right(content: bytes | Link, more: Files) -> None:
    files = {**good(), "/etc/resolv.conf": content, **more}
    assert world.found(RULES["network.resolver"], World(files)) == []

"""From what was seen of a boot to a verdict."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from publisher.errors import ProofError
from publisher.proof.guest import Report
from publisher.proof.rehearse import Rehearsal, require_passed
from publisher.proof.rehearse.judge import again, another, claims, unproven
from publisher.proof.rehearse.verdict import Claim, Status
from tests.unit.rehearsal_world import BOOTED, FRESH, LOOK, SIZE, facts, seen

READY = Report(40.0, "ready", "POST /health")
KEY = Report(30.0, "key", "GET /key")


def lines(made: list[Claim]) -> dict[str, Claim]:
    return {claim.id: claim for claim in made}


def test_a_good_boot_proves_every_claim(tmp_path: Path) -> None:
    made = claims(seen(tmp_path, known=facts(), reports=[KEY, READY]), SIZE)
    assert {claim.status for claim in made} == {Status.PROVED}
    assert [claim.id for claim in made] == [
        *("firmware", "kernel", "root", "network", "datasource", "login", "user-data"),
        *("hostname", "growth", "ready", "units", "console", "shutdown"),
    ]
    assert all(claim.evidence for claim in made)


@pytest.mark.parametrize(
    ("changed", "claim", "evidence"),
    [
        ({"datasource": "None"}, "datasource", "cloud-init chose None, not Nimbus"),
        ({"datasource": "", "disabled": True}, "datasource", "cloud-init is disabled"),
        ({"done": ""}, "user-data", "write_files of the user data ran, runcmd did not"),
        ({"begun": "", "done": ""}, "user-data", "runcmd left no mark: nobody asked for them"),
        ({"begun": "", "done": "", "errors": ("boom",)}, "user-data", "boom"),
        ({"hostname": "localhost"}, "hostname", "it is localhost"),
        ({"root_end": SIZE, "filesystem": SIZE - 1}, "growth", "the partition /dev/nvme0n1p1"),
        ({"filesystem": SIZE - 1}, "growth", "the file system did not grow"),
        ({"failed": ("x.service",), "system": "degraded"}, "units", "x.service"),
        ({"system": "starting"}, "units", "systemd still says starting"),
    ],
)
def test_each_fact_that_is_wrong_fails_its_own_claim(
    tmp_path: Path, changed: dict[str, object], claim: str, evidence: str
) -> None:
    made = claims(seen(tmp_path, known=facts(**changed), reports=[READY]), SIZE)
    assert [c.id for c in made if c.status is Status.FAILED] == [claim]
    assert evidence in lines(made)[claim].evidence


@pytest.mark.parametrize(
    ("console", "failed"),
    [
        ("", "firmware"),
        ("GRUB \n", "kernel"),
        ("GRUB \n[    0.000000] Linux version 6.1\n", "root"),
        (BOOTED, "network"),
    ],
)
def test_a_boot_that_ends_early_fails_where_it_stopped(
    tmp_path: Path, console: str, failed: str
) -> None:
    made = claims(seen(tmp_path, console=console, error="no sign of life for 150 s"), SIZE)
    (claim,) = [c for c in made if c.status is Status.FAILED]
    assert claim.id == failed
    assert "no sign of life" in claim.evidence
    assert "console said" not in claim.evidence
    later = [c.status for c in made[made.index(claim) + 1 :] if c.id != "console"]
    assert set(later) == {Status.UNREACHED}


def test_who_asked_for_the_key_had_a_network_whatever_the_console_says(tmp_path: Path) -> None:
    made = lines(
        claims(seen(tmp_path, console="", error="no login after 600 s", reports=[KEY]), SIZE)
    )
    assert [made[i].status for i in ("firmware", "kernel", "root", "network")] == (
        [Status.PROVED] * 4
    )
    assert made["login"].status is Status.FAILED


def test_an_ssh_server_that_refuses_proves_the_network(tmp_path: Path) -> None:
    refused = seen(tmp_path, error="sshd answers but refuses the login: Permission denied")
    refused.answered = True
    made = lines(claims(refused, SIZE))
    assert made["network"].status is Status.PROVED
    assert made["login"].status is Status.FAILED


def test_the_console_tells_which_datasource_was_chosen_without_a_login(tmp_path: Path) -> None:
    said = BOOTED + "Cloud-init v. 22.4.2 finished at now. Datasource DataSourceNone.  Up 9 s\n"
    made = lines(claims(seen(tmp_path, console=said, error="no ssh", reports=[KEY]), SIZE))
    assert made["datasource"].status is Status.FAILED
    assert "chose None," in made["datasource"].evidence
    right = said.replace("DataSourceNone.", f"DataSource{LOOK.datasource}Local.")
    made = lines(claims(seen(tmp_path, console=right, error="no ssh", reports=[KEY]), SIZE))
    assert made["datasource"].status is Status.PROVED
    assert made["login"].status is Status.FAILED


def test_an_image_without_cloud_init_proves_what_it_can(tmp_path: Path) -> None:
    known = facts(
        cloud_init=False, datasource="", begun="", done="", agents=("stratus-agent.service",)
    )
    made = lines(claims(seen(tmp_path, known=known, reports=[READY]), SIZE))
    assert made["datasource"].status is Status.UNPROVABLE
    assert "stratus-agent.service" in made["datasource"].evidence
    assert made["user-data"].status is Status.UNPROVABLE
    assert made["login"].status is Status.PROVED


def test_secure_boot_and_a_tpm_are_seen_from_inside(tmp_path: Path) -> None:
    look = dataclasses.replace(LOOK, boot="uefi-secure", tpm=True)
    for known, status in (
        (facts(secure=True, tpm="2"), Status.PROVED),
        (facts(secure=False, tpm="2"), Status.FAILED),
        (facts(secure=True), Status.FAILED),
    ):
        made = lines(claims(seen(tmp_path, known=known, look=look, reports=[READY]), SIZE))
        assert made["firmware"].status is status


@pytest.mark.parametrize(
    ("reports", "evidence"),
    [
        ([KEY], "told the cloud nothing"),
        ([Report(9, "not-ready", "no DHCP")], "the guest told the cloud: no DHCP"),
    ],
)
def test_an_agent_that_does_not_report_fails(
    tmp_path: Path, reports: list[Report], evidence: str
) -> None:
    made = lines(claims(seen(tmp_path, known=facts(), reports=reports), SIZE))
    assert made["ready"].status is Status.FAILED
    assert evidence in made["ready"].evidence


def test_an_address_that_dhcp_did_not_give_is_not_called_so(tmp_path: Path) -> None:
    for address, by_dhcp in (("ens2 10.77.0.15/24", True), ("ens2 10.77.0.150/24", False)):
        made = lines(claims(seen(tmp_path, known=facts(address=address), reports=[READY]), SIZE))
        assert made["network"].status is Status.PROVED
        assert ("by DHCP" in made["network"].evidence) is by_dhcp


def test_a_logical_volume_is_nobodys_to_grow(tmp_path: Path) -> None:
    on_volume = facts(root="/dev/mapper/rootvg-rootlv", root_end=0, filesystem=SIZE - 1)
    made = lines(claims(seen(tmp_path, known=on_volume, reports=[READY]), SIZE))
    assert made["growth"].status is Status.UNPROVABLE
    assert "/dev/mapper/rootvg-rootlv" in made["growth"].evidence


def blind(tmp_path: Path, console: str, error: str) -> list[Claim]:
    boot = seen(tmp_path, console=console, error=error)
    boot.blind = True
    return claims(boot, SIZE)


@pytest.mark.parametrize("error", ["no sign of life for 240 s", "it asks for no login after 900 s"])
def test_a_guest_that_waits_for_a_service_it_can_not_find_has_not_failed(
    tmp_path: Path, error: str
) -> None:
    made = blind(tmp_path, BOOTED, error)
    assert [c.status for c in made[:3]] == [Status.PROVED] * 3
    assert {c.status for c in made[3:] if c.id != "console"} == {Status.UNPROVABLE}
    assert all("user namespaces" in c.evidence for c in made if c.status is Status.UNPROVABLE)


@pytest.mark.parametrize(
    ("console", "error", "failed"),
    [
        ("GRUB \n[    0.000000] Linux version 6.1\n", "no sign of life for 240 s", "root"),
        (BOOTED, "it restarted", "network"),
        (BOOTED + "You are in emergency mode.\n", "no sign of life for 240 s", "network"),
    ],
)
def test_what_no_missing_service_explains_fails_a_blind_guest_too(
    tmp_path: Path, console: str, error: str, failed: str
) -> None:
    made = blind(tmp_path, console, error)
    assert [c.id for c in made if c.status is Status.FAILED] == [failed]


@pytest.mark.parametrize(
    ("cmdline", "status"),
    [("console=ttyS0,115200", Status.UNPROVABLE), ("console=tty0", Status.FAILED)],
)
def test_a_port_that_qemu_has_not_is_no_failure(
    tmp_path: Path, cmdline: str, status: Status
) -> None:
    look = dataclasses.replace(LOOK, console="ttyS0")
    boot = seen(tmp_path, console="GRUB \n", known=facts(cmdline=cmdline), look=look)
    made = lines(claims(boot, SIZE))
    assert made["console"].status is status


@pytest.mark.parametrize("root", ["composefs", "overlay", "rpool/ROOT", ""])
def test_a_root_that_is_no_device_does_not_show_whether_it_grew(tmp_path: Path, root: str) -> None:
    known = facts(root=root, root_end=0, root_size=0, filesystem=20 * 2**20)
    made = lines(claims(seen(tmp_path, known=known, reports=[READY]), SIZE))
    assert made["growth"].status is Status.UNPROVABLE
    assert (root or "of no name") in made["growth"].evidence
    grown = dataclasses.replace(known, filesystem=2 * SIZE)
    made = lines(claims(seen(tmp_path, known=grown, reports=[READY]), SIZE))
    assert made["growth"].status is Status.PROVED


def test_a_root_with_another_partition_behind_it_has_not_grown(tmp_path: Path) -> None:
    known = facts(root_end=SIZE // 2, filesystem=SIZE // 2, behind="nvme0n1p2")
    made = lines(claims(seen(tmp_path, known=known, reports=[READY]), SIZE))
    assert made["growth"].status is Status.FAILED
    assert "nvme0n1p2 is behind it" in made["growth"].evidence


def test_a_console_elsewhere_and_a_deaf_power_button_fail(tmp_path: Path) -> None:
    made = lines(
        claims(seen(tmp_path, console="GRUB \n", known=facts(), reports=[READY], down=None), SIZE)
    )
    assert made["console"].status is Status.FAILED
    assert "tty0" in made["console"].evidence
    assert made["shutdown"].status is Status.FAILED


def test_a_machine_that_was_cut_off_has_no_line_of_the_power_button(tmp_path: Path) -> None:
    boot = seen(tmp_path, known=facts(), reports=[READY], pressed=False)
    assert "shutdown" not in lines(claims(boot, SIZE))


def test_a_console_is_read_again_when_it_has_grown(tmp_path: Path) -> None:
    boot = seen(tmp_path, known=facts())
    assert "Power down" not in boot.printed
    with boot.console.open("a") as console:
        console.write("reboot: Power down\r\n")
    assert "Power down" in boot.printed


def test_another_instance_is_set_up_anew(tmp_path: Path) -> None:
    first = seen(tmp_path, known=facts())
    fresh = facts(**FRESH)
    claim = another(seen(tmp_path, known=fresh, number=2), first)
    assert claim.status is Status.PROVED
    assert "host keys" in claim.evidence


@pytest.mark.parametrize(
    ("changed", "evidence"),
    [
        ({"host_keys": ("ssh-ed25519 A1",)}, "two machines have the same ssh host keys"),
        ({"machine_id": "0123"}, "two machines have the same machine id, 0123"),
        ({"begun": "token-1"}, "user data of the second machine did not run"),
        ({"instance": "n-1"}, "cloud-init takes both machines for n-1"),
        ({"hostname": "rehearsal-1"}, "the second machine's host name is rehearsal-1"),
    ],
)
def test_what_two_instances_share_is_named(
    tmp_path: Path, changed: dict[str, object], evidence: str
) -> None:
    second = seen(tmp_path, known=facts(**{**FRESH, **changed}), number=2)
    claim = another(second, seen(tmp_path, known=facts()))
    assert claim.status is Status.FAILED
    assert claim.evidence == evidence


def test_a_machine_id_that_is_older_than_the_first_boot_was_sealed_in(tmp_path: Path) -> None:
    fresh = facts(**FRESH)
    claim = another(
        seen(tmp_path, known=fresh, number=2), seen(tmp_path, known=facts(machine_id_age=3600))
    )
    assert claim.status is Status.FAILED
    assert "/etc/machine-id" in claim.evidence


def test_a_used_disk_is_set_up_anew(tmp_path: Path) -> None:
    look = dataclasses.replace(LOOK, tpm=True)
    second = seen(tmp_path, known=facts(**FRESH), number=2, look=look)
    claim = again(second, seen(tmp_path, known=facts()))
    assert claim.status is Status.PROVED
    assert "new host name, host keys, user data" in claim.evidence
    assert claim.evidence.endswith("without its TPM")


KEPT: tuple[tuple[dict[str, object], str], ...] = (
    ({"host_keys": ("ssh-ed25519 A1",)}, "ssh host keys are still those of the instance before"),
    ({"begun": "token-1"}, "user data did not run again"),
    ({"instance": "n-1"}, "cloud-init still takes itself for n-1"),
    ({"hostname": "rehearsal-1"}, "the host name is still rehearsal-1"),
)


@pytest.mark.parametrize(("changed", "evidence"), KEPT)
def test_what_a_used_disk_keeps_of_the_instance_before_is_named(
    tmp_path: Path, changed: dict[str, object], evidence: str
) -> None:
    # a used disk keeps its machine id
    second = seen(tmp_path, known=facts(**{**FRESH, "machine_id": "0123", **changed}), number=2)
    claim = again(second, seen(tmp_path, known=facts()))
    assert claim.status is Status.FAILED
    assert claim.evidence == evidence


def test_an_image_without_cloud_init_may_be_meant_for_new_machines_only(tmp_path: Path) -> None:
    same = facts(cloud_init=False, hostname="rehearsal-1")
    claim = again(seen(tmp_path, known=same, number=2), seen(tmp_path, known=facts()))
    assert claim.status is Status.UNPROVABLE
    assert "the host name is still rehearsal-1" in claim.evidence


def test_a_used_disk_that_does_not_boot_fails(tmp_path: Path) -> None:
    second = seen(tmp_path, error="the guest failed: it powered off", number=2)
    claim = again(second, seen(tmp_path, known=facts()))
    assert claim.status is Status.FAILED
    assert "it powered off" in claim.evidence


def test_a_record_of_an_earlier_version_is_still_read() -> None:
    assert Status("proved by lint only") is Status.LINT
    with pytest.raises(ValueError, match="no status"):
        Status("no status")


def rehearsal(*made: Claim) -> Rehearsal:
    return Rehearsal(
        "nimbus", LOOK.title, made, 80.5, {"kernel": 9.5}, (50.0, 30.5), (Path("/logs/1.log"),)
    )


def test_a_verdict_is_json_both_ways() -> None:
    verdict = rehearsal(Claim("root", "root", Status.FAILED, "e", "c", "f"), *unproven([LOOK]))
    assert Rehearsal.from_json(json.loads(json.dumps(verdict.to_json()))) == verdict


def test_what_only_lint_can_tell_is_no_failure() -> None:
    verdict = rehearsal(*unproven([LOOK, LOOK]))
    assert [claim.evidence for claim in verdict.claims] == ["the driver stratus"]
    assert verdict.passed
    require_passed([verdict])


def test_a_failure_is_one_error_with_cause_fix_and_log() -> None:
    verdict = rehearsal(Claim("root", "root found", Status.FAILED, "evidence", "cause", "fix"))
    with pytest.raises(ProofError, match=r"Nimbus n1, UEFI.*root found: cause") as caught:
        require_passed([verdict])
    assert caught.value.hint == "fix; console logs: /logs/1.log"

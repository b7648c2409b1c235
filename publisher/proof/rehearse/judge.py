"""From what was seen of a boot to the lines of a verdict."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from publisher.model import GIB
from publisher.proof.guest import Look
from publisher.proof.rehearse.boot import DOWN, READY, Seen
from publisher.proof.rehearse.observe import Facts
from publisher.proof.rehearse.verdict import Claim, Status
from publisher.vm.console import Phase

Answer: TypeAlias = "tuple[Status, str] | None"
"""Status and evidence; None where the boot did not come so far."""

_FINISHED = re.compile(r"Cloud-init v\. \S+ finished at .* Datasource (\S+)")
_KERNEL_SPOKE = re.compile(r"Linux version \d|^\[ *\d+\.\d{6}\] ", re.MULTILINE)
BLIND = "without user namespaces the metadata service's name does not resolve"
_WAITS = ("no sign of life for", "it asks for no login after")
"""How the error begins of a boot that goes on without coming to its end."""
_NO_AGENT = "no cloud-init is in the image"


def _proved(evidence: str) -> Answer:
    return Status.PROVED, evidence


def _failed(evidence: str) -> Answer:
    return Status.FAILED, evidence


def _phase(seen: Seen, phase: Phase, evidence: str) -> Answer:
    """Proved once the boot came to a phase; failed where it ended one before it."""
    if seen.phase >= phase:
        at = seen.phases.get(phase.title)
        return _proved(f"{evidence} after {at:.0f} s" if at else evidence)
    ended = seen.phase == phase - 1 and seen.error is not None
    return _failed(_first_line(seen)) if ended else None


def _first_line(seen: Seen) -> str:
    return seen.error.message.partition("; its console")[0] if seen.error else ""


def firmware(seen: Seen) -> Answer:
    look, facts = seen.look, seen.facts
    name = "BIOS" if look.boot == "bios" else "UEFI"
    answer = _phase(seen, Phase.BOOTLOADER, f"{name} started the boot loader")
    if facts is None or answer is None:
        return answer
    evidence = answer[1]
    if look.boot == "uefi-secure":
        if not facts.secure:
            return _failed("the guest's firmware says that Secure Boot is off")
        evidence += ", Secure Boot is enforced"
    if look.tpm:
        if facts.tpm != "2":
            return _failed("the guest's kernel sees no TPM 2.0 (/sys/class/tpm/tpm0)")
        evidence += ", the kernel sees the TPM 2.0"
    return _proved(evidence)


def kernel(seen: Seen) -> Answer:
    answer = _phase(seen, Phase.KERNEL, "the kernel ran")
    return _proved(f"{seen.facts.kernel}, {seen.facts.name}") if seen.facts else answer


def root(seen: Seen) -> Answer:
    if seen.facts:
        return _proved(f"{seen.facts.root} on {seen.look.disk}")
    return _phase(seen, Phase.INIT, f"init started from {seen.look.disk}")


def network(seen: Seen) -> Answer:
    if seen.facts and f" {seen.instance.address}/" in seen.facts.address:
        return _proved(f"{seen.facts.address} by DHCP on {seen.look.nic}")
    if seen.reports:
        return _proved(f"{seen.reports[0].text} after {seen.reports[0].seconds:.0f} s")
    if seen.facts or seen.answered:
        return _proved("its ssh server answers")
    if seen.phase >= Phase.INIT and seen.error is not None:
        return _failed(f"nothing came from the guest's network: {_first_line(seen)}")
    return None


def datasource(seen: Seen) -> Answer:
    wanted, facts = seen.look.datasource, seen.facts
    if facts and not facts.cloud_init:
        agents = ", ".join(facts.agents) or "the guest"
        return Status.UNPROVABLE, f"{_NO_AGENT}; {agents} applied the metadata"
    found = facts.datasource if facts else ""
    if not found and (said := _FINISHED.search(seen.printed)):
        found = said[1].rstrip(".").removeprefix("DataSource").removesuffix("Local")
    if found:
        text = f"cloud-init chose {found}"
        return _proved(text) if found == wanted else _failed(f"{text}, not {wanted}")
    if facts:
        return _failed("cloud-init is disabled" if facts.disabled else "cloud-init chose none")
    return None


def ran_user_data(seen: Seen) -> Answer:
    if seen.facts is None:
        return None
    if not seen.facts.cloud_init:
        return Status.UNPROVABLE, _NO_AGENT
    asked = seen.report("user-data")
    if seen.facts.done == seen.token:
        return _proved("runcmd left its mark" + (f", fetched by {asked.text}" if asked else ""))
    if seen.facts.begun == seen.token:
        return _failed("write_files of the user data ran, runcmd did not")
    why = "; ".join(seen.facts.errors) or (
        "they were fetched" if asked else "nobody asked for them"
    )
    return _failed(f"runcmd left no mark: {why}")


def login(seen: Seen) -> Answer:
    if seen.facts:
        at = seen.phases.get(Phase.READY.title, 0)
        return _proved(f"{seen.instance.user} logged in with its key after {at:.0f} s")
    return _failed(_first_line(seen)) if seen.error else None


def hostname(seen: Seen) -> Answer:
    if seen.facts is None:
        return None
    short = seen.facts.hostname.partition(".")[0]
    if short == seen.instance.hostname:
        return _proved(short)
    return _failed(f"it is {seen.facts.hostname}, and the metadata said {seen.instance.hostname}")


def growth(seen: Seen, size: int) -> Answer:
    """`size` is the image's own, in bytes."""
    facts = seen.facts
    if facts is None:
        return None
    is_large = facts.root_end > size or facts.filesystem > size
    text = f"{facts.filesystem / GIB:.1f} GiB, the image has {size / GIB:.1f} GiB"
    if is_large and facts.filesystem >= 0.85 * facts.root_size:
        return _proved(text)
    if facts.root.startswith(("/dev/mapper/", "/dev/dm-")):
        # cloud-init grows partitions only; whether that is wanted is lint's disk.growth
        return Status.UNPROVABLE, f"{facts.root} is a volume that nothing grows by itself: {text}"
    if not facts.root.startswith("/dev/"):
        named = facts.root or "of no name"
        return Status.UNPROVABLE, f"the root ({named}) is no device, and what is below it not seen"
    if is_large:
        return _failed(f"the file system did not grow: {text}")
    behind = f"; {facts.behind} is behind it" if facts.behind else ""
    return _failed(f"the partition {facts.root} did not grow: {text}{behind}")


def ready(seen: Seen) -> Answer:
    if seen.facts is None and seen.report("ready", "not-ready") is None:
        return None
    told = [r for r in seen.reports if r.kind in ("ready", "not-ready")]
    if told and told[-1].kind == "ready":
        return _proved(f"{told[-1].text} after {told[-1].seconds:.0f} s")
    if told:
        return _failed(f"the guest told the cloud: {told[-1].text}")
    return _failed(f"the guest told the cloud nothing within {READY:.0f} s after the login")


def units(seen: Seen) -> Answer:
    if seen.facts is None:
        return None
    if not seen.facts.system:
        return Status.UNPROVABLE, "the guest has no systemd"
    if seen.facts.failed:
        return _failed(", ".join(seen.facts.failed))
    if seen.facts.system in ("running", "degraded"):
        return _proved(f"systemd says {seen.facts.system}")
    return _failed(f"systemd still says {seen.facts.system}")


def console(seen: Seen) -> Answer:
    spoke = len(seen.printed.splitlines())
    if _KERNEL_SPOKE.search(seen.printed) or seen.tracker.prompted:
        return _proved(f"{spoke} lines on the serial port")
    if seen.facts is None:
        return None
    own = seen.look.console
    if own and re.search(rf"\bconsole={own}\b", seen.facts.cmdline):
        why = f"the kernel writes to {own}, which is the cloud's port and none of QEMU's machine"
        return Status.UNPROVABLE, why
    has = ", ".join(seen.facts.consoles) or "none"
    return _failed(f"the kernel wrote nothing to the serial port; its consoles: {has}")


def shutdown(seen: Seen) -> Answer:
    if not seen.pressed:
        return None
    if seen.down is not None:
        return _proved(f"off {seen.down:.0f} s after the ACPI power button")
    return _failed(f"still up {DOWN:.0f} s after the ACPI power button")


@dataclass(frozen=True, slots=True)
class _Line:
    id: str
    title: str
    judge: Callable[[Seen], Answer]


_BEFORE = (
    _Line("firmware", "firmware reached the boot loader", firmware),
    _Line("kernel", "kernel started", kernel),
    _Line("root", "root file system found", root),
    _Line("network", "network is up", network),
    _Line("datasource", "the right datasource was chosen", datasource),
    _Line("login", "the SSH key was applied, a login works", login),
    _Line("user-data", "user data ran", ran_user_data),
    _Line("hostname", "the host name was applied", hostname),
)
_AFTER = (
    _Line("units", "no unit failed", units),
    _Line("console", "the console reaches the serial port", console),
)
_END = _Line("shutdown", "the power button shuts down cleanly", shutdown)


def claims(seen: Seen, size: int, checked: Sequence[Claim] = ()) -> list[Claim]:
    """The lines of the first boot; `size` is the image's own, in bytes, `checked` the
    lines of the user's own checks in it. What a boot that ended early did not show is
    not reached. A boot that was cut off has no line of the power button."""
    lines = [*_BEFORE, _Line("growth", "root file system grew", lambda s: growth(s, size))]
    if seen.look.reports_ready:
        lines.append(_Line("ready", "the guest reported ready", ready))
    lines += _AFTER if seen.error is None and not seen.pressed else (*_AFTER, _END)
    judged = [_claim(line, line.judge(seen)) for line in lines]
    if seen.error is not None:
        told = any(claim.status is Status.FAILED for claim in checked)
        judged = judged if told else _first_failure(judged, seen)
    if not unseen(seen):
        return judged
    open_ends = (Status.UNREACHED, Status.FAILED) if seen.error else (Status.UNREACHED,)
    return [
        replace(claim, status=Status.UNPROVABLE, evidence=BLIND)
        if claim.status in open_ends
        else claim
        for claim in judged
    ]


def unseen(seen: Seen) -> bool:
    """Whether a boot left out what it did because the guest found no metadata service:
    it asks for a login in the end, or still waits for the service without a word."""
    if seen.error is None or not seen.blind:
        return seen.blind
    waits = seen.phase >= Phase.NETWORK and not seen.tracker.fatal
    return waits and any(words in seen.error.message for words in _WAITS)


def _first_failure(judged: list[Claim], seen: Seen) -> list[Claim]:
    """The lines of a boot that ended early: what broke first is to blame, and what
    would have come later was not reached."""
    failed = [n for n, claim in enumerate(judged) if claim.status is Status.FAILED]
    missing = [n for n, claim in enumerate(judged) if claim.status is Status.UNREACHED]
    for number in failed[1:]:
        judged[number] = replace(judged[number], status=Status.UNREACHED, evidence="")
    if not failed:
        at = missing[0] if missing else len(judged) - 1
        judged[at] = replace(judged[at], status=Status.FAILED, evidence=_first_line(seen))
    return judged


def shut_down(seen: Seen) -> Claim:
    """The line of the power button, of another instance than the first one, which may be
    of another kind, too."""
    claim = _claim(_END, _END.judge(seen))
    return replace(claim, evidence=f"{claim.evidence} ({seen.look.title})")


def _claim(line: _Line, answer: Answer) -> Claim:
    status, evidence = answer or (Status.UNREACHED, "")
    return Claim(line.id, line.title, status, evidence)


def _anew(look: Look) -> str:
    return f"a new instance is set up anew ({look.title})"


def unreached(look: Look, why: str = "") -> Claim:
    """The line of another instance that was not booted."""
    return Claim("identity", _anew(look), Status.UNREACHED, why)


def left_out(looks: Sequence[Look]) -> list[Claim]:
    """The lines of kinds of machines on which nobody wanted a boot."""
    return [unreached(look, "left out: second_boot is false") for look in looks]


def another(seen: Seen, first: Seen) -> Claim:
    """The line of a boot of the same disk as another instance than the first one."""
    line = "identity", _anew(seen.look)
    if seen.facts is None or first.facts is None:
        return _unseen(line, seen)
    wrong = [*_sealed_in(seen.facts, first.facts), *_same(seen, first.facts, _OF_TWINS)]
    if wrong:
        return Claim(*line, Status.FAILED, "; ".join(wrong))
    shown = ["host name", "machine id", "host keys", *_user_data(seen.facts)]
    return Claim(*line, Status.PROVED, f"{', '.join(shown)} of its own {_after(seen)}")


_AGAIN = "rerun", "first-boot work runs again on a used disk"


def not_again(why: str) -> Claim:
    """The line of a used disk that was not booted."""
    return Claim(*_AGAIN, Status.UNREACHED, why)


def again(seen: Seen, first: Seen) -> Claim:
    """The line of a boot of the first instance's own disk as another one."""
    if seen.facts is None or first.facts is None:
        return _unseen(_AGAIN, seen)
    kept = list(_same(seen, first.facts, _OF_A_USED_DISK))
    if not kept:
        shown = ["host name", "host keys", *_user_data(seen.facts)]
        return Claim(*_AGAIN, Status.PROVED, f"new {', '.join(shown)} {_after(seen)}")
    if seen.facts.cloud_init:
        return Claim(*_AGAIN, Status.FAILED, "; ".join(kept))
    # such an image may be meant for new machines only
    return Claim(*_AGAIN, Status.UNPROVABLE, f"{_NO_AGENT}: {'; '.join(kept)}")


def _unseen(line: tuple[str, str], seen: Seen) -> Claim:
    if seen.blind and seen.error is None:
        return Claim(*line, Status.UNPROVABLE, BLIND)
    return Claim(*line, Status.FAILED, _first_line(seen))


def _user_data(facts: Facts) -> list[str]:
    return ["user data"] if facts.cloud_init else []


def _after(seen: Seen) -> str:
    at = seen.phases.get(Phase.READY.title, 0)
    return f"after {at:.0f} s" + (", without its TPM" if seen.look.tpm else "")


def _sealed_in(facts: Facts, first: Facts) -> Iterator[str]:
    if first.machine_id and first.machine_id_age > 0:
        yield "/etc/machine-id is older than the first boot: all machines would share it"
    elif first.machine_id and facts.machine_id == first.machine_id:
        yield f"two machines have the same machine id, {facts.machine_id}"


_OF_TWINS = {
    "instance": "cloud-init takes both machines for {}",
    "user data": "user data of the second machine did not run",
    "host name": "the second machine's host name is {}",
    "host keys": "two machines have the same ssh host keys",
}
_OF_A_USED_DISK = {
    "instance": "cloud-init still takes itself for {}",
    "user data": "user data did not run again",
    "host name": "the host name is still {}",
    "host keys": "ssh host keys are still those of the instance before",
}


def _same(seen: Seen, first: Facts, words: Mapping[str, str]) -> Iterator[str]:
    """What an instance has of the first one that it should have made for itself."""
    facts = seen.facts
    assert facts is not None
    if facts.cloud_init:
        if facts.instance == first.instance:
            yield words["instance"].format(first.instance)
        if facts.begun != seen.token:
            yield words["user data"]
    if facts.hostname.partition(".")[0] != seen.instance.hostname:
        yield words["host name"].format(facts.hostname)
    if set(facts.host_keys) & set(first.host_keys):
        yield words["host keys"]


def unproven(looks: Sequence[Look]) -> list[Claim]:
    """What no boot under QEMU shows."""
    drivers = dict.fromkeys(text for look in looks for text in look.unproven)
    others = dict.fromkeys(text for look in looks for text in look.unshown)
    return [
        *(Claim("hardware", "drivers", Status.LINT, text) for text in drivers),
        *(Claim("hardware", "the machine", Status.UNPROVABLE, text) for text in others),
    ]


def without_ipv6(looks: Sequence[Look], refusal: str) -> list[Claim]:
    """What a kernel without IPv6 leaves open; `refusal` is what it said, empty if it has it."""
    if not refusal or not any(":" in address for look in looks for address in look.addresses):
        return []
    title = "the metadata service's IPv6 address"
    return [Claim("ipv6", title, Status.UNPROVABLE, refusal)]


def limits(looks: Sequence[Look], refusal: str) -> list[Claim]:
    """What the second best network leaves open; `refusal` is why there is no better."""
    open_ends = ["the kernel's own isolation (QEMU's restrict=on stands in for it)"]
    if any(":" in address for look in looks for address in look.addresses):
        open_ends.append("the metadata service's IPv6 address")
    if any(look.names for look in looks):
        open_ends.append("the metadata service's name, and so all that comes from it")
    text = f"{', '.join(open_ends)} ({refusal})"
    return [Claim("isolation", "the cloud's network", Status.UNPROVABLE, text)]

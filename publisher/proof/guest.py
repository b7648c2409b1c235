"""How a machine looks from inside one cloud: what a provider tells the proofs."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, runtime_checkable

from publisher.model import Noun, Spec
from publisher.provider import Options
from publisher.vm.board import Controller as Controller

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from publisher.proof.inspect.inspection import Inspection as Inspection
    from publisher.proof.rules import Rule

BootMode: TypeAlias = Literal["bios", "uefi", "uefi-secure"]


@dataclass(frozen=True, slots=True)
class Look(Noun):
    """One kind of machine of the cloud, as near as QEMU comes to it.

    `smbios` are values of QEMU's -smbios option, in which {instance} stands for
    the instance's id and {uuid} for the machine's (see `smbios` below), and commas
    within a value are doubled. `addresses` (IPv4 and IPv6) and `names`
    (host name ▶ address) exist in the machine's network and nothing else does.
    `cdrom` says that `Service.cdrom` is to be attached. `reports_ready` says
    that the guest tells the cloud when it is up. `stand_ins` are the drivers of QEMU's
    devices that stand in for others, each with the cloud's own (virtio_net ▶ ena);
    `console` is the cloud's serial port where QEMU's has another name. `unproven` names the devices
    and drivers that QEMU can't show, which only lint can judge; `unshown` what
    neither shows.
    """

    title: str
    """The cloud, the machine type, and what else tells looks apart: "EC2 t3.micro, UEFI"."""
    boot: BootMode
    disk: Controller
    smbios: tuple[str, ...]
    datasource: str
    """cloud-init's name for the cloud: Ec2, GCE, Azure."""
    agents: tuple[str, ...] = ()
    """systemd's units of the cloud's own agents, which may do cloud-init's work."""
    nic: str = "virtio-net-pci"
    tpm: bool = False
    cdrom: bool = False
    reports_ready: bool = False
    addresses: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    stand_ins: Mapping[str, str] = field(default_factory=dict)
    console: str = ""
    unproven: tuple[str, ...] = ()
    unshown: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """The machine type, as `title` names it."""
        return self.title.partition(",")[0].split()[-1]


@dataclass(frozen=True, slots=True)
class Instance(Noun):
    """The machine of one boot: what its owner would have given the cloud.

    `seed` is 32 hex digits, from which the provider derives its own kind of
    instance id; another seed is another instance. `public_key` is in OpenSSH's
    form. `user_data` is cloud-init's. `address` is what the machine's DHCP server
    gives it, in a network of 24 bits; QEMU's user network gives the default.
    """

    seed: str
    hostname: str
    user: str
    public_key: str
    user_data: str = ""
    address: str = "10.77.0.15"


ReportKind: TypeAlias = Literal[
    "ready", "not-ready", "user-data", "key", "token", "metadata", "refused", "agent"
]


@dataclass(frozen=True, slots=True)
class Report(Noun):
    """Something that the guest asked or told the metadata service. `seconds` since
    the service was made; `kind` is "ready" or "not-ready" (what the guest says of
    itself), "user-data", "key", "token", "metadata", "refused" or "agent" (what an
    agent tells); `text` is the request (method, path) or the guest's words."""

    seconds: float
    kind: ReportKind
    text: str


class Diary:
    """What a service keeps of its guest; thread-safe. A guest that asks on and on
    fills neither memory nor the verdict: of each kind the first `MOST` are kept,
    each cut at `LONGEST`."""

    MOST = 1_000
    LONGEST = 500

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._born = time.monotonic()
        self._reports: list[Report] = []
        self._kinds: Counter[ReportKind] = Counter()

    def note(self, kind: ReportKind, text: str) -> None:
        seconds = round(time.monotonic() - self._born, 3)
        with self._lock:
            self._kinds[kind] += 1
            if self._kinds[kind] <= self.MOST:
                self._reports.append(Report(seconds, kind, text[: self.LONGEST]))

    def reports(self) -> Sequence[Report]:
        with self._lock:
            return tuple(self._reports)


class Service(Protocol):
    """The cloud's metadata service for one instance; thread-safe."""

    @property
    def instance_id(self) -> str:
        """As cloud-init names it; what {instance} in `Look.smbios` stands for."""

    @property
    def uuid(self) -> str:
        """The machine's UUID as Linux shows it; what {uuid} in `Look.smbios` stands for."""

    @property
    def mac(self) -> str:
        """The address that the machine's network card must have, with colons: the
        metadata names it, and guests configure no other card."""

    @property
    def endpoints(self) -> Mapping[tuple[str, int], WSGIApplication]:
        """What listens at which (address, port) of the machine's network."""

    @property
    def names(self) -> Mapping[str, str]:
        """What the cloud's name server knows of this machine besides `Look.names`: host
        name ▶ address."""

    @property
    def cdrom(self) -> Mapping[str, bytes]:
        """The files of the CD that the cloud attaches; empty without one."""

    def reports(self) -> Sequence[Report]: ...


@dataclass(frozen=True, slots=True)
class Ids:
    """What a `Service` says of its machine; derived from the instance's seed."""

    instance_id: str
    uuid: str
    mac: str


def derived(seed: str, purpose: str) -> bytes:
    """32 bytes that look random, for the ids of the instance with that seed."""
    return hashlib.sha256(f"{seed}/{purpose}".encode()).digest()


class InstanceService:
    """The part of a `Service` that is alike in all clouds: ids, a diary, no names, no CD."""

    def __init__(self, ids: Ids) -> None:
        self._ids = ids
        self._diary = Diary()

    @property
    def instance_id(self) -> str:
        return self._ids.instance_id

    @property
    def uuid(self) -> str:
        return self._ids.uuid

    @property
    def mac(self) -> str:
        return self._ids.mac

    @property
    def names(self) -> Mapping[str, str]:
        return {}

    @property
    def cdrom(self) -> Mapping[str, bytes]:
        return {}

    def reports(self) -> Sequence[Report]:
        return self._diary.reports()


def smbios(look: Look, service: Service) -> tuple[str, ...]:
    """The values of QEMU's -smbios option for the machine of one boot."""
    stands_for = {"{instance}": service.instance_id, "{uuid}": service.uuid}
    values = list(look.smbios)
    for name, value in stands_for.items():
        values = [text.replace(name, value) for text in values]
    return tuple(values)


class Guest(Protocol):
    """One cloud from inside, for images registered with one provider's options."""

    name: str
    title: str

    def looks(self, spec: Spec) -> Sequence[Look]:
        """The machines that such an image must boot on, the most usual first."""

    def service(self, instance: Instance, look: Look) -> Service: ...

    def abilities(self, disk: Inspection) -> Sequence[str]:
        """What the disk bears of what the cloud can be told of an image, in words of the
        provider's own: `Spec.abilities`. Raises Unreadable where the disk does not tell."""

    def rules(self, spec: Spec | None) -> Sequence[Rule]:
        """Lint's rules for such an image; None: nothing is claimed of it. The same
        rules in both cases."""


@runtime_checkable
class Rehearsable(Protocol):
    """A provider that knows how its cloud looks from inside."""

    @classmethod
    def guest(cls, options: Options | None) -> Guest:
        """For images published with `options`; None: with the provider's defaults."""

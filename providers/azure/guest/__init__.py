"""How a machine looks from inside Azure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from providers.azure.options import AzureOptions
from publisher.model import Spec
from publisher.proof.guest import Instance, Look
from publisher.provider import require

if TYPE_CHECKING:
    from publisher.proof.guest import Inspection, Service
    from publisher.proof.rules import Rule


class Guest:
    """Azure's machines, provisioning CD, instance metadata service and wire server."""

    name = "azure"
    title = "Microsoft Azure"

    def __init__(self, options: AzureOptions | None) -> None:
        self._given = options
        self._options = options or AzureOptions(
            resource_group="rehearsal", gallery="rehearsal", location="westeurope"
        )

    def looks(self, spec: Spec) -> Sequence[Look]:
        from providers.azure.guest import machine

        return machine.looks(self._options, spec)

    def service(self, instance: Instance, look: Look) -> Service:
        require("werkzeug", "azure")
        from providers.azure.guest.metadata import Metadata

        return Metadata(instance, look, self._options)

    def abilities(self, disk: Inspection) -> Sequence[str]:
        from providers.azure.guest.abilities import abilities

        return abilities(disk)

    def rules(self, spec: Spec | None) -> Sequence[Rule]:
        from providers.azure.guest.rules import rules

        return rules(self._given, spec)

"""How a machine looks from inside Compute Engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from providers.gcp.options import GcpOptions
from publisher.model import Spec
from publisher.proof.guest import Instance, Look
from publisher.provider import require

if TYPE_CHECKING:
    from publisher.proof.guest import Inspection, Service
    from publisher.proof.rules import Rule


class Guest:
    """Compute Engine's machines and metadata server."""

    name = "gcp"
    title = "Google Cloud"

    def __init__(self, options: GcpOptions | None) -> None:
        self._given = options
        self._options = options or GcpOptions(project="rehearsal-project", bucket="rehearsal")

    def looks(self, spec: Spec) -> Sequence[Look]:
        from providers.gcp.guest import machine

        return machine.looks(self._options, spec)

    def service(self, instance: Instance, look: Look) -> Service:
        require("werkzeug", "gcp")
        from providers.gcp.guest.metadata import Metadata

        return Metadata(instance, look, self._options)

    def abilities(self, disk: Inspection) -> Sequence[str]:
        from providers.gcp.guest.features import lacks

        return [feature for feature, lack in lacks(disk).items() if not lack]

    def rules(self, spec: Spec | None) -> Sequence[Rule]:
        from providers.gcp.guest.rules import rules

        return rules(self._given, spec)

"""How a machine looks from inside EC2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from providers.aws.options import AwsOptions
from publisher.model import Spec
from publisher.proof.guest import Instance, Look
from publisher.provider import require

if TYPE_CHECKING:
    from publisher.proof.guest import Inspection, Service
    from publisher.proof.rules import Rule


class Guest:
    """EC2's Nitro machines and instance metadata service."""

    name = "aws"
    title = "Amazon EC2"

    def __init__(self, options: AwsOptions | None) -> None:
        self._given = options
        self._options = options or AwsOptions(regions=("us-east-1",))

    def looks(self, spec: Spec) -> Sequence[Look]:
        from providers.aws.guest import machine

        return machine.looks(self._options, spec)

    def service(self, instance: Instance, look: Look) -> Service:
        require("werkzeug", "aws")
        from providers.aws.guest.metadata import Metadata

        return Metadata(instance, look, self._options)

    def abilities(self, disk: Inspection) -> Sequence[str]:
        from providers.aws.guest.rules import has_ena

        return ("ena",) if has_ena(disk) else ()

    def rules(self, spec: Spec | None) -> Sequence[Rule]:  # noqa: ARG002
        from providers.aws.guest.rules import rules

        return rules(self._given)

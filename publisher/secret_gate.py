"""The section [secrets] of a pipeline file: what the search of the disk is to let pass."""

from __future__ import annotations

from pydantic import Field

from publisher.linting import Ignore
from publisher.section import Section


class SecretGate(Section):
    """The search for secrets in the sealed disk. A public release refuses on any, and on
    what was not searched; any other one is warned."""

    enabled: bool = Field(True, description="Search the sealed disk before an upload.")
    ignore: tuple[Ignore, ...] = Field((), description="Findings that are known and accepted.")

"""The section [rehearse] of a pipeline file: what a boot on trial must show."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from publisher.section import Section


def _compiles(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return text


class Check(Section):
    """A command of the user's own, run by a shell as root in the booted guest."""

    run: str = Field(min_length=1, description="Command line for sh, run as root.")
    name: str = Field("", description="What a verdict calls it; the command itself by default.")
    status: int = Field(0, ge=0, le=255, description="The exit status that is expected.")
    output: Annotated[str, AfterValidator(_compiles)] = Field(
        "", description="A regular expression that must match somewhere in the output."
    )
    timeout: float = Field(60, gt=0, le=3600, description="Seconds that it may take.")
    on: tuple[str, ...] = Field((), description="Only on these clouds; on all by default.")

    @property
    def title(self) -> str:
        """One line, however many the command has."""
        return self.name or " ".join(self.run.split())

    def concerns(self, cloud: str) -> bool:
        return not self.on or cloud in self.on


class Rehearse(Section):
    """How rehearsals are done."""

    enabled: bool = Field(True, description="Boot the disk as on each cloud before an upload.")
    timeout: float = Field(
        900, ge=30, le=7200, description="Seconds that one boot may take until its login."
    )
    stall: float = Field(
        240, ge=15, le=7200, description="Seconds without a sign of life that end a boot."
    )
    second_boot: bool = Field(
        True,
        description="Boot a second machine beside the first, of the cloud's other kind where it "
        "has one, to find what both would share.",
    )
    rerun: bool | None = Field(
        None,
        description="Then boot the first machine's own disk as another instance, to see that "
        "first-boot work runs again; by default only where guests do not run emulated.",
    )
    checks: tuple[Check, ...] = Field((), description="Commands of your own, run in the guest.")

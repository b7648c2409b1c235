"""The section [lint] of a pipeline file: findings that are not to stop a release."""

from __future__ import annotations

from pydantic import Field

from publisher.section import Section


class Ignore(Section):
    """One rule whose findings stay notes."""

    rule: str = Field(
        min_length=1, description="Id of the rule, as `publish lint --rules` lists it."
    )
    reason: str = Field(min_length=1, description="Why; it stands in the report.")
    path: str = Field("", description="Only findings at this path within the disk.")


class Lint(Section):
    """What lint is to let pass."""

    enabled: bool = Field(True, description="Look through the sealed disk before an upload.")
    strict: bool = Field(False, description="Warnings stop a release as errors do.")
    ignore: tuple[Ignore, ...] = Field(
        (), description="Rules whose findings are known and accepted."
    )

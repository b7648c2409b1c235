"""A secret by reference: where its value is, never the value itself."""

from __future__ import annotations

from pydantic import Field, model_validator

from publisher.section import Section


class Secret(Section):
    """Where a secret is: in an environment variable of yours, or in a file."""

    environment: str | None = Field(
        None, description="Name of the environment variable of `publish` that holds the value."
    )
    file: str | None = Field(
        None,
        description="File that holds the value, relative to the pipeline file. Line ends at the "
        "end of the file do not belong to it.",
    )

    @model_validator(mode="after")
    def _one(self) -> Secret:
        if (self.environment is None) == (self.file is None):
            raise ValueError("give exactly one of environment, file")
        return self

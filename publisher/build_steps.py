"""What may stand in [[build.steps]]: the kinds of steps and their options."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, JsonValue, model_validator

from publisher.secret import Secret
from publisher.section import Duration, Section, Timeout

KINDS = ("packages", "run", "copy", "ansible", "reboot", "check")
SHELL = "sh -eu"
"""What runs a script unless it says otherwise."""


def _variable(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError("a variable's name has only letters, digits and _")
    return name


def _one_line(text: str) -> str:
    if "\0" in text:
        raise ValueError("a variable's value has no NUL")
    return text


Variable = Annotated[str, AfterValidator(_variable)]
Value = Annotated[str, AfterValidator(_one_line)]


class Script(Section):
    """A script, and how to run it."""

    inline: str | None = Field(None, description="Text of the script.")
    file: str | None = Field(None, description="Path of the script, relative to the pipeline file.")
    interpreter: str = Field(
        SHELL,
        description='Program in the guest that runs the script, such as "python3" or "bash -eu".',
        pattern=r"^\S.*$",
    )
    environment: dict[Variable, Value] = Field(
        {}, description="Environment variables of the script. They are no place for secrets."
    )
    directory: str = Field(
        "/", description="Working directory in the guest, which must exist.", pattern=r"^/"
    )
    timeout: Timeout | None = Field(
        None,
        description='How long one attempt may take, such as "10min"; then the script is killed '
        "with all that it started.",
    )
    retries: int = Field(0, description="How often to try again when it fails.", ge=0, le=100)
    pause: Duration = Field(5, description='How long to wait between attempts, such as "30s".')

    @model_validator(mode="after")
    def _one(self) -> Script:
        if (self.inline is None) == (self.file is None):
            raise ValueError("give exactly one of inline, file")
        return self


class Copy(Section):
    """A file or a tree to copy into the guest."""

    from_: str = Field(
        alias="from", description="File or directory, relative to the pipeline file."
    )
    to: str = Field(
        description="Absolute path in the guest. A directory's contents go into it.", pattern=r"^/"
    )
    mode: str | None = Field(
        None,
        description='Mode of the copied files in octal, such as "0644".',
        pattern=r"^[0-7]{3,4}$",
    )
    owner: str = Field(
        "root:root",
        description='Owner in the guest, "user:group".',
        pattern=r"^[\w.-]+(:[\w.-]+)?$",
    )
    template: bool = Field(
        False,
        description="Fill in ${NAME} and $NAME from variables in every copied file; $$ is a "
        "dollar sign.",
    )
    variables: dict[Variable, str] = Field({}, description="Values for the names in a template.")

    @model_validator(mode="after")
    def _filled(self) -> Copy:
        if self.variables and not self.template:
            raise ValueError("variables need template = true")
        return self


class Ansible(Section):
    """A playbook that ansible-playbook runs on this computer against the guest."""

    playbook: str = Field(
        description="The playbook, relative to the pipeline file. The guest is its only host."
    )
    extra_vars: dict[str, JsonValue] = Field(
        {}, description="Variables for the playbook, of any type. They are no place for secrets."
    )
    inputs: tuple[str, ...] = Field(
        (),
        description="Files and directories that the playbook reads, relative to the pipeline "
        "file, besides those that Ansible finds beside it (roles, group_vars, templates …).",
    )


class BuildStep(Section):
    """One step inside the running machine: exactly one of packages, run, copy,
    ansible, reboot, check."""

    name: str | None = Field(None, description="What to call the step in the output.")
    packages: tuple[str, ...] | None = Field(None, description="Packages to install with apt.")
    run: str | Script | None = Field(
        None,
        description="A script, run as root with `sh -eu`: its text, or a table with its text or "
        "file and how to run it.",
    )
    copy_: Copy | None = Field(None, alias="copy", description="A file or tree to copy in.")
    ansible: Ansible | None = Field(None, description="A playbook to run against the guest.")
    reboot: bool | None = Field(
        None, description="true: restart the guest and wait until it is back."
    )
    check: str | Script | None = Field(
        None,
        description="A script that must succeed and changes nothing; what it prints is kept as "
        "evidence. Written as run is.",
    )
    secrets: dict[Variable, Secret] | None = Field(
        None,
        description="Environment variables of this run, check or ansible step alone, each from "
        "an environment variable or a file of yours. Their values are hidden in all output and "
        "kept nowhere; another value does not run the step again.",
    )

    @model_validator(mode="after")
    def _one(self) -> BuildStep:
        given = [kind for kind in KINDS if self._value(kind) not in (None, False)]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(KINDS)}")
        if self.secrets and given[0] not in ("run", "ansible", "check"):
            raise ValueError("secrets are for run, ansible and check")
        script = self.script
        twice = sorted(set(self.secrets or ()) & set(script.environment if script else ()))
        if twice:
            raise ValueError(f"{twice[0]} is both in environment and in secrets")
        return self

    def _value(self, kind: str) -> object:
        return getattr(self, "copy_" if kind == "copy" else kind)

    @property
    def kind(self) -> Literal["packages", "run", "copy", "ansible", "reboot", "check"]:
        for kind in KINDS:
            if self._value(kind) not in (None, False):
                return kind  # type: ignore[return-value]
        raise AssertionError("a step of no kind")

    @property
    def changes(self) -> bool:
        """False when the step leaves the machine as it was."""
        return self.check is None

    @property
    def script(self) -> Script | None:
        """The script of run or check, its short form spelled out."""
        given = self.run if self.run is not None else self.check
        return Script(inline=given) if isinstance(given, str) else given

    def local_files(self) -> Iterator[tuple[str, str]]:
        """Key and name of each file that decides what the step does."""
        script = self.script
        if script is not None and script.file is not None:
            yield f"{self.kind}.file", script.file
        if self.copy_ is not None:
            yield "copy.from", self.copy_.from_
        if self.ansible is not None:
            yield "ansible.playbook", self.ansible.playbook
            for number, name in enumerate(self.ansible.inputs):
                yield f"ansible.inputs[{number}]", name

    def title(self) -> str:
        """One line for people."""
        if self.name:
            return self.name
        if self.packages is not None:
            return f"packages {' '.join(self.packages)}"
        if self.copy_ is not None:
            return f"copy {self.copy_.from_} to {self.copy_.to}"
        if self.ansible is not None:
            return f"ansible {self.ansible.playbook}"
        script = self.script
        if script is None:
            return "reboot"
        text = f"file {script.file}" if script.inline is None else script.inline
        lines = text.strip().splitlines()
        return f"{self.kind} {lines[0] if lines else ''}{' …' if len(lines) > 1 else ''}"

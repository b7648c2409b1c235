"""The section [build.source.installer]: an unattended installation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from publisher.locations import Original
from publisher.model import GIB
from publisher.secret import Secret
from publisher.section import Section, Size, Timeout

PLACEHOLDER = re.compile(r"(?<![{$])\{([a-z][a-z0-9_]*)\}(?!\})|(?<!\$)\{\{([a-z][a-z0-9_]*)\}\}")
"""{name}, and {{name}} for the text {name} itself. ${name} is the shell's and stays."""
BUILD_VALUES = ("url", "done", "failed", "ssh_public_key", "name", "version", "arch")
"""What answer files may ask for without declaring it."""
DOOR = ("done", "failed")
"""Names that the program itself answers beside the answer files."""


def _by_path(value: Any) -> Any:
    return {"file": value} if isinstance(value, str) else value


Medium = Annotated[
    Original, BeforeValidator(_by_path, json_schema_input_type=str | Original), Field()
]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$")]


class Installer(Section):
    """Source `installer`: a distribution's own installer runs unattended in QEMU, with
    preseed, kickstart or autoinstall files that the program hands to it."""

    kernel: Medium | None = Field(
        None,
        description="The installer's kernel: a path or URL as for the source disk; with iso, "
        "the path inside it.",
    )
    initrd: Medium | None = Field(None, description="The installer's initrd, as kernel.")
    iso: Medium | None = Field(
        None,
        description="The installer's CD. Without kernel it boots by itself, and its menu must "
        "need nobody.",
    )
    arguments: str = Field(
        "",
        description='Kernel command line, such as "auto=true priority=critical '
        'url={url}/preseed.cfg".',
        pattern=r"^[^\x00-\x1f]*$",
    )
    files: dict[FileName, str] = Field(
        {},
        description="Answer files: the name under {url}, and the path relative to the pipeline "
        "file. In them {url}, {ssh_public_key}, {done}, {failed}, {name}, {version}, {arch} and "
        "the names of variables and secrets are filled in; {{name}} is the text {name}. An "
        "installer that was given {done} must fetch it as its last act; what it sends to "
        "{failed} ends the build.",
    )
    variables: dict[Name, str] = Field({}, description="Further values for the answer files.")
    secrets: dict[Name, Secret] = Field(
        {},
        description="Values for the answer files from an environment variable or a file of "
        "yours. They are hidden in all output and handed to the guest alone; another value "
        "does not repeat the installation.",
    )
    user: str = Field(
        "root",
        description="Whom the answer files give {ssh_public_key}; anybody but root needs sudo "
        "without a password. Not used where the installed system has cloud-init.",
        pattern=r"^[a-z_][a-z0-9_-]*$",
    )
    timeout: Timeout = Field(
        2 * 3600, description='How long the installation may take, such as "90min".'
    )
    memory: Size = Field(
        1 * GIB, description='Memory of the machine during the installation, such as "3GiB".'
    )

    @model_validator(mode="after")
    def _complete(self) -> Installer:
        if (self.kernel is None) != (self.initrd is None):
            raise ValueError("kernel and initrd belong together: give both")
        if self.kernel is None and self.iso is None:
            raise ValueError("give kernel and initrd, or iso")
        if self.kernel is None and self.arguments:
            raise ValueError("arguments need kernel and initrd: with iso, their paths inside it")
        if self.iso is not None and self.kernel is not None and self.initrd is not None:
            for medium in (self.kernel, self.initrd):
                if medium.model_dump(exclude={"file"}, exclude_none=True):
                    raise ValueError("kernel and initrd inside of iso need no digest")
        return self

    @model_validator(mode="after")
    def _answered(self) -> Installer:
        twice = sorted(set(self.variables) & set(self.secrets))
        taken = sorted((set(self.variables) | set(self.secrets)) & set(BUILD_VALUES))
        if twice or taken:
            raise ValueError(f"the name {(twice or taken)[0]} is taken: choose another one")
        if set(self.files) & set(DOOR):
            raise ValueError(f"no file can be called {' or '.join(DOOR)}: choose another name")
        wanted = self.placeholders(self.arguments)
        for name in wanted:
            if name in self.secrets:
                raise ValueError(
                    f"arguments must hold no secret ({{{name}}}): every user of this computer "
                    "can read them; put it into an answer file"
                )
            if name not in ("url", *self.variables):
                known = ", ".join(f"{{{n}}}" for n in ("url", *self.variables))
                raise ValueError(f"arguments have no value for {{{name}}}; known are: {known}")
        if self.files and "url" not in wanted:
            raise ValueError(
                "arguments do not say where the answer files are: write for example "
                f"url={{url}}/{next(iter(self.files))} into arguments"
            )
        return self

    @staticmethod
    def placeholders(text: str) -> list[str]:
        """The names that a text asks for, in order."""
        return [match[1] for match in PLACEHOLDER.finditer(text) if match[1]]

    def media(self) -> Iterator[tuple[str, Original]]:
        """Key and file of what is fetched: not what lies inside of iso."""
        named = {"kernel": self.kernel, "initrd": self.initrd} if self.iso is None else {}
        for name, medium in {**named, "iso": self.iso}.items():
            if medium is not None:
                yield name, medium

    def local_files(self, key: str) -> Iterator[tuple[str, str]]:
        """(key path below `key`, path) of the local files that decide the installation,
        except for those whose digest is given, and secrets."""
        for name, medium in self.media():
            yield from medium.local_files(f"{key}.{name}")
        for name, path in self.files.items():
            yield f'{key}.files."{name}"', path

    def title(self) -> str:
        """One line for people."""
        medium = self.iso or self.kernel
        assert medium is not None
        answers = f" with {', '.join(self.files)}" if self.files else ""
        return f"installer {medium.name}{answers}"

"""The answer files of an installer, filled in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from publisher.build.secrets import INSTALLER
from publisher.errors import HostError, PipelineError
from publisher.installer import BUILD_VALUES, PLACEHOLDER
from publisher.model import MIB
from publisher.recipe import Installer, local_file
from publisher.settings import suggest

KEY = INSTALLER
TEXT = MIB
"""Bytes; a larger file is no text to be filled in."""


def fill(text: str, values: Mapping[str, str]) -> str:
    """The text with its {name}s replaced; all of them must be in `values`."""
    return PLACEHOLDER.sub(lambda m: values[m[1]] if m[1] else f"{{{m[2]}}}", text)


def render(
    source: Installer, directory: Path, values: Mapping[str, str]
) -> dict[str, bytes | Path]:
    """Name ▶ content of every answer file; what is no text is served as it is, from
    its place. Raises PipelineError as `used` does."""
    used(source, directory)
    filled: dict[str, bytes | Path] = {}
    for name, path in _paths(source, directory).items():
        text = _text(path)
        filled[name] = path.resolve() if text is None else fill(text, values).encode()
    return filled


def used(source: Installer, directory: Path) -> frozenset[str]:
    """The names that the answer files ask for. Raises PipelineError for one that has
    no value, naming file and line, and for a file that is missing."""
    known = (*BUILD_VALUES, *source.variables, *source.secrets)
    wanted: set[str] = set()
    for name, path in _paths(source, directory).items():
        text = _text(path) or ""
        for match in PLACEHOLDER.finditer(text):
            asked = match[1]
            if asked is not None and asked not in known:
                line = text.count("\n", 0, match.start()) + 1
                raise PipelineError(
                    f"{source.files[name]}, line {line}: there is no value for {{{asked}}}",
                    key=_key(name),
                    hint=f"{suggest(asked, known)}; write {{{{{asked}}}}} for the text itself, or "
                    f"give it a value in {KEY}.variables",
                )
            wanted |= {asked} if asked else set()
    return frozenset(wanted)


def _key(name: str) -> str:
    return f'{KEY}.files."{name}"'


def _paths(source: Installer, directory: Path) -> dict[str, Path]:
    found = {}
    for name, path in source.files.items():
        found[name] = local_file(directory, path, _key(name))
        if not found[name].is_file():
            raise PipelineError(
                f"{path} is no file", key=_key(name), hint="name each answer file by itself"
            )
    return found


def _text(path: Path) -> str | None:
    """None for what is no UTF-8 text, or too large for an answer."""
    try:
        with path.open("rb") as file:
            content = file.read(TEXT + 1)
        return content.decode() if len(content) <= TEXT else None
    except UnicodeDecodeError:
        return None
    except OSError as error:
        raise HostError(f"cannot read {path}: {error.strerror}", key=f"{KEY}.files") from error

"""Copied files with placeholders, filled in on the host."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from string import Template

from publisher.errors import PipelineError


def fill(text: str, variables: Mapping[str, str], name: str, key: str) -> str:
    """`text` with its placeholders filled in, as string.Template does. Raises
    PipelineError that names the file, the line and the variable."""

    def line(at: int) -> str:
        return f"{name}, line {text.count(chr(10), 0, at) + 1}"

    for match in Template.pattern.finditer(text):
        wanted = match["named"] or match["braced"]
        if wanted is not None and wanted not in variables:
            raise PipelineError(
                f"{line(match.start())}: there is no variable {wanted}",
                key=f"{key}.variables",
                hint=f"add {wanted} to variables, or write $$ for a dollar sign",
            )
        if match["invalid"] is not None:
            raise PipelineError(
                f"{line(match.start())}: a $ without a name",
                key=f"{key}.template",
                hint="write $$ for a dollar sign",
            )
    return Template(text).substitute(variables)


def check(source: Path, variables: Mapping[str, str], key: str) -> None:
    """Raise PipelineError for the first placeholder of a file or tree that nothing fills."""
    for path in _files(source):
        _filled(path, source, variables, key)


def render(source: Path, into: Path, variables: Mapping[str, str], key: str) -> Path:
    """A filled copy of a file or tree in the directory `into`; modes and links stay."""
    target = into / source.name
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copy2(source, target)
    for path in _files(source):
        copied = target / path.relative_to(source) if path != source else target
        text = _filled(path, source, variables, key)
        status = copied.stat()
        copied.chmod(0o600)
        copied.write_bytes(text.encode())
        copied.chmod(status.st_mode & 0o7777)
        os.utime(copied, ns=(status.st_atime_ns, status.st_mtime_ns))
    return target


def _files(source: Path) -> list[Path]:
    if not source.is_dir():
        return [source]
    return [p for p in sorted(source.rglob("*")) if p.is_file() and not p.is_symlink()]


def _filled(path: Path, source: Path, variables: Mapping[str, str], key: str) -> str:
    name = path.relative_to(source.parent).as_posix()
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise PipelineError(
            f"{name} is no UTF-8 text, so it is no template",
            key=f"{key}.template",
            hint="copy it in a step without template",
        ) from error
    return fill(text, variables, name, key)

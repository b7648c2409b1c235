"""Secrets of one step: read when it runs, hidden in all that it says, kept nowhere."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from publisher.build_steps import BuildStep
from publisher.errors import BootError, PipelineError, PublishError
from publisher.recipe import Recipe, local_file
from publisher.secret import Secret

SHORTEST = 4
"""Characters; anything shorter stands in ordinary output too, so it can't be hidden."""
INSTALLER = "build.source.installer"
Tracer: TypeAlias = Callable[[str, str], Mapping[str, Any]]
"""Makes of a name and a value what may be kept, to look for the value later."""


def untraced(label: str, _value: str) -> Mapping[str, Any]:
    return {"label": label, "length": 0}


def at_hand(recipe: Recipe, directory: Path) -> dict[str, str]:
    """The values of all secrets of a recipe, by key path, as far as they can be read."""
    given = [(f"build.steps[{n}]", step.secrets or {}) for n, step in enumerate(recipe.steps)]
    if recipe.source.installer is not None:
        given.append((INSTALLER, recipe.source.installer.secrets))
    found = {}
    for key, secrets in given:
        for name, secret in secrets.items():
            with contextlib.suppress(PipelineError):
                found[f"{key}.secrets.{name}"] = _value(secret, directory, key)
    return found


def read(step: BuildStep, directory: Path, key: str) -> dict[str, str]:
    """The values of the step's secrets by variable name. Raises PipelineError for
    one that is missing or can't be hidden."""
    return read_all(step.secrets or {}, directory, key)


def read_all(given: Mapping[str, Secret], directory: Path, key: str) -> dict[str, str]:
    """The values by name, as `read` gives them; `key` is what has `secrets`."""
    return {
        name: _value(secret, directory, f"{key}.secrets.{name}") for name, secret in given.items()
    }


def _value(secret: Secret, directory: Path, key: str) -> str:
    if secret.file is not None:
        path = local_file(directory, secret.file, f"{key}.file")
        try:
            value = path.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError):
            raise PipelineError(
                f"{secret.file} can't be read as text", key=f"{key}.file"
            ) from None  # the error would show bytes of the secret
    else:
        assert secret.environment is not None
        found = os.environ.get(secret.environment)
        if found is None:
            raise PipelineError(
                f"the environment variable {secret.environment} is not set",
                key=f"{key}.environment",
                hint=f"export {secret.environment}",
            )
        value = found
    if "\0" in value:
        raise PipelineError("holds a NUL, which no environment variable can", key=key)
    if len(value.strip()) < SHORTEST:
        raise PipelineError(f"a secret has at least {SHORTEST} characters", key=key)
    return value


class Redactor:
    """Writes *** for the values; of values with several lines, for each line that
    is long enough."""

    def __init__(self, values: Mapping[str, str]) -> None:
        pieces = {value.strip() for value in values.values()}
        for value in values.values():
            pieces |= {line.strip() for line in value.splitlines()}
        for piece in tuple(pieces):
            # as JSON shows it, and a shell that traces what it runs
            pieces |= {json.dumps(piece)[1:-1], json.dumps(piece, ensure_ascii=False)[1:-1]}
            pieces |= {piece.replace("'", "'\\''"), piece.replace("'", "'\"'\"'")}
        # the longest first: one may be a part of another
        self._pieces = sorted((p for p in pieces if len(p) >= SHORTEST), key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for piece in self._pieces:
            text = text.replace(piece, "***")
        return text

    def error(self, error: PublishError) -> None:
        """Hide the values in an error that is on its way to the user."""
        error.message = self(error.message)
        error.hint = self(error.hint)
        error.args = (error.message,)
        if isinstance(error, BootError):
            error.console = self(error.console)

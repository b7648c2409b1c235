"""One thing to do: a Step of a Plan, and what identifies it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from publisher.model import Noun
from publisher.settings import parse_key, show_key
from publisher.variants import origin

ORIGINS = "origins"
"""Where `Step.local` has which key paths stand elsewhere in the file (variants.Merged)."""
ORIGIN = "origin"
"""In the outcome of a build: what it was made from (manifest.Flavour.origin)."""
BUILT_AS = "built as"
"""The input of a build under which several images share their checkpoints: a disk's
identifiers derive from it, so the first steps of all variants make the same bytes."""


@dataclass(frozen=True, slots=True)
class Step(Noun):
    """One thing to do, as JSON.

    `needs` are the steps whose outcomes it reads: their keys are part of its
    key. `after` only orders. `key` is sha256 over kind, inputs and the needs'
    keys. `required`: without this step nothing may be released. `local` is what
    only this machine knows (a directory) and no part of the key. `flavour` is the
    label of the image that it is for.
    """

    id: str
    kind: str
    lane: str
    inputs: Mapping[str, Any]
    needs: tuple[str, ...]
    key: str
    after: tuple[str, ...] = ()
    required: bool = True
    local: Mapping[str, str] = field(default_factory=dict)
    flavour: str = ""


def step_key(kind: str, inputs: Mapping[str, Any], needs: Sequence[str]) -> str:
    canonical = json.dumps([kind, inputs, list(needs)], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def key_in_file(step: Step, key: str) -> str:
    """Where the pipeline file has what an error of this step calls `key`."""
    path = parse_key(key)
    moved = json.loads(step.local.get(ORIGINS, "[]"))
    return show_key(origin({tuple(a): tuple(b) for a, b in moved}, path)) if path else key

"""[variants.NAME] over the rest of a pipeline file: what it replaces, adds and leaves out.

Tables are merged key by key; everything else is replaced, lists included, because
a list that is always appended to can't be taken back. What adds or takes away says so:

- `build.extra_steps` are done after the other steps
- `targets.NAME = false` does not publish there; what `release` says about it goes too
- `build.source` with another kind of source replaces the whole source
- `release.audience` that is not "shared" does not take over `release.accounts`
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from publisher.settings import KeyPath, Problem, show_key, suggest

SECTION = "variants"
EXTRA = "extra_steps"


@dataclass(frozen=True, slots=True)
class Merged:
    """The file as one variant has it. `origins` tells where in the file stands what
    is at a key path here, for the paths at which they differ."""

    data: dict[str, Any]
    origins: dict[KeyPath, KeyPath] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def origin(self, path: KeyPath) -> KeyPath:
        """The key path in the file for one in `data`."""
        return origin(self.origins, path)


def origin(origins: Mapping[KeyPath, KeyPath], path: KeyPath) -> KeyPath:
    for length in range(len(path), 0, -1):
        if path[:length] in origins:
            return (*origins[path[:length]], *path[length:])
    return path


def plain_path(path: KeyPath) -> KeyPath:
    """A key path of a variant as it would be in a file without variants."""
    return ("build", "steps", *path[2:]) if path[:2] == ("build", EXTRA) else path


def merge(base: Mapping[str, Any], variant: Mapping[str, Any], name: str) -> Merged:
    """`base` is the file without its variants."""
    merged = Merged({})
    prefix: KeyPath = (SECTION, name)
    left_out, plain = _left_out(base, variant, prefix, merged)
    common = _without_targets(base, left_out)
    _drop_accounts(common, variant)
    merged.data.update(_over(common, plain, (), prefix, merged))
    _extend(merged, variant, prefix)
    return merged


def _over(base: Any, own: Any, path: KeyPath, prefix: KeyPath, merged: Merged) -> Any:
    both = isinstance(base, dict) and isinstance(own, dict)
    if not both or (path == ("build", "source") and set(own) - set(base)):
        merged.origins[path] = (*prefix, *path)
        return own
    made = dict(base)
    for key, value in own.items():
        if key in base:
            made[key] = _over(base[key], value, (*path, key), prefix, merged)
        else:
            merged.origins[*path, key] = (*prefix, *path, key)
            made[key] = value
    return made


def _table(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = data.get(name, {})
    return found if isinstance(found, dict) else {}


def _left_out(
    base: Mapping[str, Any], variant: Mapping[str, Any], prefix: KeyPath, merged: Merged
) -> tuple[set[str], dict[str, Any]]:
    """The targets that the variant leaves out, and the variant without what is no
    part of a pipeline."""
    plain = dict(variant)
    known = list(_table(base, "targets"))
    wanted, left_out = dict(_table(variant, "targets")), set()
    for name, options in list(wanted.items()):
        if options is not False:
            continue
        del wanted[name]
        left_out.add(name)
        if name not in known:
            key = show_key((*prefix, "targets", name))
            message = f"there is no target {name!r} to leave out"
            merged.problems.append(Problem(key, message, suggest(name, known)))
    if left_out:
        plain["targets"] = wanted
    build = _table(variant, "build")
    own = [key for key in build if key.startswith("extra")]
    for key in own:
        if key != EXTRA:
            shown = show_key((*prefix, "build", key))
            merged.problems.append(Problem(shown, "unknown key", suggest(key, [EXTRA])))
    if own:
        plain["build"] = {key: value for key, value in build.items() if key not in own}
    return left_out, plain


def _without_targets(base: Mapping[str, Any], left_out: set[str]) -> dict[str, Any]:
    """The file without these targets and what its release says about them."""
    common = dict(base)
    if not left_out:
        return common
    common["targets"] = {k: v for k, v in _table(base, "targets").items() if k not in left_out}
    release = dict(_table(base, "release"))
    if isinstance(release.get("accounts"), dict):
        release["accounts"] = {k: v for k, v in release["accounts"].items() if k not in left_out}
    if isinstance(release.get("required"), list):
        release["required"] = [
            place
            for place in release["required"]
            if not isinstance(place, str) or place.partition(":")[0] not in left_out
        ]
    if release:
        common["release"] = release
    return common


def _drop_accounts(common: dict[str, Any], variant: Mapping[str, Any]) -> None:
    own = _table(variant, "release")
    if own.get("audience", "shared") != "shared" and "accounts" not in own:
        release = {k: v for k, v in _table(common, "release").items() if k != "accounts"}
        if "release" in common:
            common["release"] = release


def _extend(merged: Merged, variant: Mapping[str, Any], prefix: KeyPath) -> None:
    build = _table(variant, "build")
    if EXTRA not in build:
        return
    extra, key = build[EXTRA], (*prefix, "build", EXTRA)
    if not isinstance(extra, list):
        merged.problems.append(Problem(show_key(key), "must be a list of tables"))
        return
    steps = _table(merged.data, "build").get("steps", [])
    if not isinstance(steps, list):
        return
    for number in range(len(extra)):
        merged.origins["build", "steps", len(steps) + number] = (*key, number)
    merged.data["build"] = {**_table(merged.data, "build"), "steps": [*steps, *extra]}

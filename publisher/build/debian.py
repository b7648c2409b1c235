"""Source `debian`: a fresh installation by mmdebstrap, kept as a tar file until
its inputs or the archive change."""

from __future__ import annotations

import hashlib
import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from publisher.build import archives, files
from publisher.build.mmdebstrap import HOOK, SETUP, bootstrap
from publisher.build.namespace import Namespace
from publisher.build.suites import packages
from publisher.build.workspace import Workspace
from publisher.model import MIB
from publisher.recipe import Debian
from publisher.task import Task
from publisher.vm.arch import Platform

FORMAT = 1
"""Changes when an old installation can't be used any more for other reasons than its inputs."""
KEEP = 3
"""Installations kept in the state directory."""


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=20):  # noqa: S310 apt reads the same address
            return True
    except (OSError, ValueError):
        return False


def sources(source: Debian, task: Task) -> list[str]:
    """Lines of sources.list for mmdebstrap; empty without a mirror or a snapshot,
    because mmdebstrap then adds its own, with updates and security."""
    if source.mirror is None and source.snapshot is None:
        return archives.live(source) if source.repositories else []
    suite, components, found = source.suite, source.components, archives.official(source)
    lines = [found.line(suite, components)]
    if suite in archives.ROLLING:
        return lines
    if _answers(f"{found.archive}/dists/{suite}-updates/InRelease"):
        lines.append(found.line(f"{suite}-updates", components))
    if _answers(f"{found.security}/dists/{suite}-security/InRelease"):
        lines.append(found.line(f"{suite}-security", components, security=True))
    else:
        task.note(f"the mirror has no {source.suite}-security: no security updates", "warning")
    return lines


@dataclass(frozen=True, slots=True)
class Installation:
    """`tree` is a tar file of the root directory. `releases` are the archive's
    signed indices at that time: URL ▶ sha256."""

    tree: Path
    releases: Mapping[str, str]

    @property
    def size(self) -> int:
        return self.tree.stat().st_size

    @property
    def state(self) -> Mapping[str, str]:
        """All that tells this installation from another one of the same source: what
        this program puts into it, and the archive's indices."""
        return {"installation": self.tree.stem, **self.releases}


def key(source: Debian, lines: Sequence[str], platform: Platform, further: str = "") -> str:
    """sha256 over everything that decides what gets installed, except for the archive;
    `further` is the digest of the further ones."""
    wanted = (*packages(source.suite, platform), *source.packages)
    inputs = [FORMAT, source.suite, source.components, lines, wanted, platform.debian_arch]
    inputs += [files.tree_files(platform), SETUP, HOOK, os.environ.get("SOURCE_DATE_EPOCH", "")]
    inputs += [source.snapshot, further]
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def install(
    source: Debian,
    platform: Platform,
    namespace: Namespace,
    workspace: Workspace,
    task: Task,
    *,
    directory: Path = Path(),
) -> Installation:
    """The installation, from the state directory when nothing changed since. Key
    files are relative to `directory`.

    Raises BuildError or PipelineError with the key that is to blame."""
    further = archives.further(source, directory)
    lines = sources(source, task)
    store = workspace.store.directory.parent / "bootstrap"
    store.mkdir(parents=True, exist_ok=True)
    name = key(source, lines, platform, archives.digest(further))
    kept = _kept(store / f"{name}.json")
    if kept is not None:
        changed = _changed(kept, task)
        if not changed:
            task.output("Debian: installed before, and the archive is the same")
            os.utime(kept.tree)
            return kept
        task.output(f"Debian: installed before, but {changed}")
    workspace.need(3 * 1024 * MIB)
    tree, releases = bootstrap(source, lines, further, platform, namespace, workspace, task)
    target = store / f"{name}.tar"
    os.replace(tree, target)
    description = workspace.directory / "bootstrap.json"
    description.write_text(json.dumps({"releases": releases}))
    os.replace(description, target.with_suffix(".json"))
    _prune(store)
    return Installation(target, releases)


def _kept(description: Path) -> Installation | None:
    tree = description.with_suffix(".tar")
    try:
        releases = json.loads(description.read_text())["releases"]
    except (OSError, ValueError, KeyError):
        return None
    return Installation(tree, releases) if tree.exists() else None


def _prune(store: Path) -> None:
    trees = sorted(store.glob("*.tar"), key=lambda path: path.stat().st_mtime, reverse=True)
    for tree in trees[KEEP:]:
        tree.unlink(missing_ok=True)
        tree.with_suffix(".json").unlink(missing_ok=True)


def _changed(kept: Installation, task: Task) -> str:
    """What the archive changed since, in words. An archive that does not answer
    changed nothing that could be installed."""
    for url, digest in kept.releases.items():
        task.check()
        try:
            with urllib.request.urlopen(url, timeout=20) as answer:  # noqa: S310 apt's own address
                if hashlib.sha256(answer.read()).hexdigest() != digest:
                    return f"{url} changed since"
        except (OSError, ValueError) as error:
            task.note(f"{url} does not answer ({error}): using the earlier installation", "warning")
    return ""

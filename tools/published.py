"""Write anew which secrets are published with Debian's packages: test keys, examples.

The secret gate lets them pass by their digests (publisher/proof/secrets/published.txt).
Each .deb file is unpacked and searched as a disk is, by all rules:

    apt-get download libssl-dev python3-passlib …
    python tools/published.py --made-from "2026-11-30, all that …" *.deb
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import textwrap
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from publisher.model import Disk, Extent
from publisher.proof.secrets import published
from publisher.proof.secrets.engine import Engine, hits
from publisher.proof.secrets.known import Known
from publisher.task import Task, detached

HEADER = """\
# Secrets that everybody has: test keys and examples that Debian's packages bring.
# Below the name of a package stand the first {bits} bits of SHA-256 of each value, as the judge
# of its rule gives it (publisher/proof/secrets/rule.py); what several packages bring is named once.
# Made by tools/published.py from {count} packages of Debian (amd64, arm64):
"""


def values(deb: Path, engine: Engine, task: Task) -> set[str]:
    """The digests of all secrets in a package's files and scripts."""
    found = set()
    for part in ("--fsys-tarfile", "--ctrl-tarfile"):
        with tempfile.NamedTemporaryFile() as tar:
            subprocess.run(["dpkg-deb", part, str(deb)], stdout=tar, check=True)
            size = Path(tar.name).stat().st_size
            disk = Disk(Path(tar.name), size, "", (Extent(0, size),))
            found |= {published.shortened(hit.value) for hit in hits(disk, engine, task)}
    return found


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--made-from", required=True, help="which packages, for the header")
    parser.add_argument("debs", nargs="+", type=Path)
    given = parser.parse_args(arguments)
    engine = Engine(Known())
    first: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as memory, ThreadPoolExecutor(2) as pool:
        task = detached(Path(memory))
        debs = sorted(given.debs, key=lambda deb: deb.name)
        for deb, some in zip(debs, pool.map(lambda d: values(d, engine, task), debs), strict=True):
            for value in some:
                first.setdefault(value, deb.name.partition("_")[0])
    by_package: dict[str, list[str]] = defaultdict(list)
    for value, package in sorted(first.items()):
        by_package[package].append(value)
    bits = 4 * len(next(iter(first)))
    lines = HEADER.format(bits=bits, count=len(debs)).splitlines()
    lines += textwrap.wrap(given.made_from, 98, initial_indent="# ", subsequent_indent="# ")
    for package in sorted(by_package):
        lines += [package, *(f" {value}" for value in by_package[package])]
    published.FILE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])

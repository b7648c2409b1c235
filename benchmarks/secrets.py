"""How fast the secret gate reads, against the fastest tools that do a part of it.

All read the same data (a disk's, without its holes, in memory), each alone, in
turns: our search with every rule on two cores; `grep -F` for the fixed beginnings of the same
secrets, which tells neither real ones from look-alikes nor where they are; `cat`,
as fast as anything can read with one core.

    python benchmarks/secrets.py DISK [--rounds 3]
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from publisher.disks import extents
from publisher.model import GIB, Disk, Extent
from publisher.proof.secrets.engine import Engine, hits
from publisher.proof.secrets.known import Known
from publisher.task import detached

GOAL = 1.0
"""Gigabytes a second."""

FIXED = (
    *("PRIVATE KEY-----", "PuTTY-User-Key-File-", "AKIA", "ASIA", "aws_secret_access_key"),
    *("private_key_id", "AccountKey=", "SharedAccessKey=", "&sig=", "ghp_", "gho_", "ghu_"),
    *("ghs_", "ghr_", "github_pat_", "glpat-", "xoxb-", "xoxp-", "hooks.slack.com", "npm_"),
    *("pypi-AgE", "eyJ", "dckr_pat_", "AIza", "GOCSPX-", "ssh-rsa AAAA", "ssh-ed25519 AAAA"),
    *("$6$", "$5$", "$y$", "$2y$", "AGE-SECRET-KEY-1", "LS0tLS1CRUdJTi"),
)


def compact(disk: Path, into: Path) -> int:
    """The data of a sparse file without its holes; returns its bytes."""
    with disk.open("rb") as source, into.open("wb") as target:
        size = os.fstat(source.fileno()).st_size
        for extent in extents.merge(extents.of_file(source.fileno(), size)):
            source.seek(extent.offset)
            left = extent.length
            while left:
                piece = source.read(min(left, 4 << 20))
                target.write(piece)
                left -= len(piece)
        return target.tell()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("disk", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    room = "/dev/shm" if shutil.disk_usage("/dev/shm").free > 4 * GIB else None
    with tempfile.TemporaryDirectory(dir=room) as directory:
        data = Path(directory, "data")
        size = compact(arguments.disk, data)
        words = Path(directory, "words")
        words.write_text("\n".join(FIXED) + "\n")
        task = detached(Path(directory, "memory"))
        whole = Disk(data, size, "", (Extent(0, size),))

        def grep() -> None:
            subprocess.run(
                ["grep", "-a", "-c", "-F", "-f", str(words), str(data)],
                env={**os.environ, "LC_ALL": "C"},
                stdout=subprocess.PIPE,  # into /dev/null it stops at the first match
                check=False,
            )

        def cat() -> None:
            subprocess.run(["sh", "-c", f"cat {data} | cat >/dev/null"], check=True)

        runners: dict[str, Callable[[], object]] = {
            "publish secrets": lambda: hits(whole, Engine(Known()), task),
            "grep -F": grep,
            "cat": cat,
        }
        best = dict.fromkeys(runners, float("inf"))
        for _ in range(arguments.rounds):
            for name, run in runners.items():
                started = time.perf_counter()
                run()
                best[name] = min(best[name], time.perf_counter() - started)
    speeds = {name: size / seconds / 1e9 for name, seconds in best.items()}
    ours = speeds["publish secrets"]
    print(f"{size / 1e9:.2f} GB of data, best of {arguments.rounds}")
    for name, speed in speeds.items():
        print(f"{name:<16} {speed:6.2f} GB/s  ours / this {ours / speed:5.2f}")
    print(f"goal {GOAL:.1f} GB/s: {'met' if ours >= GOAL else 'missed'}")
    return 0 if ours >= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())

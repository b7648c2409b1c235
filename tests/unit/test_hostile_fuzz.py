"""Random changes of a small disk: whatever they do, the proofs end soon, in bounded
memory, with findings or an error of the project's own.

Three seconds a disk; PUBLISH_FUZZ_SECONDS fuzzes for longer, PUBLISH_FUZZ_SEED again as before.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit import hostile
from tests.unit.hostile_fuzz import small_disk, small_rhel_disk, subvolume_disk

pytestmark = pytest.mark.long

SECONDS = int(os.environ.get("PUBLISH_FUZZ_SECONDS", "3"))
SEED = os.environ.get("PUBLISH_FUZZ_SEED") or str(random.SystemRandom().randrange(2**32))


@pytest.mark.parametrize(
    "made", [small_disk, small_rhel_disk, subvolume_disk], ids=["ext4", "xfs", "btrfs"]
)
def test_no_change_of_a_disk_breaks_a_proof(tmp_path: Path, made: Callable[[Path], Path]) -> None:
    print(f"PUBLISH_FUZZ_SEED={SEED}")  # noqa: T201 (shown when the test fails)
    disk = made(tmp_path)
    said = hostile.bounded(
        str(disk), SEED, str(SECONDS), seconds=SECONDS * 3 + 30, module="tests.unit.hostile_fuzz"
    )
    count, _, slowest = said.split()
    assert int(count) > 0
    assert float(slowest) < 30, "of all changed disks"

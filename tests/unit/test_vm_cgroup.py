"""The limits of a container, in both versions of the kernel's control groups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from publisher.model import GIB, MIB
from publisher.vm import cgroup, host


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cgroup, "OWN", tmp_path / "own")
    monkeypatch.setattr(cgroup, "MOUNTED", tmp_path / "cgroup")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8))
    monkeypatch.setattr(host, "_machine_memory", lambda: 16 * GIB)
    return tmp_path


def put(directory: Path, own: str, files: dict[str, str]) -> None:
    (directory / "own").write_text(own)
    for name, text in files.items():
        path = directory / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


def test_without_limits_the_machines_own_count(groups: Path) -> None:
    assert (host.processors(), host.free_memory()) == (8, 16 * GIB)
    put(groups, "0::/\n", {"cpu.max": "max 100000", "memory.max": "max", "memory.current": "9"})
    assert (host.processors(), host.free_memory()) == (8, 16 * GIB)
    put(groups, "1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"})
    assert host.processors() == 8


def test_the_closest_limit_of_all_groups_above_counts(groups: Path) -> None:
    files = {
        "ci/job/memory.max": str(6 * GIB),
        "ci/job/memory.current": str(2 * GIB),
        "ci/job/memory.stat": f"anon 5\nactive_file {MIB}\ninactive_file {GIB}",
        "ci/memory.max": str(8 * GIB),
        "ci/memory.current": str(7 * GIB),
        "ci/cpu.max": "350000 100000",
        "ci/job/cpu.max": "max 100000",
    }
    put(groups, "0::/ci/job\n", files)
    assert host.processors() == 3
    assert host.free_memory() == GIB
    put(groups, "0::/ci/job\n", {"ci/memory.max": "max"})
    assert host.free_memory() == 5 * GIB + MIB


def test_less_than_one_processor_is_one(groups: Path) -> None:
    put(groups, "0::/\n", {"cpu.max": "50000 100000"})
    assert host.processors() == 1


def test_the_first_version_is_read_too_where_only_its_top_is_mounted(groups: Path) -> None:
    files = {
        "memory/memory.limit_in_bytes": str(4 * GIB),
        "memory/memory.usage_in_bytes": str(3 * GIB),
        "memory/memory.stat": f"inactive_file 1\ntotal_inactive_file {GIB}",
        "cpu,cpuacct/cpu.cfs_quota_us": "200000",
        "cpu,cpuacct/cpu.cfs_period_us": "100000",
    }
    own = "9:name=systemd:/docker/1\n4:memory:/docker/1\n3:cpu,cpuacct:/docker/1\n0::/docker/1\n"
    put(groups, own, files)
    assert (host.processors(), host.free_memory()) == (2, 2 * GIB)

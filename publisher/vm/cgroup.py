"""What the control groups of this process leave to it: a container's limits.

https://docs.kernel.org/admin-guide/cgroup-v2.html
https://docs.kernel.org/admin-guide/cgroup-v1/memory.html
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

OWN = Path("/proc/self/cgroup")
MOUNTED = Path("/sys/fs/cgroup")


def free_memory() -> int | None:
    """Bytes that this process and its children may still take; None without a limit.
    What the kernel only caches counts as free."""
    left = [
        *(_left(group, "memory.max", "memory.current", "") for group in _groups("")),
        *(
            _left(group, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
            for group in _groups("memory")
        ),
    ]
    return min((found for found in left if found is not None), default=None)


def processors() -> int | None:
    """As many as the time that this process gets; None without a limit."""
    shares = [_text(group / "cpu.max").partition(" ")[::2] for group in _groups("")]
    shares += [
        (_text(group / "cpu.cfs_quota_us"), _text(group / "cpu.cfs_period_us"))
        for group in _groups("cpu")
    ]
    # a limit that is off is "max", or -1 in the first version
    whole = [int(q) // int(p) for q, p in shares if q.isdigit() and p.isdigit() and int(p)]
    return max(1, min(whole)) if whole else None


def _groups(controller: str) -> Iterator[Path]:
    """The process's group of a controller and all above it; "" is version 2. In a
    container the path may be the host's, of which only the top is mounted."""
    for line in _text(OWN).splitlines():
        _, _, rest = line.partition(":")
        names, colon, path = rest.partition(":")
        if not colon or controller not in names.split(","):
            continue
        for top in _mounts(controller, names):
            place = top / path.lstrip("/")
            yield from (at for at in (place, *place.parents) if at.is_relative_to(top))


def _mounts(controller: str, names: str) -> Iterator[Path]:
    if controller:
        yield from dict.fromkeys((MOUNTED / names, MOUNTED / controller))
    else:
        yield from (MOUNTED, MOUNTED / "unified")


def _left(group: Path, limit: str, used: str, prefix: str) -> int | None:
    most, now = _text(group / limit), _text(group / used)
    if not (most.isdigit() and now.isdigit()):
        return None
    kept = dict(line.partition(" ")[::2] for line in _text(group / "memory.stat").splitlines())
    cached = (kept.get(f"{prefix}{kind}_file", "0") for kind in ("active", "inactive"))
    return max(0, int(most) - int(now) + sum(int(size) for size in cached if size.isdigit()))


def _text(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text().strip()
    return ""

"""How many machines of rehearsals this machine bears side by side."""

from __future__ import annotations

from publisher.model import GIB
from publisher.vm.accelerator import cpus
from publisher.vm.host import free_memory
from publisher.vm.host import processors as own_processors

MEMORY = 2 * GIB
"""What one of them takes at least: a guest of 1 GiB, its translated code, which gets more
where there is more (publisher.vm.accelerator.code_room), QEMU's own, firmware."""
PAIR = 2
"""The machines of one rehearsal: the disk as two instances."""


def machines() -> int:
    """As many as there are processors and memory for; at least one."""
    return max(1, min(own_processors(), free_memory() // MEMORY))


def at_once(wanted: int) -> int:
    """How many rehearsals this machine does side by side, each with both of its machines."""
    return max(1, min(wanted, machines() // PAIR))


def processors(beside: int) -> int:
    """Processors of each of `beside` machines that run side by side."""
    return max(1, cpus() // beside)

"""What a machine is told before a checkpoint is made of it: to let go of memory that
holds nothing but copies of what is on its disk. Half of what a build's guest holds is
that, and would be written, kept and read again each time that the machine is resumed."""

from __future__ import annotations

from publisher.task import Task
from publisher.vm.shell import Shell

_FORGET = "echo 1 > /proc/sys/vm/drop_caches"
"""https://docs.kernel.org/admin-guide/sysctl/vm.html"""
REPORTED = 2.5
"""Seconds after which a guest has told QEMU which memory became free: Linux waits for
two of them (mm/page_reporting.c)."""
WORTH = 5
"""How many times as long a step takes at least for which that is waited for: behind
shorter ones memory is reported while the next ones run."""
# What waking, sealing and most steps need is read again at once, instead of by each resumption.
_REMEMBER = "date; systemctl --version"


def rest(shell: Shell, took: float, task: Task) -> None:
    """`took` is how long the machine has run since it was last kept, in seconds. Whatever
    fails in it is no error: the checkpoint is larger then."""
    if shell.command(_FORGET, plain=True).status or took < REPORTED * WORTH:
        return
    task.sleep(REPORTED)
    shell.script(_REMEMBER)

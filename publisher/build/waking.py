"""What a machine is told when it goes on from a checkpoint: what time it is by now,
and a seed, because several resumed from it must not draw the same random numbers."""

from __future__ import annotations

import shlex

OLD = 3600.0
"""Seconds. The clock of a machine that rested for longer jumps far enough to bring due
what a build in one go would hardly meet; for a younger one the precaution costs more."""
STAMPS = "/var/lib/systemd/timers"
"""Where systemd keeps when timers with Persistent= last ran (systemd.timer(5))."""

# no program is started that a shell can do without: the first one takes an emulated guest 0.1 s
_WAKE = 'date -u -s @{now:.3f} >/dev/null && read -r seed && printf %s "$seed" > /dev/urandom'

# The timers whose time came while the machine rested would all fire at once: apt-daily
# takes apt's lock, others the processor, in the middle of a step. So they are stopped
# before the clock jumps, and started again as if they had just run: sealing removes the
# stamps that say so. Debian's timer without a stamp stays stopped, because systemd
# counts from its first start; others without, such as those of systemd-run, are a step's.
_WAKE_OLD = """
timers=$(systemctl list-units --type=timer --state=active --plain --no-legend 2>/dev/null |
    while read -r unit _; do if [ -e {stamps}/stamp-"$unit" ]; then echo "$unit"; fi; done)
systemctl stop $timers dpkg-db-backup.timer 2>/dev/null
{wake} || exit
if [ -n "$timers" ]; then
    touch $(printf '{stamps}/stamp-%s ' $timers)
    systemctl start --no-block $timers || true
fi
"""


def command(user: str, now: float, rested: float) -> str:
    """The command line for the shell of `user` (root, or who may become root), which
    takes a line of random letters; `now` in seconds since the epoch, after `rested` seconds."""
    text = _WAKE.format(now=now)
    if rested > OLD:
        text = _WAKE_OLD.format(stamps=STAMPS, wake=text)
    return text if user == "root" else f"sudo -n sh -c {shlex.quote(text)}"

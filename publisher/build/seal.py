"""Sealing: nothing of the build stays in the guest, and what it deleted is really gone.

Three parts: a script over ssh cleans while the system still runs, a second one
runs after our login has ended and powers off, then the host proves the result
on the file and erases every free block.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from publisher.build import archives
from publisher.build.layout import ROOT_OFFSET
from publisher.errors import BuildError, HostError, UsageError
from publisher.model import MIB, Extent
from publisher.task import Task
from publisher.vm import process
from publisher.vm.machine import Machine
from publisher.vm.shell import Shell

SSHD_DROP_IN = "/etc/ssh/sshd_config.d/00-build.conf"
"""Lets root in during the build."""
SHUTDOWN = 300.0

# @KEY@ is our public key. Only traces of the build and of this machine's life
# go: what the steps put in place stays. cloud-init may still be in its last
# stages after short steps, and would write its state anew.
# Every program costs an emulated guest 50 ms and more: so what is to be removed is
# collected in "$@" (patterns that match nothing stay as they are, which rm -f takes),
# and what waits for others runs beside them.
_CLEAN = r"""
{
    # apt-daily would hold apt's lock
    systemctl stop apt-daily.timer apt-daily-upgrade.timer apt-daily.service 2>/dev/null || true
    if command -v apt-get >/dev/null; then apt-get clean; fi
    if command -v dnf >/dev/null; then dnf -q clean all; fi
    if command -v zypper >/dev/null; then zypper -q clean --all; fi
} &
packages=$!
journalctl --relinquish-var &
journal=$!
systemctl stop cloud-config.service cloud-final.service cloud-init-main.service \
    systemd-timesyncd.service systemd-random-seed.service systemd-update-utmp.service \
    rsyslog.service cron.service 2>/dev/null || true

if [ -e /@SEALED@ ]; then mv -f /@SEALED@ /etc/apt/sources.list; fi
printf 'localhost\n' > /etc/hostname
: > /etc/machine-id
set --
for file in /etc/sysconfig/network-scripts/ifcfg-* /etc/sysconfig/network/ifcfg-*; do
    [ -e "$file" ] || continue
    if grep -qsi 'created by cloud-init' "$file"; then set -- "$@" "$file"; fi
done
for file in /root/.ssh/authorized_keys /home/*/.ssh/authorized_keys; do
    [ -e "$file" ] || continue
    grep -vF @KEY@ "$file" > /run/publisher-keys || true
    if [ -s /run/publisher-keys ]; then
        cat /run/publisher-keys > "$file"
    else
        set -- "$@" "$file"
    fi
done
for home in /root /home/*; do
    set -- "$@" "$home"/.bash_history "$home"/.sh_history "$home"/.python_history \
        "$home"/.lesshst "$home"/.viminfo "$home"/.wget-hsts "$home"/.ssh/known_hosts \
        "$home"/.cache
done
if [ -f /var/lib/dbus/machine-id ] && [ ! -L /var/lib/dbus/machine-id ]; then
    set -- "$@" /var/lib/dbus/machine-id
fi
wait "$packages"
wait "$journal"
rm -rf "$@" /run/publisher-keys \
    /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/debconf/*-old /var/lib/dpkg/*-old \
    /etc/passwd- /etc/shadow- /etc/group- /etc/gshadow- /etc/subuid- /etc/subgid- \
    /var/lib/cloud /run/cloud-init/instance-data-sensitive.json \
    /etc/netplan/50-cloud-init.yaml /etc/network/interfaces.d/50-cloud-init* \
    /etc/systemd/network/*-cloud-init-* /etc/ssh/sshd_config.d/50-cloud-init.conf \
    /etc/sudoers.d/90-cloud-init-users /etc/apt/apt.conf.d/90cloud-init-pipelining \
    /etc/NetworkManager/system-connections/cloud-init-* \
    /etc/udev/rules.d/70-persistent-net.rules \
    /root/anaconda-ks.cfg /root/original-ks.cfg /root/initial-setup-ks.cfg \
    /etc/ssh/ssh_host_* @DROP_IN@ \
    /var/lib/systemd/random-seed /var/lib/systemd/credential.secret /etc/.pwd.lock \
    /var/lib/dhcp/* /var/lib/dhclient/* /var/lib/NetworkManager/*.lease \
    /var/lib/dhcpcd/*.lease /var/lib/systemd/timesync /var/lib/private/systemd/timesync \
    /var/lib/systemd/timers /var/log/journal/* /var/cache/ldconfig/aux-cache /var/cache/man/*
if [ -d /root/.ssh ]; then rmdir /root/.ssh 2>/dev/null || true; fi
find /var/log -xdev ! -type d -delete
"""

# Runs as a unit of its own, so that the end of our login leaves no trace either.
# Nothing writes after the end of the sessions, which is waited for: the journal was
# given up before, and the rest happens once all of that is gone.
_LEAVE = r"""
systemctl stop user.slice ssh.socket ssh.service sshd.service 2>/dev/null || true
find /var/log -xdev ! -type d -delete
find /tmp /var/tmp /var/crash -xdev -mindepth 1 -delete 2>/dev/null || true
rm -rf /var/log/journal/* /var/lib/systemd/linger /root/.cache /var/lib/systemd/random-seed
@TIMES@
sync
fstrim --all
exec systemctl poweroff
"""


def leaving(epoch: str | None) -> str:
    """The last script; with SOURCE_DATE_EPOCH no file is younger than it says.
    https://reproducible-builds.org/specs/source-date-epoch/

    Raises UsageError."""
    if not epoch:
        return _LEAVE.replace("@TIMES@\n", "")
    if not epoch.isdigit():
        raise UsageError(f"SOURCE_DATE_EPOCH={epoch} is no number of seconds")
    times = f"find / -xdev -newermt @{epoch} -exec touch -h -d @{epoch} {{}} +"
    return _LEAVE.replace("@TIMES@", times)


def cleaning(user_key: str) -> str:
    """The first script, for the build's own public key."""
    script = _CLEAN.replace("@KEY@", shlex.quote(" ".join(user_key.split()[:2])))
    return script.replace("@DROP_IN@", SSHD_DROP_IN).replace("@SEALED@", archives.SEALED)


def clean(shell: Shell, machine: Machine, user_key: str, last: str, task: Task) -> None:
    """Clean the guest and wait until it has powered off; `last` is the last script."""
    task.phase("sealing: cleaning")
    done = shell.script(cleaning(user_key), on_line=task.output)
    if done.status:
        raise BuildError(f"cleaning the guest failed with status {done.status}:\n{done.text}")
    command = ["systemd-run", "--quiet", "--no-block", "--collect", "--unit=publisher-leave"]
    command += ["--property=DefaultDependencies=no", "sh", "-c", last]
    task.phase("sealing: powering off")
    shell.leave(shlex.join(command))
    machine.wait_down(SHUTDOWN)


# -- on the file

_ABSENT = (
    "/root/.ssh/authorized_keys",
    "/etc/ssh/ssh_host_ed25519_key",
    "/etc/ssh/ssh_host_rsa_key",
    "/etc/ssh/ssh_host_ecdsa_key",
    SSHD_DROP_IN,
    "/var/lib/cloud",
    "/var/lib/systemd/random-seed",
    "/var/log/wtmp",
    "/var/log/lastlog",
    "/var/log/cloud-init.log",
    "/root/.bash_history",
    "/etc/netplan/50-cloud-init.yaml",
)


def _tool(argv: Sequence[str], task: Task, keep: int = 1_000_000) -> process.Completed:
    return process.run(argv, task, keep=keep, env={**os.environ, "LC_ALL": "C"})


def prove(
    disk: Path, task: Task, *, keys_expected: bool = False, offset: int = ROOT_OFFSET
) -> None:
    """Raise BuildError when the sealed file system at `offset` is damaged or still
    holds a trace of the build. `keys_expected`: root has keys that are not ours."""
    task.phase("sealing: proving")
    root = f"{disk}?offset={offset}"
    checked = _tool(["e2fsck", "-f", "-n", root], task)
    if checked.status:
        raise BuildError(f"the sealed file system is damaged:\n{checked.text}")
    left = []
    for path in _ABSENT:
        if keys_expected and path.endswith("authorized_keys"):
            continue
        if "Inode:" in _tool(["debugfs", "-R", f"stat {path}", root], task).text:
            left.append(path)
    machine_id = _tool(["debugfs", "-R", "stat /etc/machine-id", root], task).text
    size = re.search(r"\bSize: (\d+)", machine_id)  # the first one; later comes "Fragment: Size"
    if size is None or int(size[1]):
        left.append("/etc/machine-id")
    if left:
        raise BuildError(f"sealing left traces of the build: {', '.join(left)}")


def free_blocks(listing: str, block: int) -> Iterator[Extent]:
    """The free ranges that dumpe2fs lists, as bytes within the file system."""
    for line in listing.splitlines():
        match = re.match(r"\s+Free blocks: (\d.*)", line)
        if match is None:
            continue
        for piece in match[1].split(","):
            first, _, last = piece.strip().partition("-")
            length = (int(last or first) - int(first) + 1) * block
            yield Extent(int(first) * block, length)


_PUNCH = 0x01 | 0x02  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE


def _punch(handle: int, extent: Extent) -> bool:
    """Make a hole; False where the file system can't."""
    libc = ctypes.CDLL(None, use_errno=True)
    offset, length = ctypes.c_int64(extent.offset), ctypes.c_int64(extent.length)
    while libc.fallocate(handle, _PUNCH, offset, length):
        code = ctypes.get_errno()
        if code == errno.EINTR:
            continue
        if code in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM):
            return False
        raise HostError(f"cannot erase free blocks: {os.strerror(code)}")
    return True


def erase(disk: Path, task: Task, *, offset: int = ROOT_OFFSET) -> int:
    """Make every free block of the ext file system at `offset` a hole (zeros where
    the host's file system has no holes); returns the bytes that were free. It is for
    the store to make that last."""
    task.phase("sealing: erasing free space")
    named = Path(f"{disk}?offset={offset}")
    # dumpe2fs 1.47.2 wants a file of this whole name to exist before it takes the offset from it.
    named.touch()
    try:
        listing = _tool(["dumpe2fs", str(named)], task).text
    finally:
        named.unlink()
    size = re.search(r"^Block size:\s+(\d+)", listing, re.MULTILINE)
    if size is None:
        raise BuildError(f"the sealed file system can't be read:\n{listing}")
    erased = 0
    with disk.open("r+b") as file:
        punching = True
        for extent in free_blocks(listing, int(size[1])):
            task.check()
            extent = Extent(offset + extent.offset, extent.length)
            punching = punching and _punch(file.fileno(), extent)
            if not punching:
                for at in range(extent.offset, extent.end, MIB):
                    os.pwrite(file.fileno(), bytes(min(MIB, extent.end - at)), at)
            erased += extent.length
    return erased

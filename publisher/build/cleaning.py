"""Cleaning the guest: the last thing that happens in it, when all of its services have
stopped and nothing writes any more.

A unit does it that waits for shutdown.target as systemd-poweroff.service does (systemd.special(7)),
and whose end is the end of the machine: it powers off when all is clean, and restarts when it is
not, which QEMU tells apart. When all file systems could be made read-only there is nothing
left for systemd-shutdown(8) to do, and the power goes at once.
"""

from __future__ import annotations

import os
import shlex

from publisher.build import archives
from publisher.errors import BuildError, UsageError
from publisher.task import Task
from publisher.vm.machine import Machine
from publisher.vm.shell import Shell

SSHD_DROP_IN = "/etc/ssh/sshd_config.d/00-build.conf"
"""Lets root in during the build."""
SHUTDOWN = 300.0
"""Seconds for the guest's services to stop, and for the cleaning."""

# @KEY@ is our public key. Only traces of the build and of this machine's life
# go: what the steps put in place stays.
# Every program costs an emulated guest 50 ms and more: so what is to be removed is
# collected in "$@" (patterns that match nothing stay as they are, which rm -f takes),
# and what waits for others runs beside them. 10.0.2.3 is QEMU's name server.
_CLEAN = r"""
{
    # packages that lie where apt puts them by itself are removed below without it
    if grep -qsi '^ *dir' /etc/apt/apt.conf /etc/apt/apt.conf.d/*; then apt-get clean; fi
    if command -v dnf >/dev/null; then dnf -q clean all; fi
    if command -v zypper >/dev/null; then zypper -q clean --all; fi
} &
packages=$!
journalctl --relinquish-var &
journal=$!

if [ -e /@SEALED@ ]; then mv -f /@SEALED@ /etc/apt/sources.list; fi
printf 'localhost\n' > /etc/hostname
: > /etc/machine-id
if [ -f /etc/resolv.conf ] && [ ! -L /etc/resolv.conf ]; then
    while read -r word address _; do
        if [ "$word $address" != 'nameserver 10.0.2.3' ]; then continue; fi
        : > /etc/resolv.conf
        break
    done < /etc/resolv.conf
fi
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
    /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/apt/archives/*deb \
    /var/cache/apt/archives/partial/* /var/cache/debconf/*-old /var/lib/dpkg/*-old \
    /etc/passwd- /etc/shadow- /etc/group- /etc/gshadow- /etc/subuid- /etc/subgid- \
    /var/lib/cloud /etc/netplan/50-cloud-init.yaml /etc/network/interfaces.d/50-cloud-init* \
    /etc/systemd/network/*-cloud-init-* /etc/ssh/sshd_config.d/50-cloud-init.conf \
    /etc/sudoers.d/90-cloud-init-users /etc/apt/apt.conf.d/90cloud-init-pipelining \
    /etc/NetworkManager/system-connections/cloud-init-* \
    /etc/udev/rules.d/70-persistent-net.rules \
    /root/anaconda-ks.cfg /root/original-ks.cfg /root/initial-setup-ks.cfg \
    /etc/ssh/ssh_host_* @DROP_IN@ \
    /var/lib/systemd/random-seed /var/lib/systemd/credential.secret /etc/.pwd.lock \
    /var/lib/systemd/linger \
    /var/lib/dhcp/* /var/lib/dhclient/* /var/lib/NetworkManager/*.lease \
    /var/lib/dhcpcd/*.lease /var/lib/systemd/timesync /var/lib/private/systemd/timesync \
    /var/lib/systemd/timers /var/log/journal/* /var/cache/ldconfig/aux-cache /var/cache/man/*
if [ -d /root/.ssh ]; then rmdir /root/.ssh 2>/dev/null || true; fi
find /var/log -xdev ! -type d -delete &
logs=$!
find /tmp /var/tmp /var/crash -xdev -mindepth 1 -delete 2>/dev/null || true
wait "$logs"
@TIMES@
sync
fstrim --all || true
"""

# A file system of a kind that is not named here, or that something still writes to, is left
# to systemd, which ends all processes first.
_END = r"""
orderly=
while read -r _ place kind options _; do
    case $options in rw | rw,*) ;; *) continue ;; esac
    case $kind in
    ext[234] | xfs | btrfs | f2fs | vfat) mount -o remount,ro "$place" || orderly=yes ;;
    autofs | binfmt_misc | bpf | cgroup | cgroup2 | configfs | debugfs | devpts | devtmpfs) ;;
    efivarfs | fusectl | hugetlbfs | mqueue | proc | pstore | ramfs | rpc_pipefs) ;;
    securityfs | selinuxfs | sysfs | tmpfs | tracefs) ;;
    *) orderly=yes ;;
    esac
done < /proc/mounts
if [ "$orderly" ]; then
    systemctl --force --no-block poweroff
    exec sleep @SHUTDOWN@
fi
"""

_PLACE = "/run/publisher-clean"
_UNIT_FILE = "/run/systemd/system/publisher-clean.service"
_UNIT = f"""
[Unit]
Description=Removal of the build's traces
DefaultDependencies=no
Requires=shutdown.target
After=shutdown.target
SuccessAction=poweroff-immediate
FailureAction=reboot-force

[Service]
Type=oneshot
ExecStart=/bin/sh -eu {_PLACE}
StandardOutput=tty
StandardError=tty
TimeoutStartSec={SHUTDOWN:.0f}
"""
# systemd looks through all of its directories for a unit that it did not see when it last
# did so, which takes an emulated guest a second: so the unit is there long before its use.
_WRITE_UNIT = f"printf '%s' {shlex.quote(_UNIT)} > {_UNIT_FILE}"
PREPARE = f"""
{_WRITE_UNIT}
mkdir -p {os.path.dirname(SSHD_DROP_IN)}
printf 'PermitRootLogin prohibit-password\\n' > {SSHD_DROP_IN}
"""
"""What a system does before root logs in for the build."""
# Nothing may start any more, and cancel the shutdown with it: hence "irreversibly".
# systemd-timesyncd ends only when the lookup of its time servers does, which takes seconds
# where an answer gets lost; it begins one whenever the clock was set, as at each waking.
_LEAVE = f"""
umask 077
printf %s {{script}} > {_PLACE}
[ -e {_UNIT_FILE} ] || {_WRITE_UNIT}
trap '' TERM HUP
systemctl --no-block --job-mode=replace-irreversibly start publisher-clean.service || exit
systemctl kill --signal=KILL systemd-timesyncd.service 2>/dev/null || true
"""


def epoch() -> int | None:
    """SOURCE_DATE_EPOCH, in seconds. https://reproducible-builds.org/specs/source-date-epoch/

    Raises UsageError."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if not given:
        return None
    if not given.isdigit():
        raise UsageError(f"SOURCE_DATE_EPOCH={given} is no number of seconds")
    return int(given)


def script(user_key: str, epoch: int | None = None) -> str:
    """What cleans a guest in which the build logged in with this public key; after it
    no file is younger than `epoch`, seconds since 1970."""
    times = ""
    if epoch is not None:
        times = f"find / -xdev -newermt @{epoch} -exec touch -h -d @{epoch} {{}} +\n"
    text = _CLEAN.replace("@KEY@", shlex.quote(" ".join(user_key.split()[:2])))
    text = text.replace("@DROP_IN@", SSHD_DROP_IN).replace("@SEALED@", archives.SEALED)
    end = _END.replace("@SHUTDOWN@", f"{SHUTDOWN:.0f}")
    return text.replace("@TIMES@\n", times) + end


def clean(shell: Shell, machine: Machine, script: str, task: Task) -> None:
    """Stop all that runs in the guest, clean it by `script`, and wait until it has
    powered off. Raises BuildError when that fails."""
    task.phase("sealing: cleaning")
    shell.leave(_LEAVE.replace("{script}", shlex.quote(script)))
    try:
        machine.wait_down(SHUTDOWN * 2)
    except BuildError as error:
        if machine.shutdown == "guest-reset":
            raise BuildError(
                "cleaning the guest failed; its console said last:\n" + machine.tracker.last_lines()
            ) from error
        raise

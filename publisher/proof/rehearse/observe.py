"""What a booted guest says about itself, in one command over ssh."""

from __future__ import annotations

import json
import shlex
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from publisher.errors import BuildError
from publisher.model import Noun
from publisher.proof.rehearse.userdata import MARK
from publisher.vm.shell import Shell

WAIT = 300
"""Seconds after the login that first-boot work may go on."""
SETTLE = 120
"""Seconds after that until systemd has nothing left to start."""

_WORDS_MOST = 400
_BLOCK = "/sys/class/block"

# Tools of the image may be missing: each answer stands alone, and an empty one counts as
# none. Every program costs an emulated guest tens of milliseconds and this one's answers
# are waited for: so the shell reads files and joins words itself, and waits in systemctl.
_SCRIPT = r"""
say() { key=$1; set -f; set -- $2; set +f; printf '%s\t%s\n' "$key" "$*"; }
each() { while IFS= read -r line; do [ -z "$line" ] || say "$1" "$line"; done; }
file() {
    text=
    if [ -r "$2" ]; then
        while IFS= read -r line || [ -n "$line" ]; do text="$text $line"; done < "$2"
    fi 2>/dev/null
    say "$1" "$text"
}
settle() {
    [ -d /run/systemd/system ] || return
    system=$(timeout @SETTLE@ systemctl is-system-running --wait 2>/dev/null)
    ended=$?
    case $system in "" | initializing | starting) ;; *) return ;; esac
    # before 240 it does not wait, or does not know the option
    until=$(( $(date +%s) + @SETTLE@ ))
    while
        system=$(systemctl is-system-running 2>/dev/null)
        case $system in initializing | starting) ;; *) return ;; esac
        [ $ended -ne 124 ] && [ "$(date +%s)" -lt $until ]
    do
        sleep 0.5
    done
}
if [ @WAIT@ -gt 0 ]; then
    end=$(( $(date +%s) + @WAIT@ )) slow=
    settle
    if [ -d /run/cloud-init ] && [ ! -e /run/cloud-init/disabled ]; then
        while [ ! -e /run/cloud-init/result.json ] && [ "$(date +%s)" -lt $end ]; do
            slow=yes
            sleep 0.5
        done
    fi
    [ -z "$slow" ] || settle
    say system "$system"
    failed=$(systemctl --failed --plain --no-legend --no-pager 2>/dev/null)
    printf '%s\n' "$failed" | each failed
    printf '%s\n' "$failed" | while [ "${asked=0}" -lt 5 ] && read -r unit _; do
        asked=$((asked + 1))
        [ -n "$unit" ] || continue
        words=$(journalctl -b -q -o cat -n 3 _SYSTEMD_UNIT="$unit" 2>/dev/null)
        say why "$unit ${words:-$(systemctl show -p Result --value "$unit" 2>/dev/null)}"
    done
fi
file kernel /proc/sys/kernel/osrelease
(. /etc/os-release && say name "$PRETTY_NAME") 2>/dev/null
if [ -d /sys/firmware/efi ]; then say firmware uefi; else say firmware bios; fi
secure=/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c
[ -r $secure ] && say secure "$(od -An -tu1 -j4 -N1 $secure 2>/dev/null)"
file tpm /sys/class/tpm/tpm0/tpm_version_major
# the words of its head line are seven, those that follow of /
set -- $(LC_ALL=C df -Pk / 2>/dev/null)
root=$8 filesystem=$9
case $root in
/dev/root | "") root=$(findmnt -nvo SOURCE / 2>/dev/null || echo "$root") ;;
esac
say root "$root"
say filesystem "$filesystem"
[ -L "$root" ] && device=$(readlink -f "$root" 2>/dev/null) || device=$root
file root_start "@BLOCK@/${device##*/}/start"
file root_size "@BLOCK@/${device##*/}/size"
for start in "@BLOCK@/${device##*/}/../"*/start; do
    part=${start%/start} at=
    { read -r at < "$start"; } 2>/dev/null
    [ -z "$at" ] || say partition "${part##*/} $at"
done
file hostname /proc/sys/kernel/hostname
ip -4 -o address show scope global 2>/dev/null | while read -r _ card _ address _; do
    say address "$card $address"
done
file cmdline /proc/cmdline
file console /sys/class/tty/console/active
file begun @MARK@/begun
file done @MARK@/done
file instance /var/lib/cloud/data/instance-id
file status /run/cloud-init/status.json
if command -v cloud-init >/dev/null; then say cloud_init yes; fi
[ -e /run/cloud-init/disabled ] && say disabled yes
for public in /etc/ssh/ssh_host_*_key.pub; do
    { read -r kind value _ < "$public" && say host_key "$kind $value"; } 2>/dev/null
done
file machine_id /etc/machine-id
say machine_id_made "$(stat -c %Y /etc/machine-id 2>/dev/null)"
while read -r name value; do
    if [ "$name" = btime ]; then say booted "$value"; break; fi
done < /proc/stat
set -- @AGENTS@
if [ $# -gt 0 ]; then
    systemctl is-active "$@" 2>/dev/null | while read -r state; do
        [ "$state" = active ] && say agent "$1"
        shift
    done
fi
say end yes
"""


@dataclass(frozen=True, slots=True)
class Facts(Noun):
    """A guest's answers; what it could not answer is empty. Sizes are in bytes."""

    kernel: str = ""
    name: str = ""
    firmware: str = ""
    secure: bool = False
    tpm: str = ""
    root: str = ""
    root_end: int = 0
    """Of the root file system's partition, on the disk; 0 when it is on none."""
    root_size: int = 0
    behind: str = ""
    """The partition that begins next behind that one."""
    filesystem: int = 0
    hostname: str = ""
    address: str = ""
    cmdline: str = ""
    consoles: tuple[str, ...] = ()
    system: str = ""
    """systemd's word for the whole: running, degraded, starting …"""
    failed: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    """What the first failed units said last: "unit words …"."""
    cloud_init: bool = False
    disabled: bool = False
    """cloud-init found no cloud, or was told to stay out."""
    datasource: str = ""
    errors: tuple[str, ...] = ()
    """What cloud-init counts as its errors."""
    instance: str = ""
    begun: str = ""
    done: str = ""
    """The tokens that user data left before sshd started and at the very end."""
    host_keys: tuple[str, ...] = ()
    machine_id: str = ""
    machine_id_age: int = 0
    """Seconds that the machine id is older than the boot; negative: made in it."""
    agents: tuple[str, ...] = ()


def _number(text: str) -> int:
    return int(text) if text.strip().isdigit() else 0


def _cloud_init(text: str) -> tuple[str, tuple[str, ...]]:
    """The datasource's name without its transport, and the errors of all stages."""
    try:
        status = json.loads(text)["v1"]
        errors = [
            str(error)
            for stage in status.values()
            if isinstance(stage, Mapping)
            for error in stage.get("errors", ())
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        return "", ()
    name = str(status.get("datasource") or "").split(" ")[0]
    return name.removeprefix("DataSource").removesuffix("Local"), tuple(errors)


def _behind(partitions: Sequence[str], end: int) -> str:
    """The first of "name start" that begins at `end` (a sector) or later."""
    found = [(_number(at), name) for name, _, at in (p.partition(" ") for p in partitions)]
    return min((own for own in found if end and own[0] >= end), default=(0, ""))[1]


def parse(lines: Sequence[str]) -> Facts:
    """Facts from the script's answer. Raises BuildError when it is not whole."""
    answers: dict[str, list[str]] = defaultdict(list)
    for line in lines:
        key, tab, value = line.partition("\t")
        if tab and value.strip():
            answers[key].append(value.strip())
    one = {key: values[-1] for key, values in answers.items()}
    if "end" not in one:
        raise BuildError(f"the guest's answer is cut short: {' '.join(lines[-3:])}")
    start, size = _number(one.get("root_start", "")), _number(one.get("root_size", ""))
    made, booted = _number(one.get("machine_id_made", "")), _number(one.get("booted", ""))
    datasource, errors = _cloud_init(one.get("status", ""))
    return Facts(
        kernel=one.get("kernel", ""),
        name=one.get("name", ""),
        firmware=one.get("firmware", ""),
        secure=one.get("secure") == "1",
        tpm=one.get("tpm", ""),
        root=one.get("root", ""),
        root_end=(start + size) * 512 if start else 0,
        root_size=size * 512,
        behind=_behind(answers["partition"], start + size if start else 0),
        filesystem=_number(one.get("filesystem", "")) * 1024,
        hostname=one.get("hostname", ""),
        address=" ".join(answers["address"]),
        cmdline=one.get("cmdline", ""),
        consoles=tuple(one.get("console", "").split()),
        system=one.get("system", ""),
        failed=tuple(line.split()[0] for line in answers["failed"]),
        reasons=tuple(line[:_WORDS_MOST] for line in answers["why"]),
        cloud_init="cloud_init" in one,
        disabled="disabled" in one,
        datasource=datasource,
        errors=errors,
        instance=one.get("instance", ""),
        begun=one.get("begun", ""),
        done=one.get("done", ""),
        host_keys=tuple(answers["host_key"]),
        machine_id=one.get("machine_id", ""),
        machine_id_age=booted - made if made and booted else 0,
        agents=tuple(answers["agent"]),
    )


def observe(shell: Shell, agents: Sequence[str], *, wait: bool) -> Facts:
    """Ask, also which of these units are active; with `wait` once all first-boot work
    is done and systemd has settled. Raises BootError when the guest dies under it,
    BuildError when it can't answer."""
    script = _SCRIPT.replace("@WAIT@", str(WAIT if wait else 0)).replace("@SETTLE@", str(SETTLE))
    script = script.replace("@MARK@", MARK).replace("@BLOCK@", _BLOCK)
    script = script.replace("@AGENTS@", shlex.join(agents))
    done = shell.command("sudo -n sh -s 2>/dev/null || sh -s", stdin=[script.encode()])
    return parse(done.tail)

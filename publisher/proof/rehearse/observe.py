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

# Tools of the image may be missing: each answer stands alone, and an empty one counts as none.
_SCRIPT = r"""
say() { printf '%s\t%s\n' "$1" "$(printf %s "$2" | tr '\n\t' '  ')"; }
each() { while IFS= read -r line; do [ -z "$line" ] || say "$1" "$line"; done; }
end=$(( $(date +%s) + @WAIT@ ))
if [ @WAIT@ -gt 0 ] && [ -d /run/cloud-init ] && [ ! -e /run/cloud-init/disabled ]; then
    while [ ! -e /run/cloud-init/result.json ] && [ "$(date +%s)" -lt $end ]; do
        sleep 0.3
    done
fi
if [ @WAIT@ -gt 0 ] && [ -d /run/systemd/system ]; then
    say system "$(timeout @SETTLE@ systemctl is-system-running --wait 2>/dev/null ||
        systemctl is-system-running 2>/dev/null)"
    systemctl --failed --plain --no-legend --no-pager 2>/dev/null | each failed
    for unit in $(systemctl --failed --plain --no-legend 2>/dev/null | awk 'NR < 6 { print $1 }')
    do
        words=$(journalctl -b -q -o cat -n 3 _SYSTEMD_UNIT="$unit" 2>/dev/null)
        say why "$unit ${words:-$(systemctl show -p Result --value "$unit" 2>/dev/null)}"
    done
fi
say user "$(id -un)"
say kernel "$(uname -r)"
say name "$(. /etc/os-release 2>/dev/null; echo "$PRETTY_NAME")"
if [ -d /sys/firmware/efi ]; then say firmware uefi; else say firmware bios; fi
say secure "$(od -An -tu1 -j4 -N1 \
    /sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c 2>/dev/null)"
say tpm "$(cat /sys/class/tpm/tpm0/tpm_version_major 2>/dev/null)"
root=$(findmnt -nvo SOURCE / 2>/dev/null || awk '$2 == "/" { print $1 }' /proc/mounts | tail -n 1)
say root "$root"
device=/sys/class/block/$(basename "$(readlink -f "$root" 2>/dev/null || echo none)")
say root_start "$(cat "$device/start" 2>/dev/null)"
say root_size "$(cat "$device/size" 2>/dev/null)"
say filesystem "$(df -Pk / | awk 'NR == 2 { print $2 }')"
say hostname "$(cat /proc/sys/kernel/hostname)"
say address "$(ip -4 -o address show scope global 2>/dev/null | awk '{ print $2, $4 }')"
say cmdline "$(cat /proc/cmdline)"
say console "$(cat /sys/class/tty/console/active 2>/dev/null)"
say begun "$(cat @MARK@/begun 2>/dev/null)"
say done "$(cat @MARK@/done 2>/dev/null)"
say instance "$(cat /var/lib/cloud/data/instance-id 2>/dev/null)"
say status "$(cat /run/cloud-init/status.json 2>/dev/null)"
say identify "$(cat /run/cloud-init/ds-identify.log 2>/dev/null | tail -n 3)"
if command -v cloud-init >/dev/null; then say cloud_init yes; fi
[ -e /run/cloud-init/disabled ] && say disabled yes
cat /etc/ssh/ssh_host_*_key.pub 2>/dev/null | awk '{ print $1, $2 }' | each host_key
say machine_id "$(cat /etc/machine-id 2>/dev/null)"
say machine_id_made "$(stat -c %Y /etc/machine-id 2>/dev/null)"
say booted "$(awk '$1 == "btime" { print $2 }' /proc/stat)"
for agent in @AGENTS@; do
    systemctl is-active -q "$agent" 2>/dev/null && say agent "$agent"
done
say end yes
"""


@dataclass(frozen=True, slots=True)
class Facts(Noun):
    """A guest's answers; what it could not answer is empty. Sizes are in bytes."""

    user: str = ""
    kernel: str = ""
    name: str = ""
    firmware: str = ""
    secure: bool = False
    tpm: str = ""
    root: str = ""
    root_end: int = 0
    """Of the root file system's partition, on the disk; 0 when it is on none."""
    root_size: int = 0
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
        user=one.get("user", ""),
        kernel=one.get("kernel", ""),
        name=one.get("name", ""),
        firmware=one.get("firmware", ""),
        secure=one.get("secure") == "1",
        tpm=one.get("tpm", ""),
        root=one.get("root", ""),
        root_end=(start + size) * 512 if start else 0,
        root_size=size * 512,
        filesystem=_number(one.get("filesystem", "")) * 1024,
        hostname=one.get("hostname", ""),
        address=one.get("address", ""),
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
    script = script.replace("@MARK@", MARK).replace("@AGENTS@", shlex.join(agents))
    done = shell.command("sudo -n sh -s 2>/dev/null || sh -s", stdin=[script.encode()])
    return parse(done.tail)

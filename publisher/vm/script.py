"""The command line that runs a script in the guest: variables, directory, time limit."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

RUN = "/run"
"""A tmpfs of the guest: what is written there never reaches its disk."""
SWAPS = "/proc/swaps"
_QUIET = "</dev/null >/dev/null 2>&1"


def exports(environment: Mapping[str, str]) -> bytes:
    """Shell text that sets variables; it goes over standard input, never into a
    command line, which every process of the guest may read."""
    lines = (f"export {name}={shlex.quote(value)}\n" for name, value in environment.items())
    return "".join(lines).encode()


def store_exports() -> str:
    """Keep the standard input as the next script's variables, if they stay in
    memory: 90 when /run is on a disk, 91 when the guest swaps to one."""
    # zram is swap in memory; field 1 of the first line is a title
    return (
        f'case "$(stat -f -c %T {RUN})" in tmpfs|ramfs) ;; *) exit 90;; esac; '
        f"if sed 1d {SWAPS} | grep -qv ^/dev/zram; then exit 91; fi; "
        f"umask 077; cat > {RUN}/publisher-environment"
    )


def command_line(
    interpreter: str, directory: str, timeout: float | None, *, environment: bool
) -> str:
    """Run the script that comes on standard input, with an empty input of its own.

    Past `timeout` seconds the script's process group is killed, and
    RUN/publisher-late says so."""
    file, late = f"{RUN}/publisher-script", f"{RUN}/publisher-late"
    start = f"{interpreter} {file} </dev/null 2>&1"
    line = (
        f"umask 077; cat > {file}; umask 022; "
        "export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8; "
    )
    if environment:
        line += f". {RUN}/publisher-environment; rm -f {RUN}/publisher-environment; "
    line += f"cd {shlex.quote(directory)} || exit 1; "
    if timeout is None:
        line += f"{start}; status=$?; "
    else:
        # the clock has a group of its own too, so that its sleep does not stay behind;
        # dash and bash both take this form of kill; bash tells of killed children
        clock = f'sleep {timeout:g}; : > {late}; kill -s KILL -- "-$1"'
        line += (
            f"rm -f {late}; {{ setsid {start} & script=$!; "
            f"setsid sh -c {shlex.quote(clock)} clock $script {_QUIET} & clock=$!; "
            "wait $script; status=$?; kill -s KILL -- -$clock; } 2>/dev/null; "
        )
    return f"{line}rm -f {file}; exit $status"


def was_late() -> str:
    """Succeeds once when the last script ran into its time limit."""
    return f"rm {RUN}/publisher-late 2>/dev/null"

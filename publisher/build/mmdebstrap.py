"""mmdebstrap: packages ▶ a tar file of the root directory, and whose fault a failure is."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

from publisher.build import archives, binfmt, files
from publisher.build.namespace import Namespace
from publisher.build.suites import merged_usr, packages
from publisher.build.workspace import Workspace
from publisher.errors import BuildError, HostError
from publisher.recipe import Debian
from publisher.task import Task
from publisher.vm import process
from publisher.vm.arch import Platform, is_native
from publisher.vm.machine import full

ATTEMPTS = 3
"""Installations tried, each without the packages that the archive turned out to lack."""

# Run by mmdebstrap before any package: $1 is the tree, $2 our preferences; the rest
# are directories that become links into /usr.
SETUP = r"""#!/bin/sh
set -eu
cp "$2" "$1/etc/apt/preferences.d/absent"
# whoever cuts the power installs it anew
mkdir -p "$1/etc/dpkg/dpkg.cfg.d"
echo force-unsafe-io > "$1/etc/dpkg/dpkg.cfg.d/unsafe-io"
root=$1
shift 2
for directory; do
    mkdir -p "$root/usr/$directory"
    ln -s "usr/$directory" "$root/$directory"
done
"""

# Run by mmdebstrap when all packages are in place: $1 is the tree, $2 the
# directory with our own files, $3 the one for results.
HOOK = r"""#!/bin/sh
set -eu
root=$1 ours=$2 results=$3
cp -a "$ours/." "$root/"
rm -f "$root"/etc/ssh/ssh_host_*_key "$root"/etc/ssh/ssh_host_*_key.pub
rm -f "$root"/etc/.resolv.conf.*.bak "$root"/var/lib/systemd/random-seed
: > "$root/etc/machine-id"
chroot "$root" systemctl enable systemd-networkd.service systemd-timesyncd.service
if [ -e "$root/lib/systemd/system/systemd-resolved.service" ]; then
    chroot "$root" systemctl enable systemd-resolved.service
    ln -sf ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
else
    : > "$root/etc/resolv.conf"
fi
if [ -d "$root/usr/lib/grub/i386-pc" ]; then
    mkdir -p "$root/boot/grub/i386-pc" "$root/boot/grub/fonts"
    cp "$root"/usr/lib/grub/i386-pc/*.mod "$root"/usr/lib/grub/i386-pc/*.lst \
        "$root/boot/grub/i386-pc/"
    cp "$root/usr/lib/grub/i386-pc/boot.img" "$root/boot/grub/i386-pc/"
    chroot "$root" grub-mkimage -O i386-pc -p '(,gpt1)/boot/grub' \
        -o /boot/grub/i386-pc/core.img biosdisk part_gpt ext2 search_fs_uuid
fi
if [ -e "$root/usr/share/doc/grub-efi-arm64" ]; then
    # its upgrades renew the loader also where firmware without variables looks for it
    printf 'grub-efi-arm64 grub2/%s boolean %s\n' force_efi_extra_removable true \
        update_nvram false | chroot "$root" debconf-set-selections
fi
rm -f "$root/etc/apt/preferences.d/absent" "$root/etc/dpkg/dpkg.cfg.d/unsafe-io"
chroot "$root" grub-editenv /boot/grub/grubenv create
cp "$root/etc/apt/sources.list" "$results/sources.list"
# the further archives were read with keys outside of the tree
grep -vF "$ours/" "$results/sources.list" > "$root/etc/apt/sources.list" || true
mkdir "$results/releases"
cp "$root"/var/lib/apt/lists/*_InRelease "$results/releases/" 2>/dev/null || true
"""


def bootstrap(
    source: Debian,
    lines: Sequence[str],
    further: Sequence[archives.Further],
    platform: Platform,
    namespace: Namespace,
    workspace: Workspace,
    task: Task,
) -> tuple[Path, dict[str, str]]:
    """The tar file, in the workspace, and the archive's signed indices: URL ▶ sha256.

    Raises BuildError, HostError, PipelineError."""
    task.phase(f"installing Debian {source.suite}")
    directory = workspace.directory
    ours = files.write_tree(directory / "ours", files.tree_files(platform))
    lines = [*lines, *archives.stage(source, further, ours)]
    results, temporary = directory / "results", directory / "tmp"
    for made in (results, temporary):
        made.mkdir(exist_ok=True)
    hook = directory / "hook.sh"
    hook.write_text(HOOK)
    tree = directory / "tree.tar"
    wanted = (*packages(source.suite, platform), *source.packages)
    preferences = directory / "preferences"
    argv = ["mmdebstrap", "--mode=root", "--variant=minbase", "--format=tar"]
    if not is_native(platform.arch):
        namespace = binfmt.emulating(namespace, platform, directory)
        argv.append("--skip=check/qemu")
    setup = directory / "setup.sh"
    setup.write_text(SETUP)
    links = " ".join(merged_usr(source.suite, platform))
    argv.append(f'--setup-hook=sh -eu "{setup}" "$1" "{preferences}" {links}')
    argv += [f"--architectures={platform.debian_arch}", f"--include={','.join(wanted)}"]
    argv += [f"--components={','.join(source.components)}", "--skip=cleanup/apt/lists"]
    argv += [f'--customize-hook=sh -eu "{hook}" "$1" "{ours}" "{results}"']
    argv += [source.suite, str(tree), *lines]
    without: dict[str, str] = {}
    for attempt in range(1, ATTEMPTS + 1):
        preferences.write_text(
            "\n".join(_PREFERENCE.format(name, version) for name, version in without.items())
        )
        done = process.run(
            namespace.wrap(argv),
            task,
            on_line=task.output,
            env=_environment(temporary, platform),
            keep=400,
        )
        if done.status == 0:
            return tree, _releases(results)
        lacking = {n: v for n, v in absent(done.tail).items() if n not in without}
        if not lacking or attempt == ATTEMPTS:
            break
        without |= lacking
        listed = ", ".join(f"{name} {version}" for name, version in lacking.items())
        task.note(
            f"the archive lists {listed} without having it: installing an earlier version",
            "warning",
        )
    raise failure(done.tail, source, directory)


_PREFERENCE = "Package: {}\nPin: version *{}\nPin-Priority: -1\n"


def absent(tail: Sequence[str]) -> dict[str, str]:
    """Package ▶ version (without epoch) of those that apt chose from the archive's
    index and could not get: a mirror in the middle of an update, or one that keeps
    not all of an old suite."""
    pattern = r"E: Failed to fetch \S+/([a-z0-9][a-z0-9+.-]+)_([^_/\s]+)_[a-z0-9]+\.deb +404 "
    return {name: unquote(version) for name, version in re.findall(pattern, "\n".join(tail))}


def _environment(temporary: Path, platform: Platform) -> dict[str, str]:
    passed = ("http_proxy", "https_proxy", "no_proxy", "SOURCE_DATE_EPOCH")
    environment = {name: os.environ[name] for name in passed if name in os.environ}
    return {
        **environment,
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
        "TMPDIR": str(temporary),
        # the emulator's own choice signs pointers as ARM's do, which takes it 17 times as long
        "QEMU_CPU": platform.cpu,
    }


def _releases(results: Path) -> dict[str, str]:
    """URL ▶ sha256 of the InRelease files that apt downloaded."""
    found = {path.name: path for path in (results / "releases").glob("*_InRelease")}
    releases = {}
    for line in (results / "sources.list").read_text().splitlines():
        match = re.match(r"deb\s+(?:\[[^]]*\]\s+)?(\S+)\s+(\S+)", line)
        if match is None:
            continue
        url = f"{match[1].rstrip('/')}/dists/{match[2]}/InRelease"
        # apt's own naming of its list files
        path = found.get(url.partition("://")[2].replace("_", "%5f").replace("/", "_"))
        if path is not None:
            releases[url] = hashlib.sha256(path.read_bytes()).hexdigest()
    return releases


def failure(tail: Sequence[str], source: Debian, directory: Path) -> PublishFailure:
    """mmdebstrap's failure as our error: which key is to blame."""
    text = "\n".join(tail)
    unknown = re.findall(
        r"Unable to locate package (\S+)|Package '?([^' ]+)'? has no installation candidate", text
    )
    names = sorted({first or second for first, second in unknown})
    if "No space left on device" in text:
        return full(directory)
    if names:
        what = "package" if len(names) == 1 else "packages"
        return BuildError(
            f"Debian {source.suite} has no {what} {', '.join(names)}",
            key="build.source.debian.packages"
            if set(names) & set(source.packages)
            else "build.source.debian.suite",
            hint="look for the name on packages.debian.org, or add its component to "
            "build.source.debian.components",
        )
    lacking = absent(tail)
    if lacking:
        listed = ", ".join(f"{name} {version}" for name, version in lacking.items())
        return BuildError(
            f"the archive lists {listed} without having it, and has no earlier version",
            key="build.source.debian.suite",
            hint="try again later, or name another mirror in build.source.debian.mirror",
        )
    stale = re.search(r"Release file for (\S+) is expired \(invalid since ([^)]+?)\)", text)
    if stale:
        return BuildError(
            f"the mirror is out of date: {stale[1]} has been invalid for {stale[2]}",
            key="build.source.debian.mirror",
            hint="name a mirror that is up to date, or a moment of the past in "
            "build.source.debian.snapshot",
        )
    if re.search(r"does not have a Release file|404 +Not Found", text):
        return BuildError(
            f"the mirror has no suite {source.suite!r}",
            key="build.source.debian.suite",
            hint="use a suite such as bookworm or trixie",
        )
    if re.search(r"Could not (resolve|connect)|Temporary failure|Connection (refused|timed)", text):
        return BuildError(
            "the Debian mirror does not answer",
            key="build.source.debian.mirror",
            hint="check the address and this machine's network",
        )
    last = "\n".join([line for line in tail if line.strip()][-15:])
    return BuildError(f"mmdebstrap failed:\n{last}", key="build.source.debian")


PublishFailure = BuildError | HostError

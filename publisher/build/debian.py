"""Source `debian`: a fresh installation by mmdebstrap, kept as a tar file until
its inputs or the archive change."""

from __future__ import annotations

import hashlib
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from publisher.build import archives, binfmt, files
from publisher.build.namespace import Namespace
from publisher.build.workspace import Workspace
from publisher.errors import BuildError, HostError
from publisher.model import MIB
from publisher.recipe import Debian
from publisher.task import Task
from publisher.vm import process
from publisher.vm.arch import Platform, is_native
from publisher.vm.machine import full

FORMAT = 1
"""Changes when an old installation can't be used any more for other reasons than its inputs."""
KEEP = 3
"""Installations kept in the state directory."""
ATTEMPTS = 3
"""Installations tried, each without the packages that the archive turned out to lack."""

_BASE = (
    *("systemd-sysv", "udev", "dbus", "libpam-systemd", "kmod", "procps", "sudo", "less"),
    *("ca-certificates", "netbase", "iproute2", "netplan.io", "systemd-timesyncd", "tzdata"),
    *("openssh-server", "cloud-init", "cloud-guest-utils", "initramfs-tools", "zstd"),
    *("e2fsprogs", "fdisk", "dosfstools"),
)


def packages(suite: str, platform: Platform) -> tuple[str, ...]:
    """What every image holds. cloud-init asks for an address before the network
    is up with the DHCP client of its time."""
    old = suite in ("bullseye", "bookworm")
    changing = ["isc-dhcp-client" if old else "dhcpcd-base"]
    if suite != "bullseye":
        changing.append("systemd-resolved")
    return (*_BASE, *changing, platform.debian_kernel, *platform.debian_boot)


def merged_usr(suite: str, platform: Platform) -> tuple[str, ...]:
    """The directories to make links into /usr: Debian's installer does so since
    Debian 10, and since Debian 12 a package does."""
    if suite != "bullseye":
        return ()
    return ("bin", "sbin", "lib", *(("lib64",) if platform.arch == "x86_64" else ()))


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=20):  # noqa: S310 apt reads the same address
            return True
    except (OSError, ValueError):
        return False


def sources(source: Debian, task: Task) -> list[str]:
    """Lines of sources.list for mmdebstrap; empty without a mirror or a snapshot,
    because mmdebstrap then adds its own, with updates and security."""
    if source.mirror is None and source.snapshot is None:
        return archives.live(source) if source.repositories else []
    suite, components, found = source.suite, source.components, archives.official(source)
    lines = [found.line(suite, components)]
    if suite in archives.ROLLING:
        return lines
    if _answers(f"{found.archive}/dists/{suite}-updates/InRelease"):
        lines.append(found.line(f"{suite}-updates", components))
    if _answers(f"{found.security}/dists/{suite}-security/InRelease"):
        lines.append(found.line(f"{suite}-security", components, security=True))
    else:
        task.note(f"the mirror has no {source.suite}-security: no security updates", "warning")
    return lines


@dataclass(frozen=True, slots=True)
class Installation:
    """`tree` is a tar file of the root directory. `releases` are the archive's
    signed indices at that time: URL ▶ sha256."""

    tree: Path
    releases: Mapping[str, str]

    @property
    def size(self) -> int:
        return self.tree.stat().st_size

    @property
    def state(self) -> Mapping[str, str]:
        """All that tells this installation from another one of the same source: what
        this program puts into it, and the archive's indices."""
        return {"installation": self.tree.stem, **self.releases}


def key(source: Debian, lines: Sequence[str], platform: Platform, further: str = "") -> str:
    """sha256 over everything that decides what gets installed, except for the archive;
    `further` is the digest of the further ones."""
    wanted = (*packages(source.suite, platform), *source.packages)
    inputs = [FORMAT, source.suite, source.components, lines, wanted, platform.debian_arch]
    inputs += [files.tree_files(platform), _SETUP, _HOOK, os.environ.get("SOURCE_DATE_EPOCH", "")]
    inputs += [source.snapshot, further]
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def install(
    source: Debian,
    platform: Platform,
    namespace: Namespace,
    workspace: Workspace,
    task: Task,
    *,
    directory: Path = Path(),
) -> Installation:
    """The installation, from the state directory when nothing changed since. Key
    files are relative to `directory`.

    Raises BuildError or PipelineError with the key that is to blame."""
    further = archives.further(source, directory)
    lines = sources(source, task)
    store = workspace.store.directory.parent / "bootstrap"
    store.mkdir(parents=True, exist_ok=True)
    name = key(source, lines, platform, archives.digest(further))
    kept = _kept(store / f"{name}.json")
    if kept is not None:
        changed = _changed(kept, task)
        if not changed:
            task.output("Debian: installed before, and the archive is the same")
            os.utime(kept.tree)
            return kept
        task.output(f"Debian: installed before, but {changed}")
    workspace.need(3 * 1024 * MIB)
    made = _bootstrap(source, lines, further, platform, namespace, workspace, task)
    target = store / f"{name}.tar"
    os.replace(made.tree, target)
    description = workspace.directory / "bootstrap.json"
    description.write_text(json.dumps({"releases": dict(made.releases)}))
    os.replace(description, target.with_suffix(".json"))
    _prune(store)
    return Installation(target, made.releases)


def _kept(description: Path) -> Installation | None:
    tree = description.with_suffix(".tar")
    try:
        releases = json.loads(description.read_text())["releases"]
    except (OSError, ValueError, KeyError):
        return None
    return Installation(tree, releases) if tree.exists() else None


def _prune(store: Path) -> None:
    trees = sorted(store.glob("*.tar"), key=lambda path: path.stat().st_mtime, reverse=True)
    for tree in trees[KEEP:]:
        tree.unlink(missing_ok=True)
        tree.with_suffix(".json").unlink(missing_ok=True)


def _changed(kept: Installation, task: Task) -> str:
    """What the archive changed since, in words. An archive that does not answer
    changed nothing that could be installed."""
    for url, digest in kept.releases.items():
        task.check()
        try:
            with urllib.request.urlopen(url, timeout=20) as answer:  # noqa: S310 apt's own address
                if hashlib.sha256(answer.read()).hexdigest() != digest:
                    return f"{url} changed since"
        except (OSError, ValueError) as error:
            task.note(f"{url} does not answer ({error}): using the earlier installation", "warning")
    return ""


# Run by mmdebstrap before any package: $1 is the tree, $2 our preferences; the rest
# are directories that become links into /usr.
_SETUP = r"""#!/bin/sh
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
_HOOK = r"""#!/bin/sh
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


def _bootstrap(
    source: Debian,
    lines: Sequence[str],
    further: Sequence[archives.Further],
    platform: Platform,
    namespace: Namespace,
    workspace: Workspace,
    task: Task,
) -> Installation:
    task.phase(f"installing Debian {source.suite}")
    directory = workspace.directory
    ours = files.write_tree(directory / "ours", files.tree_files(platform))
    lines = [*lines, *archives.stage(source, further, ours)]
    results, temporary = directory / "results", directory / "tmp"
    for made in (results, temporary):
        made.mkdir(exist_ok=True)
    hook = directory / "hook.sh"
    hook.write_text(_HOOK)
    tree = directory / "tree.tar"
    wanted = (*packages(source.suite, platform), *source.packages)
    preferences = directory / "preferences"
    argv = ["mmdebstrap", "--mode=root", "--variant=minbase", "--format=tar"]
    if not is_native(platform.arch):
        namespace = binfmt.emulating(namespace, platform, directory)
        argv.append("--skip=check/qemu")
    setup = directory / "setup.sh"
    setup.write_text(_SETUP)
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
            namespace.wrap(argv), task, on_line=task.output, env=_environment(temporary), keep=400
        )
        if done.status == 0:
            return Installation(tree, _releases(results))
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


def _environment(temporary: Path) -> dict[str, str]:
    passed = ("http_proxy", "https_proxy", "no_proxy", "SOURCE_DATE_EPOCH")
    environment = {name: os.environ[name] for name in passed if name in os.environ}
    return {
        **environment,
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
        "TMPDIR": str(temporary),
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

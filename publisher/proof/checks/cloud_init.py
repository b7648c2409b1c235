"""cloud-init: whether it runs, and which sources of instance data it looks at."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from publisher.model import MIB
from publisher.proof.inspect.inspection import Inspection
from publisher.proof.inspect.tree import Tree
from publisher.proof.rules import ERROR, NOTE, WARNING, Check, Evidence, Rule

_UNITS = (
    "cloud-init-main.service",
    "cloud-init.service",
    "cloud-init-local.service",
    "cloud-init-network.service",
    "cloud-config.service",
    "cloud-final.service",
)
"""Those of all versions: 24.3 brought cloud-init-main and -network in."""
_TARGET = "cloud-init.target"
_GENERATOR = "/etc/systemd/system-generators/cloud-init-generator"
"""Here a file takes the place of the package's own, which starts the target."""
_CONFIG = "/etc/cloud/cloud.cfg"
_LIST = re.compile(r"^['\"]?datasource_list['\"]?\s*:\s*(.*)$")
_CACHE = re.compile(r"manual_cache_clean\s*:\s*(true|yes|on)\b", re.IGNORECASE)
_ITEM = re.compile(r"^\s*-\s*(.*)$")


def version(disk: Inspection) -> tuple[int, ...] | None:
    """The version of cloud-init, () if it does not say, None if it is not installed."""
    tree = disk.tree()
    if not disk.program("cloud-init"):
        return None
    for pattern in ("/usr/lib/python3*/*-packages", "/usr/lib64/python3*/*-packages"):
        for path in tree.glob(f"{pattern}/cloudinit/version.py"):
            found = re.search(r'__VERSION__ = "(\d+(?:\.\d+)*)', tree.text(path, MIB))
            if found:
                return tuple(map(int, found[1].split(".")))
    return ()


def enabled(disk: Inspection) -> bool:
    """Installed, and nothing keeps it from running."""
    return version(disk) is not None and not any(
        found.severity is None for found in _disabled(disk)
    )


def _configs(tree: Tree) -> list[str]:
    """Its configuration files, in the order in which they count."""
    return [_CONFIG, *tree.glob("/etc/cloud/cloud.cfg.d/*.cfg")]


def sources(tree: Tree) -> tuple[list[str], str, int] | None:
    """The datasource_list that counts, its file and line; None without one."""
    return listed_sources((path, tree.text(path, MIB)) for path in _configs(tree))


def listed_sources(configs: Iterable[tuple[str, str]]) -> tuple[list[str], str, int] | None:
    """The same from (path, text) of configuration files, of which the last one counts."""
    found: tuple[list[str], str, int] | None = None
    for path, text in configs:
        lines = text.splitlines()
        for number, line in enumerate(lines):
            match = _LIST.match(line)
            if match:
                found = (_list(match[1], lines[number + 1 :]), path, number + 1)
    return found


def _list(first: str, rest: list[str]) -> list[str]:
    """A YAML list in brackets, which may go on in the next lines, or by dashes."""
    text = re.sub(r"\s#.*", "", first).strip()
    if text.startswith("["):
        for line in rest[:100]:
            if "]" in text:
                break
            text += " " + line.partition("#")[0]
        items = text.partition("]")[0].removeprefix("[").split(",")
    else:
        items = []
        for line in rest[:100]:
            match = _ITEM.match(line)
            if not match:
                break
            items.append(match[1].partition("#")[0])
    return [item.strip(" \"'") for item in items if item.strip(" \"'")]


def datasource(name: str) -> Check:
    """cloud-init looks at the datasource `name`."""

    def check(disk: Inspection) -> Iterator[Evidence]:
        if version(disk) is None:
            return
        tree = disk.tree()
        found = sources(tree)
        if found is not None:
            names, path, line = found
            shown = f"datasource_list: [{', '.join(names)}]"
            if name not in names:
                yield Evidence(f"{shown} lacks {name}", path, line)
            elif [n for n in names if n != "None"] == [name]:
                # ds-identify takes a single entry without looking at the machine
                text = f"{shown} has one entry, which no other cloud can use"
                yield Evidence(text, path, line, NOTE)
        path = "/etc/cloud/ds-identify.cfg"
        for number, line_ in tree.lines(path):
            key, _, value = line_.partition(":")
            if key.strip() == "datasource" and value.strip() not in ("", name):
                yield Evidence(f"ds-identify is told {line_}", path, number)

    return check


def early_dhcp(disk: Inspection) -> Iterator[Evidence]:
    """A client with which cloud-init asks for an address before the network is up."""
    now = version(disk)
    if now is None:
        return
    # when each client came: cloud-init's ChangeLog, 23.3 (udhcpc) and 24.1 (dhcpcd)
    usable = ["dhclient"]
    if not now or now >= (23, 3):
        usable.append("udhcpc")
    if not now or now >= (24, 1):
        usable.append("dhcpcd")
    if not any(disk.program(name) for name in usable):
        shown = ".".join(map(str, now)) or "of unknown version"
        yield Evidence(f"cloud-init {shown} needs {' or '.join(usable)}, and it is not installed")


def _disabled(disk: Inspection) -> Iterator[Evidence]:
    if version(disk) is None:
        return
    tree = disk.tree()
    if tree.exists("/etc/cloud/cloud-init.disabled"):
        yield Evidence("the file turns cloud-init off", "/etc/cloud/cloud-init.disabled")
    for number, line in tree.lines("/etc/cloud/ds-identify.cfg"):
        if re.match(r"policy:\s*disabled", line):
            yield Evidence(
                "ds-identify is told to disable it", "/etc/cloud/ds-identify.cfg", number
            )
    for number, line in tree.lines("/etc/environment"):
        if re.match(r"KERNEL_CMDLINE=.*cloud-init=disabled", line):
            yield Evidence("the environment turns cloud-init off", "/etc/environment", number)
    for unit in _UNITS:
        state = disk.unit(unit)
        if state in ("masked", "disabled"):
            yield Evidence(f"{unit} is {state}", f"/etc/systemd/system/{unit}")
    if disk.unit(_TARGET) == "masked":
        yield Evidence(f"{_TARGET} is masked", f"/etc/systemd/system/{_TARGET}")
    if disk.masks(_GENERATOR):
        yield Evidence("cloud-init's generator is masked", _GENERATOR)


def _seeds(disk: Inspection) -> Iterator[Evidence]:
    tree = disk.tree()
    for pattern in ("nocloud*", "configdrive*"):
        for path in tree.glob(f"/var/lib/cloud/seed/{pattern}"):
            if tree.names(path):
                yield Evidence("a seed of the build is left", path)


def _state(disk: Inspection) -> Iterator[Evidence]:
    for name in ("instance", "instances", "data", "sem"):
        path = f"/var/lib/cloud/{name}"
        if disk.tree().link(path) or disk.tree().names(path):
            yield Evidence("the state of an earlier instance is left", path)
            return


def _cache(disk: Inspection) -> Iterator[Evidence]:
    tree = disk.tree()
    for path in _configs(tree):
        for number, line in tree.lines(path):
            if _CACHE.match(line):
                yield Evidence(f"{line.strip()} in {path}", path, number)


def _network(disk: Inspection) -> Iterator[Evidence]:
    tree = disk.tree()
    for path in tree.glob("/etc/cloud/cloud.cfg.d/*.cfg"):
        for number, line in tree.lines(path):
            if re.match(r"network\s*:\s*\{\s*config\s*:\s*\"?disabled", line):
                yield Evidence("cloud-init is told to leave the network alone", path, number)


_DOCS = "https://docs.cloud-init.io/en/latest"
RULES = (
    Rule(
        "cloud-init.disabled",
        ERROR,
        "cloud-init, where it is installed, runs",
        "Without it an instance has no host name, no SSH key and no user-data.",
        f"{_DOCS}/howto/disable_cloud_init.html",
        "remove the marker, or run systemctl enable on its units",
        _disabled,
    ),
    Rule(
        "cloud-init.seed",
        ERROR,
        "No seed of the build is left",
        "A seed directory makes cloud-init take the build's data for the instance's own.",
        f"{_DOCS}/reference/datasources/nocloud.html",
        "remove /var/lib/cloud (cloud-init clean --seed)",
        _seeds,
    ),
    Rule(
        "cloud-init.state",
        WARNING,
        "No state of an earlier instance is left",
        "It holds the earlier instance's data, and what ran once does not run again where the "
        "instance's id is the same or can't be found.",
        f"{_DOCS}/reference/cli.html#clean",
        "run cloud-init clean --logs before the image is made",
        _state,
    ),
    Rule(
        "cloud-init.cache",
        WARNING,
        "cloud-init notices that it runs on another instance",
        "With manual_cache_clean it trusts the instance it has seen first: of a machine that is "
        "made from a disk that has run, host keys, users and user-data are the other one's.",
        f"{_DOCS}/reference/base_config_reference.html",
        "remove the setting",
        _cache,
    ),
    Rule(
        "cloud-init.network",
        NOTE,
        "cloud-init writes the network configuration",
        "With network: {config: disabled} the image's own configuration must fit every machine, "
        "and further network cards and addresses are not set up.",
        f"{_DOCS}/reference/network-config.html#disabling-network-configuration",
        "remove the setting, or check that the image uses DHCP on every card",
        _network,
    ),
)

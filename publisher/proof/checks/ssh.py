"""The SSH server and its configuration (sshd_config(5))."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from publisher.proof.inspect.budget import Damaged
from publisher.proof.inspect.inspection import Inspection
from publisher.proof.inspect.tree import Tree
from publisher.proof.rules import WARNING, Check, Evidence, Rule

PATH = "/etc/ssh/sshd_config"
NO_ROOT_PASSWORD = ("no", "prohibit-password", "without-password", "forced-commands-only")
"""Values of PermitRootLogin by which root can't log in by password."""
_INCLUDES_MOST = 200
_UNITS = ("ssh.service", "sshd.service", "ssh.socket", "sshd.socket")


@dataclass(frozen=True, slots=True)
class Setting:
    value: str
    path: str
    line: int


def settings(tree: Tree) -> dict[str, Setting]:
    """Keyword in lower case ▶ the setting that counts: the first one, outside of Match."""
    found: dict[str, Setting] = {}
    _read(tree, PATH, found, [])
    return found


def _read(tree: Tree, path: str, found: dict[str, Setting], seen: list[str]) -> None:
    seen.append(path)
    if len(seen) > _INCLUDES_MOST:
        raise Damaged("sshd's configuration includes files without end")
    for number, line in tree.lines(path):
        # "Keyword value" or "Keyword=value"
        first, _, rest = line.replace("\t", " ").replace("=", " ", 1).partition(" ")
        keyword, value = first.strip().lower(), rest.strip().strip('"')
        if keyword == "match":
            return
        if keyword == "include":
            for pattern in value.split():
                absolute = pattern if pattern.startswith("/") else f"/etc/ssh/{pattern}"
                for included in tree.glob(absolute):
                    _read(tree, included, found, seen)
        else:
            found.setdefault(keyword, Setting(value, path, number))


def setting(keyword: str, default: str, accepts: Callable[[str], bool], wanted: str) -> Check:
    """sshd's `keyword`, `default` where the configuration is silent, is accepted."""

    def check(disk: Inspection) -> Iterator[Evidence]:
        tree = disk.tree()
        if not disk.program("sshd"):
            return
        own = settings(tree).get(keyword.lower())
        value = own.value if own else default
        if not accepts(value.lower()):
            shown = f"{keyword} {value}" if own else f"{keyword} is not set (it is {default})"
            path, line = (own.path, own.line) if own else (PATH, 0)
            yield Evidence(f"{shown}, not {wanted}", path, line)

    return check


def _server(disk: Inspection) -> Iterator[Evidence]:
    if not disk.program("sshd"):
        yield Evidence("no SSH server is installed")
        return
    states = {unit: disk.unit(unit) for unit in _UNITS}
    if "enabled" not in states.values():
        shown = ", ".join(
            f"{unit} is {state}" for unit, state in states.items() if state != "absent"
        )
        yield Evidence(f"the SSH server does not start: {shown or 'it has no unit'}")


RULES = (
    Rule(
        "ssh.server",
        WARNING,
        "An SSH server starts",
        "Without it nobody can log in to a machine of the image, except through a console.",
        "https://man.openbsd.org/sshd.8",
        "install openssh-server and enable its unit",
        _server,
    ),
)

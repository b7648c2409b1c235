"""The SSH server and its configuration (sshd_config(5))."""

from __future__ import annotations

import re
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
_ALIASES = dict.fromkeys(
    ("challengeresponseauthentication", "skeyauthentication"), "kbdinteractiveauthentication"
)
_UNITS_OF_TIME = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_UNITS = ("ssh.service", "sshd.service", "ssh.socket", "sshd.socket")


@dataclass(frozen=True, slots=True)
class Setting:
    value: str
    path: str
    line: int


def settings(tree: Tree) -> dict[str, Setting]:
    """Keyword in lower case ▶ the setting that counts for everybody: the first one in a
    block "Match all", else the first one outside of Match."""
    own: dict[str, Setting] = {}
    matched: dict[str, Setting] = {}
    _read(tree, PATH, own, matched, [])
    return {**own, **matched}


def _read(
    tree: Tree,
    path: str,
    own: dict[str, Setting],
    matched: dict[str, Setting],
    seen: list[str],
) -> None:
    """`own` takes what stands outside of Match, `matched` what is in "Match all"."""
    seen.append(path)
    if len(seen) > _INCLUDES_MOST:
        raise Damaged("sshd's configuration includes files without end")
    into: dict[str, Setting] | None = own
    for number, line in tree.lines(path):
        keyword, value = _split(line)
        if keyword == "match":
            into = matched if value.lower() == "all" else None
        elif into is None:
            continue
        elif keyword == "include":
            for pattern in value.split():
                absolute = pattern if pattern.startswith("/") else f"/etc/ssh/{pattern}"
                for included in tree.glob(absolute):
                    _read(tree, included, into, matched, seen)
        else:
            into.setdefault(_ALIASES.get(keyword, keyword), Setting(value, path, number))


def _split(line: str) -> tuple[str, str]:
    """ "Keyword value" or "Keyword=value", with a comment behind it or not."""
    first, _, rest = line.replace("\t", " ").replace("=", " ", 1).partition(" ")
    bare = re.match(r'(?:[^#"]|"[^"]*")*', rest.strip())
    value = bare[0] if bare else ""
    return first.lower(), value.strip().strip('"')


def seconds(value: str) -> int | None:
    """A time such as 90, 3m or 1h30m: "TIME FORMATS" in sshd_config(5). None for
    anything else."""
    if not re.fullmatch(r"(?:[0-9]{1,9}[smhdw]?)+", value.lower()):
        return None
    parts = re.findall(r"([0-9]{1,9})([smhdw]?)", value.lower())
    return sum(int(number) * _UNITS_OF_TIME[unit] for number, unit in parts)


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


def passwords(disk: Inspection) -> Iterator[Evidence]:
    """sshd takes passwords, by itself or by PAM, which it lets ask for them."""
    yield from setting("PasswordAuthentication", "yes", lambda value: value == "no", "no")(disk)
    if not disk.program("sshd"):
        return
    found = settings(disk.tree())
    asks, pam = found.get("kbdinteractiveauthentication"), found.get("usepam")
    if pam is None or pam.value.lower() != "yes" or (asks and asks.value.lower() == "no"):
        return
    shown = f"is {asks.value}" if asks else "is not set (it is yes)"
    place = asks or pam
    yield Evidence(f"KbdInteractiveAuthentication {shown}, with UsePAM", place.path, place.line)


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

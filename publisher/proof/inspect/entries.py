"""Boot entries: what GRUB, systemd-boot, extlinux and unified kernel images start."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from publisher.proof.inspect.allowance import Allowance
from publisher.proof.inspect.budget import Budget, Damaged
from publisher.proof.inspect.pe import section_text, sections
from publisher.proof.inspect.tree import Tree

_WORD = re.compile(r"""(?:'[^']*'|"(?:\\.|[^"\\])*"|\\.|[^\s'"\\;]|(?<=\S);(?=\S))+""")
_QUOTED = re.compile(r"""'([^']*)'|"((?:\\.|[^"\\])*)"|\\(.)""")
_ENTRY_FILES_MOST = 500
_SMALL_MOST = 65_536
"""Characters of a file that is one entry, or GRUB's environment."""
_RESCUE = re.compile(r"\b(single|recovery|rescue|emergency)\b")


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing to boot, written at a line (0: no text) of the file `path`. `kernel`
    and `initrds` are paths as the boot loader sees them; `name` is that by which the
    loader chooses it, `version` what it says of its kernel."""

    path: str
    line: int
    title: str
    kernel: str
    initrds: tuple[str, ...]
    arguments: tuple[str, ...]
    name: str = ""
    version: str = ""

    @property
    def rescue(self) -> bool:
        words = " ".join((self.title, self.path.rpartition("/")[2], *self.arguments))
        return bool(_RESCUE.search(words.lower()))

    def values(self, key: str) -> list[str]:
        """All values of a kernel argument, the last one counts mostly."""
        return [a.partition("=")[2] for a in self.arguments if a.partition("=")[0] == key]

    @property
    def root_flags(self) -> tuple[str, ...]:
        """The options with which the kernel mounts the root directory."""
        return tuple(flag for value in self.values("rootflags") for flag in value.split(","))


@dataclass(frozen=True, slots=True)
class Reference:
    """A device that a boot loader looks for: `what` is uuid, label or file."""

    path: str
    line: int
    what: str
    value: str


@dataclass(frozen=True, slots=True)
class Boot:
    """What the files of the boot loaders say. `default` is what starts if nobody
    chooses: one of each loader; `files` are those that were read."""

    entries: tuple[Entry, ...]
    default: tuple[Entry, ...]
    references: tuple[Reference, ...]
    files: tuple[str, ...]


def read_boot(tree: Tree, esp: Tree | None, budget: Budget, esp_path: str = "/boot/efi") -> Boot:
    """From the installation and its EFI system partition, whose files are named as
    if that was mounted at `esp_path`."""
    allowed = Allowance(budget)
    entries: list[Entry] = []
    default: list[Entry] = []
    references: list[Reference] = []
    files: list[str] = []
    for path in ("/boot/grub/grub.cfg", "/boot/grub2/grub.cfg"):
        if not tree.is_file(path):
            continue
        files.append(path)
        variables = _environment(tree, f"{path.rpartition('/')[0]}/grubenv", allowed)
        grub = _Grub(path, tree, allowed, variables)
        if grub.uses_entries:
            bls = list(_loader_entries(tree, "/boot/loader/entries", "", grub.variables, allowed))
            files += [entry.path for entry in bls]
            grub.entries[:0] = bls
            default += grub.chosen(bls)
        else:
            default += grub.default()
        entries += grub.entries
        references += grub.references
    if esp is not None:
        for path in esp.glob("/EFI/*/grub.cfg"):
            files.append(esp_path + path)
            grub = _Grub(path, esp, allowed, {}, esp_path)
            references += grub.references
            entries += grub.entries
            default += grub.default()
        for where, at, shown in (
            (esp, "/loader/entries", esp_path),
            (tree, "/boot/loader/entries", ""),
        ):
            if any(default) and where is tree:
                continue
            bls = list(_loader_entries(where, at, shown, {}, allowed))
            files += [entry.path for entry in bls]
            entries += bls
            default += bls[:1]
        for path in esp.glob("/EFI/Linux/*.efi") + esp.glob("/EFI/BOOT/BOOT*.EFI"):
            unified = _unified(esp, path, esp_path)
            if unified is not None:
                allowed.entry()
                files.append(esp_path + path)
                entries.append(unified)
                default.append(unified)
    for path in ("/boot/extlinux/extlinux.conf", "/boot/syslinux/syslinux.cfg", "/extlinux.conf"):
        if tree.is_file(path):
            files.append(path)
            found = list(_extlinux(path, tree, allowed))
            entries += found
            default += found[:1]
    return Boot(tuple(entries), tuple(default), tuple(references), tuple(files))


def _environment(tree: Tree, path: str, allowed: Allowance) -> dict[str, str]:
    """GRUB's environment block."""
    pairs = (line.partition("=") for _, line in allowed.lines(tree, path, _SMALL_MOST))
    return {key: value for key, equals, value in pairs if equals}


def _words(line: str) -> list[str]:
    def plain(found: re.Match[str]) -> str:
        single, double, escaped = found.groups()
        return single if single is not None else double if double is not None else escaped

    return [_QUOTED.sub(plain, word) for word in _WORD.findall(line)]


class _Grub:
    """A grub.cfg: a script, of which the commands are read in order and conditions
    are not followed."""

    def __init__(
        self,
        path: str,
        tree: Tree,
        allowed: Allowance,
        variables: Mapping[str, str],
        shown: str = "",
    ) -> None:
        self._allowed = allowed
        self.variables = dict(variables)
        self.entries: list[Entry] = []
        self.references: list[Reference] = []
        self.uses_entries = False
        self._wanted = variables.get("saved_entry", "0")
        self._tops: list[int] = []
        self._path = shown + path
        self._title = self._name = ""
        self._kernel: Entry | None = None
        self._open: list[str] = []
        self._top = 0
        for number, line in allowed.lines(tree, path):
            words = _words(line)
            if words:
                self._command(number, words)

    def _command(self, number: int, words: list[str]) -> None:
        command, *rest = words
        if command in ("menuentry", "submenu"):
            self._title = rest[0] if rest else ""
            names = [
                b for a, b in itertools.pairwise(rest) if a in ("--id", "$menuentry_id_option")
            ]
            self._name = names[0] if names else ""
            self._kernel = None
            self._top += "submenu" not in self._open
        elif command == "}" and self._open and self._open.pop() == "menuentry":
            self._kernel = None
        elif command == "set" and rest:
            key, _, value = rest[0].partition("=")
            self.variables[key] = self._expand(value)[0]
            if key == "default" and self.variables[key]:
                self._wanted = self.variables[key]
        elif command in ("linux", "linuxefi", "linux16") and rest:
            kernel, *more = self._expand(*rest)
            arguments = " ".join(more).split()
            self._allowed.entry()
            self._kernel = Entry(
                self._path,
                number,
                self._title,
                _device_path(kernel),
                (),
                tuple(arguments),
                self._name,
            )
            self.entries.append(self._kernel)
            self._tops.append(self._top - 1)
        elif command in ("initrd", "initrdefi", "initrd16") and self._kernel is not None:
            initrds = self._kernel.initrds + tuple(map(_device_path, self._expand(*rest)))
            self._kernel = replace(self._kernel, initrds=self._allowed.initrds(initrds))
            self.entries[-1] = self._kernel
        elif command == "search" or command.startswith("search."):
            self._search(number, command, rest)
        elif command == "blscfg":
            self.uses_entries = True
        if words[-1] == "{":
            self._open.append(command)

    def _expand(self, *words: str) -> list[str]:
        return self._allowed.expand(words, self.variables)

    def _search(self, number: int, command: str, rest: Sequence[str]) -> None:
        plain = [word for word in rest if not word.startswith("-")]
        flags = {word.partition("=")[0] for word in rest}
        kinds = {"--fs-uuid": "uuid", "-u": "uuid", "--label": "label", "-l": "label"}
        what = next((kind for flag, kind in kinds.items() if flag in flags), "file")
        what = {"search.fs_uuid": "uuid", "search.fs_label": "label"}.get(command, what)
        if "--set" in flags and "--set=root" not in rest and len(plain) > 1:
            plain = plain[1:]
        if plain:
            (value,) = self._expand(plain[0])
            self._allowed.reference()
            self.references.append(Reference(self._path, number, what, value))

    def chosen(self, listed: Sequence[Entry]) -> list[Entry]:
        """Of the entries that blscfg lists, the one that `set default` names, else the
        newest."""
        wanted = self._wanted.partition(">")[0]
        named = [e for n, e in enumerate(listed) if wanted in (str(n), e.title, e.name)]
        return (named or list(listed))[:1]

    def default(self) -> list[Entry]:
        """The entry that `set default` names, else the first one."""
        wanted = self._wanted.partition(">")[0]
        for entry, top in zip(self.entries, self._tops, strict=True):
            if wanted in (str(top), entry.title, entry.name):
                return [entry]
        return self.entries[:1]


def _device_path(path: str) -> str:
    """A path without a device of GRUB's in front."""
    return re.sub(r"^\([^)]*\)", "", path)


def _loader_entries(
    tree: Tree, directory: str, shown: str, variables: Mapping[str, str], allowed: Allowance
) -> Iterator[Entry]:
    """Type 1 entries of the Boot Loader Specification, the newest first."""
    found = tree.glob(f"{directory}/*.conf")
    if len(found) > _ENTRY_FILES_MOST:
        raise Damaged(f"{shown}{directory} has more entries than anyone needs")
    for path in sorted(found, key=_version_key, reverse=True):
        fields: dict[str, list[str]] = {}
        place = 0
        for number, line in allowed.lines(tree, path, _SMALL_MOST):
            key, _, value = line.partition(" ")
            fields.setdefault(key.strip(), []).append(value.strip())
            place = number if key == "options" else place
        if "linux" in fields or "efi" in fields:
            options = allowed.expand(fields.get("options", ()), variables)
            initrds = tuple(word for line in fields.get("initrd", ()) for word in line.split()[:1])
            allowed.entry()
            yield Entry(
                shown + path,
                place,
                " ".join(fields.get("title", ())),
                (fields.get("linux") or fields["efi"])[0],
                allowed.initrds(initrds),
                tuple(" ".join(options).split()),
                path.rpartition("/")[2].removesuffix(".conf"),
                fields.get("version", [""])[0],
            )


def _version_key(path: str) -> list[tuple[int, str]]:
    name = path.rpartition("/")[2]
    pieces = re.findall(r"\d{1,18}|\D+", name)
    # rescue entries are never the newest
    newest = [(0 if "rescue" in name else 1, "")]
    return newest + [(int(p), "") if p.isdigit() else (0, p) for p in pieces]


def _extlinux(path: str, tree: Tree, allowed: Allowance) -> Iterator[Entry]:
    here: dict[str, tuple[int, str]] = {}
    directory = path.rpartition("/")[0]

    def made() -> Iterator[Entry]:
        kernel = here.get("linux") or here.get("kernel")
        if kernel is None:
            return
        line, text = here.get("append", kernel)
        arguments = text.split() if "append" in here else []
        initrds = [a.partition("=")[2] for a in arguments if a.startswith("initrd=")]
        if "initrd" in here:
            initrds = here["initrd"][1].split(",")
        absolute = [p if p.startswith("/") else f"{directory}/{p}" for p in (kernel[1], *initrds)]
        title = here.get("label", (0, ""))[1]
        allowed.entry()
        found = allowed.initrds(tuple(absolute[1:]))
        yield Entry(path, line, title, absolute[0], found, tuple(arguments))

    for number, line in allowed.lines(tree, path):
        key, _, value = line.partition(" ")
        if key.lower() == "label":
            yield from made()
            here.clear()
        here[key.lower()] = (number, value.strip())
    yield from made()


def _unified(esp: Tree, path: str, shown: str) -> Entry | None:
    """A unified kernel image: a PE file with the sections .linux and .cmdline."""
    found = sections(esp, path)
    if ".linux" not in found:
        return None
    text = {
        name: section_text(esp, path, found[name])
        for name in (".cmdline", ".uname")
        if name in found
    }
    arguments = tuple(text.get(".cmdline", "").split())
    title = path.rpartition("/")[2]
    version = text.get(".uname", "")
    return Entry(shown + path, 0, title, path, (), arguments, version=version)

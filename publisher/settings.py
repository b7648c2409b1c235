"""A TOML file as data: syntax errors with line and column, `--set` overrides,
and ${NAME} from the environment."""

from __future__ import annotations

import datetime
import difflib
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from publisher.errors import PipelineError, UsageError

KeyPath: TypeAlias = tuple[str | int, ...]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_KEY = re.compile(r'(?:(?:^|\.)(?:([A-Za-z0-9_-]+)|"([^"]*)"))|\[(\d+)\]')
_VARIABLE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_PLACE = re.compile(r"^(?P<what>.*) \(at (?:line (?P<line>\d+), column (?P<column>\d+)|.*)\)$")


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in a file: where, what, and what to do."""

    key: str
    message: str
    hint: str = ""


def show_key(path: Iterable[str | int]) -> str:
    """A key path as people write it: targets.aws.regions[2]."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if _BARE.fullmatch(part) else f'"{part}"')
    return text


def parse_key(text: str) -> KeyPath:
    """The inverse of show_key; empty for a text that is no key path."""
    path: list[str | int] = []
    end = 0
    for match in _KEY.finditer(text):
        if match.start() != end:
            return ()
        end = match.end()
        bare, quoted, index = match.groups()
        path.append(int(index) if index is not None else quoted if bare is None else bare)
    return tuple(path) if end == len(text) else ()


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that was probably meant, or nothing."""
    by_case = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), by_case, n=1, cutoff=0.6)
    return by_case[close[0]] if close else ""


def suggest(name: str, known: Sequence[str]) -> str:
    """The hint for a name that is not among the known ones."""
    meant = nearest(name, known)
    if meant:
        return f'did you mean "{meant}"?'
    return f"known are: {', '.join(known)}" if known else ""


def complain(problems: Sequence[Problem], file: str) -> PipelineError:
    """All problems of a file as one error."""
    if len(problems) == 1:
        only = problems[0]
        return PipelineError(only.message, key=only.key, hint=only.hint)
    lines = [
        f"  {p.key}: {p.message}" + (f" ({p.hint})" if p.hint else "")
        if p.key
        else f"  {p.message}" + (f" ({p.hint})" if p.hint else "")
        for p in problems
    ]
    return PipelineError("\n".join([f"{len(problems)} problems in {file}:", *lines]))


def read_toml(path: Path) -> dict[str, Any]:
    """The file as a dict. Raises PipelineError with line and column."""
    return parse_toml(read_file(path), path)


def read_file(path: Path) -> bytes:
    """The bytes of a pipeline file. Raises PipelineError."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise PipelineError(
            f"{path} does not exist", hint="give the path of a pipeline file"
        ) from None
    except IsADirectoryError:
        raise PipelineError(
            f"{path} is a directory", hint=f"did you mean {path / 'pipeline.toml'}?"
        ) from None
    except OSError as error:
        raise PipelineError(f"cannot read {path}: {error.strerror}") from None


def parse_toml(data: bytes, path: Path) -> dict[str, Any]:
    """What was read from `path`, as a dict. Raises PipelineError with line and column."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise PipelineError(f"{path} is not UTF-8 text (byte {error.start})") from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _syntax(path, text, str(error)) from None


def _syntax(path: Path, text: str, message: str) -> PipelineError:
    place = _PLACE.match(message)
    what = place["what"] if place else message
    lines = text.splitlines() or [""]
    line = int(place["line"]) if place and place["line"] else len(lines)
    column = int(place["column"]) if place and place["column"] else len(lines[-1]) + 1
    what = what[:1].lower() + what[1:]
    return PipelineError(f"{path}, line {line}, column {column}: TOML: {what}")


@dataclass(frozen=True, slots=True)
class Setting:
    """One `--set key.path=value`; `value` is the TOML value, else the text itself."""

    path: KeyPath
    text: str
    value: Any

    @classmethod
    def parse(cls, argument: str) -> Setting:
        """Raises UsageError for anything that is not key.path=value."""
        key, equals, text = argument.partition("=")
        path = parse_key(key.strip())
        if not equals or not path or isinstance(path[0], int):
            raise UsageError(
                f"--set {argument}: not of the form KEY=VALUE",
                hint="write for example --set image.version=1.2.0",
            )
        return cls(path, text, _toml_value(text))


def _toml_value(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return parsed["value"] if list(parsed) == ["value"] else text


def override(
    data: dict[str, Any], settings: Sequence[Setting], texts: Callable[[KeyPath], bool]
) -> None:
    """Apply settings in order. Where `texts` says that only a text can stand at
    a path, version=1.10 means "1.10" and not a number."""
    for setting in settings:
        value = setting.value
        if not isinstance(value, str | list | dict) and texts(setting.path):
            value = setting.text
        _put(data, setting, value)


def _put(data: dict[str, Any], setting: Setting, value: Any) -> None:
    node: Any = data
    for depth, part in enumerate(setting.path):
        last = depth == len(setting.path) - 1
        where = show_key(setting.path[:depth]) or "the file"
        if isinstance(part, int):
            if not isinstance(node, list):
                raise UsageError(f"--set {show_key(setting.path)}: {where} is not a list")
            if part > len(node) or (part == len(node) and not last):
                raise UsageError(
                    f"--set {show_key(setting.path)}: {where} has only {len(node)} elements"
                )
            if part == len(node):
                node.append(value)
        elif not isinstance(node, dict):
            raise UsageError(f"--set {show_key(setting.path)}: {where} is not a table")
        if last:
            node[part] = value
        else:
            node = node[part] if isinstance(part, int) else node.setdefault(part, {})


@dataclass(slots=True)
class Expansion:
    """Fills ${NAME} from the environment into the texts of a file, and remembers
    where, so that no message repeats a value that may be secret."""

    environ: Mapping[str, str]
    templates: dict[KeyPath, str] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    missing: dict[KeyPath, Problem] = field(default_factory=dict)

    def fill(self, value: Any, path: KeyPath = ()) -> Any:
        """The value with its variables replaced; $${ stands for ${ itself."""
        if isinstance(value, dict):
            return {key: self.fill(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.fill(item, (*path, index)) for index, item in enumerate(value)]
        if not isinstance(value, str) or "${" not in value:
            return value
        return _VARIABLE.sub(lambda match: self._variable(match, value, path), value)

    def _variable(self, match: re.Match[str], template: str, path: KeyPath) -> str:
        name = match[1]
        if name is None:
            return "${"
        found = self.environ.get(name)
        if found is None:
            self.missing[path] = Problem(
                show_key(path),
                f"the environment variable {name} is not set",
                f"export {name}, or write $${{{name}}} to keep the text as it is",
            )
            return match[0]
        self.templates[path] = template
        self.values[name] = found
        return found

    def lacks(self, value: Any) -> bool:
        """Whether a text needs a variable that is not set."""
        return isinstance(value, str) and any(
            match[1] is not None and match[1] not in self.environ
            for match in _VARIABLE.finditer(value)
        )

    def redact(self, text: str) -> str:
        """The text with every value that came from a variable written as ${NAME}."""
        longest_first = sorted(self.values.items(), key=lambda item: -len(item[1]))
        for name, value in longest_first:
            for form in {value, repr(value)[1:-1]}:
                shown = f"${{{name}}}"
                if len(form) > 3:
                    text = text.replace(form, shown)
                elif form:
                    text = shown.join(re.split(rf"(?<!\w){re.escape(form)}(?!\w)", text))
        return text


def show_value(value: Any) -> str:
    """A value as people know it from the file, short."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value}"' if len(value) <= 60 else f'"{value[:57]}…"'
    if isinstance(value, list):
        return "a list"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, datetime.date | datetime.time):
        return f"the date {value}"
    return f"the number {value}"

"""All anchors at once over all data of a disk, on as many cores as given."""

from __future__ import annotations

import hashlib
import re
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Protocol, Self, TypeAlias

from publisher.disks.raw import Reader
from publisher.errors import HostError
from publisher.model import MIB, Disk
from publisher.proof.secrets.known import Known
from publisher.proof.secrets.rule import REACH, Rule
from publisher.proof.secrets.rules import RULES
from publisher.proof.secrets.trace import Form, Trace
from publisher.task import Task

if TYPE_CHECKING:
    import hyperscan

CHUNK = 4 * MIB
WORKERS = 2
LOOKALIKES_MOST = 200_000
"""Judged for one rule; a disk made to hold more of them is told of, and not read to death."""


class Source(Protocol):
    """What is searched; beyond its end it reads as zeros."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Hit:
    """A secret on the disk: `value` is only a digest of it, `shown` at most its
    first four characters; `admits` as in its rule."""

    rule: str
    title: str
    fix: str
    offset: int
    length: int
    value: bytes
    shown: str
    admits: str = ""


def fingerprint(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()


def _shown(secret: bytes) -> str:
    start = secret[:4]
    return start.decode() if len(secret) >= 16 and start.isascii() and start.isalnum() else ""


@dataclass(frozen=True, slots=True)
class _Literal:
    """One of the build's own values, in one form."""

    label: str
    data: bytes

    @property
    def anchor(self) -> bytes:
        return _quoted(self.data[:REACH])

    def hit(self, source: Source, end: int) -> Hit | None:
        offset = end - min(len(self.data), REACH)
        found = source.read(offset, len(self.data))
        return _own(self.label, offset, found) if found == self.data else None


@dataclass(frozen=True, slots=True)
class _Encoded:
    """One of them in base64: `text` without the breaks of lines, and a `piece` of it that
    is looked for. Of two in a row one is whole, as no line is shorter than both."""

    label: str
    text: bytes
    piece: bytes

    @classmethod
    def of(cls, label: str, text: bytes) -> Sequence[Self]:
        size = min(_PIECE, len(text) // 2)
        return [cls(label, text, text[at : at + size]) for at in (0, size)]

    @property
    def anchor(self) -> bytes:
        return _quoted(self.piece)

    def hit(self, source: Source, end: int) -> Hit | None:
        around = 2 * len(self.text)
        start = max(0, end - around)
        window = source.read(start, end - start + around)
        window = _ESCAPED_END.sub(lambda match: b" " * len(match[0]), window)
        places = [match.start() for match in _IN_BASE64.finditer(window)]
        at = bytes(window[place] for place in places).find(self.text)
        return _own(self.label, start + places[at], self.text) if at >= 0 else None


_PIECE = 24
_ESCAPED_END = re.compile(rb"\\[rn]")
_IN_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]")


@dataclass(frozen=True, slots=True)
class _Traced:
    """One of which only a trace is left, in one form."""

    trace: Trace
    form: Form

    @property
    def label(self) -> str:
        return self.trace.label

    @property
    def anchor(self) -> bytes:
        return _quoted(self.form.anchor)

    def hit(self, source: Source, end: int) -> Hit | None:
        offset = end - len(self.form.anchor) - self.form.back
        written = source.read(offset, self.form.size) if offset >= 0 else b""
        if not self.trace.matches(self.form.decode(written)):
            return None
        return _own(self.trace.label + self.form.title, offset, written)


_Subject: TypeAlias = "Rule | _Literal | _Encoded | _Traced"


def _subjects(known: Known) -> list[_Subject]:
    return [
        *RULES,
        *(_Literal(label, data) for label, data in known.literals()),
        *(part for label, text in known.encoded() for part in _Encoded.of(label, text)),
        *(_Traced(trace, form) for trace in known.traces for form in trace.forms()),
    ]


def _quoted(data: bytes) -> bytes:
    return b"".join(b"\\x%02x" % byte for byte in data)


def _import() -> ModuleType:
    try:
        import hyperscan
    except ImportError as error:
        raise HostError(
            f"secrets can't be looked for: {error}",
            hint="pip install hyperscan (wheels exist for Linux and macOS)",
        ) from error
    return hyperscan


def _compile(subjects: Sequence[_Subject]) -> hyperscan.Database:
    hs = _import()
    database: hyperscan.Database = hs.Database(mode=hs.HS_MODE_BLOCK)
    caseless = [isinstance(s, Rule) and s.caseless for s in subjects]
    database.compile(
        expressions=[subject.anchor for subject in subjects],
        ids=list(range(len(subjects))),
        elements=len(subjects),
        flags=[hs.HS_FLAG_DOTALL | (hs.HS_FLAG_CASELESS if c else 0) for c in caseless],
    )
    return database


@cache
def _of_rules() -> hyperscan.Database:
    """The rules alone: 50 ms, which a search without values of its own saves after the
    first. Nothing writes into a database; what a thread needs is in its scratch."""
    return _compile(RULES)


class Engine:
    """Compiled once for a search; `scan` runs in several threads."""

    def __init__(self, known: Known) -> None:
        hs = _import()
        self._subjects = _subjects(known)
        only_rules = len(self._subjects) == len(RULES)
        self._database = _of_rules() if only_rules else _compile(self._subjects)
        self._scratch: threading.local = threading.local()
        self._hs = hs
        self._judged: Counter[int] = Counter()

    def scratch(self) -> hyperscan.Scratch:
        own: hyperscan.Scratch | None = getattr(self._scratch, "own", None)
        if own is None:
            own = self._scratch.own = self._hs.Scratch(self._database)
        return own

    @property
    def overrun(self) -> list[str]:
        """The rules with more look-alikes than were judged."""
        return sorted(
            {
                self._title(number)
                for number, count in self._judged.items()
                if count > LOOKALIKES_MOST
            }
        )

    def _title(self, number: int) -> str:
        subject = self._subjects[number]
        return subject.title if isinstance(subject, Rule) else subject.label

    def scan(self, source: Source, start: int, length: int) -> Sequence[Hit]:
        """The hits whose anchors end within (start, start + length]."""
        ahead = min(start, REACH)
        data = source.read(start - ahead, length + ahead)
        found: set[tuple[int, int]] = set()

        def matched(number: int, _begin: int, end: int, _flags: int, _context: object) -> bool:
            if end > ahead:
                self._judged[number] += 1
                if self._judged[number] <= LOOKALIKES_MOST:
                    found.add((number, end))
            return False

        self._database.scan(data, match_event_handler=matched, scratch=self.scratch())
        base = start - ahead
        hits = []
        for number, end in sorted(found):
            subject = self._subjects[number]
            if isinstance(subject, Rule):
                hit = _judge(subject, source, data, base, end)
            else:
                hit = subject.hit(source, base + end)
            if hit is not None:
                hits.append(hit)
        return hits


def _judge(rule: Rule, source: Source, data: bytes, base: int, end: int) -> Hit | None:
    if end >= rule.before and end + rule.after <= len(data):
        window = data[end - rule.before : end + rule.after]
    else:
        at = base + end
        first = max(0, at - rule.before)
        last = min(source.size, at + rule.after)
        window = bytes(rule.before - (at - first)) + source.read(first, last - first)
    verdict = rule.judge(window)
    if verdict is None:
        return None
    start, length, secret = verdict
    offset = base + end - rule.before + start
    shown = _shown(window[start : start + length])
    value = fingerprint(secret)
    return Hit(rule.id, rule.title, rule.fix, offset, length, value, shown, rule.admits)


OWN = "build-secret"
_OWN_FIX = (
    "find the step that wrote it down, and hand it over with `secrets`; then change it, "
    "because this disk may have been copied"
)


def _own(label: str, offset: int, data: bytes) -> Hit:
    return Hit(OWN, label, _OWN_FIX, offset, len(data), fingerprint(data), "")


def pieces(disk: Disk) -> Iterator[tuple[int, int]]:
    """(offset, length) of all that holds data."""
    for extent in disk.extents:
        for at in range(extent.offset, extent.end, CHUNK):
            yield at, min(CHUNK, extent.end - at)


def hits(disk: Disk, engine: Engine, task: Task) -> list[Hit]:
    """Everything found, in the order of the disk, each once. Holes are not read."""
    total, done = disk.data_bytes, 0
    found: dict[tuple[str, int], Hit] = {}
    with Reader(disk) as reader:

        def work(piece: tuple[int, int]) -> tuple[int, Sequence[Hit]]:
            return piece[1], engine.scan(reader, *piece)

        for length, some in task.map(work, pieces(disk), workers=WORKERS):
            done += length
            task.progress(done, total)
            for hit in some:
                found.setdefault((hit.rule, hit.offset), hit)
    return sorted(found.values(), key=lambda hit: hit.offset)

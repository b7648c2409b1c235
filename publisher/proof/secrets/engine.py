"""All anchors at once over all data of a disk, on as many cores as given."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

from publisher.disks.raw import Reader
from publisher.errors import HostError
from publisher.model import MIB, Disk
from publisher.proof.secrets.known import ANCHOR, Known, Trace
from publisher.proof.secrets.rule import REACH, Rule
from publisher.proof.secrets.rules import RULES
from publisher.task import Task

if TYPE_CHECKING:
    import hyperscan

CHUNK = 4 * MIB
WORKERS = 2
LOOKALIKES_MOST = 200_000
"""Judged for one rule; a disk made to hold more of them is told of, and not read to death."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A secret on the disk: `value` is only a digest of it, `shown` at most its
    first four characters."""

    rule: str
    title: str
    fix: str
    offset: int
    length: int
    value: bytes
    shown: str


def fingerprint(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()


def _shown(secret: bytes) -> str:
    start = secret[:4]
    return start.decode() if len(secret) >= 16 and start.isascii() and start.isalnum() else ""


class _Pattern:
    """One expression of the engine, and what it stands for."""

    def __init__(self, expression: bytes, subject: Rule | Trace | tuple[str, bytes]) -> None:
        self.expression = expression
        self.subject = subject


def _patterns(known: Known) -> list[_Pattern]:
    return [
        *(_Pattern(rule.anchor, rule) for rule in RULES),
        *(_Pattern(_quoted(data[:REACH]), (label, data)) for label, data in known.literals()),
        *(_Pattern(_quoted(bytes.fromhex(trace.anchor)), trace) for trace in known.traces),
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


class Engine:
    """Compiled once for a search; `scan` runs in several threads."""

    def __init__(self, known: Known) -> None:
        hs = _import()
        self._patterns = _patterns(known)
        self._database = hs.Database(mode=hs.HS_MODE_BLOCK)
        caseless = [isinstance(p.subject, Rule) and p.subject.caseless for p in self._patterns]
        self._database.compile(
            expressions=[p.expression for p in self._patterns],
            ids=list(range(len(self._patterns))),
            elements=len(self._patterns),
            flags=[hs.HS_FLAG_DOTALL | (hs.HS_FLAG_CASELESS if c else 0) for c in caseless],
        )
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
        subject = self._patterns[number].subject
        if isinstance(subject, tuple):
            return subject[0]
        return subject.title if isinstance(subject, Rule) else subject.label

    def scan(self, reader: Reader, start: int, length: int) -> Sequence[Hit]:
        """The hits whose anchors end within (start, start + length]."""
        ahead = min(start, REACH)
        data = reader.read(start - ahead, length + ahead)
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
            subject = self._patterns[number].subject
            if isinstance(subject, Rule):
                hit = _judge(subject, reader, data, base, end)
            elif isinstance(subject, Trace):
                hit = _trace(subject, reader, base + end)
            else:
                hit = _literal(*subject, reader, base + end)
            if hit is not None:
                hits.append(hit)
        return hits


def _judge(rule: Rule, reader: Reader, data: bytes, base: int, end: int) -> Hit | None:
    if end >= rule.before and end + rule.after <= len(data):
        window = data[end - rule.before : end + rule.after]
    else:
        at = base + end
        first = max(0, at - rule.before)
        last = min(reader.disk.size, at + rule.after)
        window = bytes(rule.before - (at - first)) + reader.read(first, last - first)
    verdict = rule.judge(window)
    if verdict is None:
        return None
    start, length, secret = verdict
    offset = base + end - rule.before + start
    shown = _shown(window[start : start + length])
    return Hit(rule.id, rule.title, rule.fix, offset, length, fingerprint(secret), shown)


OWN = "build-secret"
_OWN_FIX = (
    "find the step that wrote it down, and hand it over with `secrets`; then change it, "
    "because this disk may have been copied"
)


def _own(label: str, offset: int, data: bytes) -> Hit:
    return Hit(OWN, label, _OWN_FIX, offset, len(data), fingerprint(data), "")


def _literal(label: str, data: bytes, reader: Reader, end: int) -> Hit | None:
    offset = end - min(len(data), REACH)
    return _own(label, offset, data) if reader.read(offset, len(data)) == data else None


def _trace(trace: Trace, reader: Reader, end: int) -> Hit | None:
    offset = end - ANCHOR
    candidate = reader.read(offset, trace.length)
    return _own(trace.label, offset, candidate) if trace.matches(candidate) else None


def pieces(disk: Disk) -> Iterator[tuple[int, int]]:
    """(offset, length) of all that holds data."""
    for extent in disk.extents:
        for at in range(extent.offset, extent.end, CHUNK):
            yield at, min(CHUNK, extent.end - at)


def hits(disk: Disk, known: Known, task: Task) -> tuple[list[Hit], list[str]]:
    """Everything found, in the order of the disk, each once; and the rules that were
    not judged to the end. Holes are not read."""
    engine = Engine(known)
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
    return sorted(found.values(), key=lambda hit: hit.offset), engine.overrun

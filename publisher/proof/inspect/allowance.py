"""What the configuration of all boot loaders of a disk may be, taken together: it is
written by whoever made the disk, and variables let a little text become very much."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from publisher.model import MIB
from publisher.proof.inspect.budget import Budget, Damaged
from publisher.proof.inspect.tree import Tree

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_LEVELS = 3
"""Variables in variables."""
_LINE_MOST = 16_384
_LINES_MOST = 20_000
_WRITTEN_MOST = 4 * MIB
"""Characters of one file."""
_EXPANDED_MOST = 2 * MIB
_ENTRIES_MOST = 500
_REFERENCES_MOST = 5_000
_INITRDS_MOST = 16


class Allowance:
    """Everything raises Damaged where there is more than anyone needs."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._left = {"entries": _ENTRIES_MOST, "searches": _REFERENCES_MOST}
        self._expanded = 0

    def lines(self, tree: Tree, path: str, most: int = _WRITTEN_MOST) -> Iterator[tuple[int, str]]:
        """As the tree's, of a file of at most `most` characters."""
        for count, (number, line) in enumerate(tree.lines(path)):
            most -= len(line) + 1
            if count > _LINES_MOST or len(line) > _LINE_MOST or most < 0:
                raise Damaged(f"{path} is longer than a configuration can be")
            yield number, line

    def entry(self) -> None:
        self._take("entries")

    def reference(self) -> None:
        self._take("searches")

    def initrds(self, found: tuple[str, ...]) -> tuple[str, ...]:
        """The same, where one kernel may have so many."""
        if len(found) > _INITRDS_MOST:
            raise Damaged(f"a boot entry has more than {_INITRDS_MOST} initramfs files")
        return found

    def expand(self, words: Iterable[str], variables: Mapping[str, str]) -> list[str]:
        """The words of one line or entry, with the values of their variables."""
        left, done = _LINE_MOST, []
        for word in words:
            for _ in range(_LEVELS):
                word = self._substitute(word, variables, left)
                if "$" not in word:
                    break
            left -= len(word) + 1
            done.append(word)
        return done

    def _substitute(self, text: str, variables: Mapping[str, str], most: int) -> str:
        pieces, size, at = [], 0, 0
        for found in _VARIABLE.finditer(text):
            pieces += [text[at : found.start()], variables.get(found[1] or found[2], "")]
            size += len(pieces[-2]) + len(pieces[-1])
            at = found.end()
        pieces.append(text[at:])
        size += len(pieces[-1])
        if size > most:
            raise Damaged("a line of the boot loader's configuration has no end")
        self._budget.charge(size)
        self._expanded += size
        if self._expanded > _EXPANDED_MOST:
            raise Damaged("the variables of the boot loaders' configuration have no end")
        return "".join(pieces)

    def _take(self, what: str) -> None:
        self._left[what] -= 1
        if self._left[what] < 0:
            raise Damaged(f"the boot loaders' configuration has more {what} than anyone needs")

"""How far an installer has come and whether it is stuck, from its serial console."""

from __future__ import annotations

import re
from collections.abc import Callable

from publisher.vm.console import Tracker, plain

_TITLES = tuple(
    re.compile(pattern)
    for pattern in (
        # debian-installer's text frontend: a title, then percentages on the same line
        r"^(?P<title>[A-Z][^%]{3,70}?)(?:\.\.\.)?\s+\.\.\. \d+%",
        # its newt frontend, and other windows of newt
        r"┤ (?:\[\.\] )?(?P<title>[A-Z][^├┤│\[]{3,70}?) ├",
        # anaconda in text mode
        r"^(?P<title>Starting (?:automated install|package installation process)|Installing boot "
        r"loader|Performing post-installation setup tasks|Configuring installed system|Running "
        r"(?:pre|post)-installation scripts|Installing [a-z][\w.+-]+ \(\d+/\d+\))",
        # subiquity
        r"start: (?P<title>subiquity/Install/install/\w+):",
    )
)
_TROUBLES = tuple(
    (re.compile(pattern), reason)
    for pattern, reason in (
        # cdebconf's text frontend
        (r"^!! ERROR: (.+)", "{}"),
        # anaconda: https://anaconda-installer.readthedocs.io/
        (r"An unknown error has occurred", "an unknown error has occurred"),
        (r"The installation was stopped due to (.*)", "it was stopped due to {}"),
        (r"(?:error|problem) occurred .*kickstart", "it does not understand the kickstart file"),
        (r"Pane is dead", "its program ended"),
        (r"dracut.*: Warning: (.*timeout.*)", "{}"),
        (r"(?:Entering|You are in) emergency mode", "it stopped in emergency mode"),
        # subiquity
        (r"An error occurred\. Press enter to start a shell", "an error occurred"),
        (r"Add 'autoinstall' to your kernel command line", "it wants autoinstall in arguments"),
        (r"Kernel panic - not syncing: (.*)", "kernel panic: {}"),
        (r"Unable to mount root fs|VFS: Cannot open root device", "its initrd does not boot"),
    )
)
_WINDOW = re.compile(r"\[!!\] (?P<title>[^├┤│]{3,70}?)\s*[├┤│]")
"""cdebconf's newt frontend: a critical question, or an error."""
_PROMPTS = (
    re.compile(r"^Prompt: '.' for help.*> *$"),
    re.compile(r"^\[Press enter to continue\] *$"),
    re.compile(r"^Please make (?:a selection|your choice) from (?:the )?above.*: *$"),
    re.compile(r"^Would you like to ignore this and continue with installation\? *$"),
)
_ENDED = re.compile(r"\bInstallation complete\. +Press \w+ to quit")
"""anaconda, whose kickstart file does not say what comes then."""
_UNDERLINE = re.compile(r"^-{3,}$")
"""Below the title of whatever cdebconf's text frontend asks; a password, unlike the rest,
has no prompt. Progress is on one line."""
_KERNEL = re.compile(r"\[ *\d+\.\d{6}\] ")
QUESTION = "it asks a question that no answer file answers"
_FULL = re.compile(
    r"No space left on device|[Nn]ot enough (?:free |disk )*space|too small"
    r"|Failed to partition the selected disk"
)


class Progress(Tracker):
    """Fed the console's bytes. `on_line` gets each line but the kernel's, `on_phase`
    what begins.

    `full` says that it complained about the size of the disk."""

    def __init__(self, on_line: Callable[[str], None], on_phase: Callable[[str], None]) -> None:
        super().__init__(keep=60)
        self._on_line = on_line
        self._on_title = on_phase
        self._title = ""
        self._seen = ""
        self._above = ""
        self._debian = False
        self._asks = ""
        self._trouble = ""
        self.full = False

    @property
    def trouble(self) -> str:
        """Why the installer can't go on; empty while it can."""
        if self._asks and self._trouble in ("", QUESTION):
            return f"{QUESTION}: {self._asks}"
        return self._trouble

    def feed(self, data: bytes) -> None:
        super().feed(data)
        rest = plain(self._rest)
        if rest == self._seen:
            return
        self._seen = rest
        self._follow(rest)
        if any(prompt.search(rest) for prompt in _PROMPTS):
            self._fail(QUESTION)
        if _ENDED.search(rest):
            self._fail("it is done and waits for a key: let the kickstart file say poweroff")

    def _judge(self, line: str) -> None:
        if line.strip() and not _KERNEL.match(line):
            self._on_line(line.rstrip())
        self._follow(line)
        if self._debian and _UNDERLINE.match(line) and len(line) == len(self._above):
            self._asks = self._asks or self._above
        self._above = line
        self.full = self.full or bool(_FULL.search(line))
        for trouble, reason in _TROUBLES:
            match = trouble.search(line)
            if match:
                self._fail(reason.format(*match.groups()).strip(" ."))

    def _follow(self, text: str) -> None:
        """What can be told from a line that is not complete yet."""
        window = _WINDOW.search(text)
        if window:
            self._fail(f"it asks or complains: {window['title']}")
        for pattern in _TITLES:
            match = pattern.search(text)
            if match:
                self._debian = self._debian or pattern is _TITLES[0]
                title = re.sub(r" \(\d+/\d+\)$", "", match["title"].strip(" ."))
                if title != self._title:
                    self._title = title
                    self._on_title(title)
                return

    def _fail(self, why: str) -> None:
        self._trouble = self._trouble or why

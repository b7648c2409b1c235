"""Write what README.md shows of files and of the command's own words anew.

A block that follows `<!-- run: publish … -->` is that command's output, one that
follows `<!-- file: PATH -->` is that file. `tests/unit/test_readme.py` compares.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(
    r"(?P<mark><!-- (?P<kind>run|file): (?P<what>.+?) -->\n```\w*\n).*?(?P<end>^```$)",
    re.DOTALL | re.MULTILINE,
)


def output(command: str) -> str:
    """What a `publish` command prints on a plain terminal of 100 columns."""
    program, *arguments = shlex.split(command)
    if program != "publish":
        raise ValueError(f"not a publish command: {command}")
    plain = {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb", "LC_ALL": "C.UTF-8"}
    run = subprocess.run(
        [sys.executable, "-c", "from publisher.cli.main import main; main()", *arguments],
        cwd=ROOT,
        env={**{k: v for k, v in os.environ.items() if k != "GITHUB_ACTIONS"}, **plain},
        check=True,
        capture_output=True,
        text=True,
    )
    return "".join(f"{line.rstrip()}\n" for line in run.stdout.strip().splitlines())


def render(text: str) -> str:
    """`text` with every marked block as it should be."""

    def fill(match: re.Match[str]) -> str:
        kind, what = match["kind"], match["what"]
        body = output(what) if kind == "run" else (ROOT / what).read_text()
        return f"{match['mark']}{body}{match['end']}"

    return BLOCK.sub(fill, text)


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(render(readme.read_text()))

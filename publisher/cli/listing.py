"""What inventory does: read the packages, write the document."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from publisher.cli.disk_files import opened
from publisher.cli.signals import cancelling
from publisher.cli.words import suggestion
from publisher.errors import HostError, UsageError
from publisher.proof import inventory
from publisher.task import detached


def run(path: Path, form: str, output: Path | None, *, state: Path) -> None:
    if form not in inventory.FORMATS:
        raise UsageError(f"there is no format {form!r}", hint=suggestion(form, inventory.FORMATS))
    with cancelling() as cancellation, tempfile.TemporaryDirectory() as memory:
        task = detached(Path(memory), "inventory", cancellation=cancellation)
        with opened(path, state, task, digest=True) as disk:
            listed = inventory.collect(disk, task)
    data = inventory.document(listed, form, name=path.name, created=_epoch())
    if output is None:
        sys.stdout.write(data.decode())
    else:
        try:
            output.write_bytes(data)
        except OSError as error:
            raise HostError(f"cannot write {output}: {error.strerror}") from error
    counts = ", ".join(f"{count} {kind}" for kind, count in listed.counts.items())
    print(f"{counts or 'no packages'}", file=sys.stderr)  # noqa: T201
    for gap in listed.gaps:
        print(f"not listed: {gap}", file=sys.stderr)  # noqa: T201


def _epoch() -> int | None:
    """SOURCE_DATE_EPOCH (https://reproducible-builds.org/specs/source-date-epoch/)."""
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not given:
        return None
    try:
        return int(given)
    except ValueError:
        raise UsageError(f"SOURCE_DATE_EPOCH={given} is not a number of seconds") from None

"""The labels by which every resource is found again: exact, though labels hold few characters."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from providers.gcp.options import LABEL_VALUE_MOST, GcpOptions, label
from publisher.model import Finding, Query, Severity, Spec

NAME, VERSION, RUN = "publisher-name", "publisher-version", "publisher-run"
DIGEST = ("publisher-sha256-1", "publisher-sha256-2")
"""A sha256 in hex has 64 digits, a label 63: it takes two."""


def encode(text: str) -> str:
    """Any text in a label's alphabet, reversibly: "." is "_" before [a-z0-9-], and
    what else is not in [a-z0-9-] is "__" and its two hex digits. "1.2.3" is 1_2_3.

    Raises ValueError when it gets longer than a label holds."""
    out = []
    data = text.encode()
    for index, byte in enumerate(data):
        if re.match(rb"[a-z0-9-]", data[index : index + 1]):
            out.append(chr(byte))
        elif byte == ord(".") and re.match(rb"[a-z0-9-]", data[index + 1 : index + 2]):
            out.append("_")
        else:
            out.append(f"__{byte:02x}")
    encoded = "".join(out)
    if len(encoded) > LABEL_VALUE_MOST:
        raise ValueError(f"{text!r} is too long for a label: {len(encoded)} characters")
    return encoded


def decode(value: str) -> str:
    """The inverse of `encode`; foreign text that is no encoding comes back as it is."""
    data = re.sub(
        rb"__([0-9a-f]{2})|_",
        lambda m: bytes([int(m[1], 16)]) if m[1] else b".",
        value.encode(),
    )
    return data.decode(errors="replace")


def labels(options: GcpOptions, spec: Spec) -> dict[str, str]:
    """All labels of a resource that belongs to `spec`."""
    user = {label(key): label(value) for key, value in spec.tags.items()}
    return {**user, **options.labels, **identity(spec)}


def identity(spec: Spec) -> dict[str, str]:
    return {
        NAME: encode(spec.name),
        VERSION: encode(spec.version),
        RUN: encode(spec.run),
        DIGEST[0]: spec.digest[:32],
        DIGEST[1]: spec.digest[32:],
    }


def problems(spec: Spec) -> Iterator[Finding]:
    """Names and versions that do not fit into a label."""
    for key, text in (("name", spec.name), ("version", spec.version)):
        try:
            encode(text)
        except ValueError as error:
            fix = f"use a shorter image.{key}"
            yield Finding(f"gcp.{key}", Severity.ERROR, str(error), fix)


def recognise(labels: Mapping[str, str]) -> Spec | None:
    """Name, version, digest and run from a resource's labels; None if it is not ours."""
    if NAME not in labels or any(key not in labels for key in DIGEST):
        return None
    return Spec(
        name=decode(labels[NAME]),
        version=decode(labels.get(VERSION, "")),
        digest="".join(labels[key] for key in DIGEST),
        run=decode(labels.get(RUN, "")),
    )


def list_filter(query: Query) -> str:
    """A Compute list filter for what `recognise` would match."""
    terms = [f"labels.{NAME}:*"]
    wanted = [(NAME, encode(query.name)), (VERSION, encode(query.version))]
    wanted += [(RUN, encode(query.run))]
    wanted += [(DIGEST[0], query.digest[:32]), (DIGEST[1], query.digest[32:])]
    terms += [f"labels.{key}={value}" for key, value in wanted if value]
    return " AND ".join(f"({term})" for term in terms)

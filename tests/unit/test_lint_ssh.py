"""What lint reads of sshd's configuration."""

from __future__ import annotations

import pytest

from publisher.proof.checks import ssh
from tests.unit import lint_world as world
from tests.unit.lint_world import World, good
from tests.unit.test_lint_rules import RULES

GOOD = "PasswordAuthentication no\nPermitRootLogin no\nClientAliveInterval 120\n"
SSH = ("aws.ssh-passwords", "aws.ssh-root", "gcp.ssh-root", "azure.ssh-keepalive")


def told(text: str) -> list[str]:
    """The rules that an included file with this text breaks, with evidence."""
    files = {**good(), "/etc/ssh/sshd_config.d/10-image.conf": text.encode()}
    found = [f for rule in SSH for f in world.found(RULES[rule], World(files))]
    return [f"{f.rule}: {f.evidence}" for f in found]


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        GOOD.replace("120", "3m"),
        GOOD.replace("120", "2M30"),
        GOOD.replace("Authentication no", "Authentication no # never").replace(" ", "\t"),
        GOOD.replace("Authentication no", 'Authentication="no"#never'),
        GOOD.replace("RootLogin no", "RootLogin prohibit-password"),
        f"Match all\n{GOOD}",
        f"{GOOD}Match User backup\nPasswordAuthentication yes\n",
        f"Match User backup\nPermitRootLogin yes\nMatch all\n{GOOD}",
        f"{GOOD}UsePAM yes\nKbdInteractiveAuthentication no\n",
        f"{GOOD}UsePAM yes\nChallengeResponseAuthentication no\n",
        f"{GOOD}UsePAM no\nKbdInteractiveAuthentication yes\n",
    ],
)
def test_a_safe_configuration_breaks_no_rule(text: str) -> None:
    assert told(text) == []


@pytest.mark.parametrize(
    ("text", "evidence"),
    [
        (
            f"{GOOD}UsePAM yes\nKbdInteractiveAuthentication yes\n",
            "aws.ssh-passwords: KbdInteractiveAuthentication is yes, with UsePAM",
        ),
        (
            f"{GOOD}UsePAM yes\n",
            "aws.ssh-passwords: KbdInteractiveAuthentication is not set (it is yes), with UsePAM",
        ),
        (
            f"{GOOD}Match all\nPasswordAuthentication yes\n",
            "aws.ssh-passwords: PasswordAuthentication yes, not no",
        ),
        (GOOD.replace("120", "1h"), "azure.ssh-keepalive: ClientAliveInterval 1h, not 30 to 235"),
        (GOOD.replace("120", "20s"), "azure.ssh-keepalive: ClientAliveInterval 20s, not 30 to 235"),
        (GOOD.replace("120", "x"), "azure.ssh-keepalive: ClientAliveInterval x, not 30 to 235"),
    ],
)
def test_what_counts_for_everybody_is_judged(text: str, evidence: str) -> None:
    assert told(text) == [evidence]


def test_a_block_for_some_ends_with_its_file_and_hides_what_it_includes() -> None:
    files = {**good(), "/etc/ssh/sshd_config.d/10-image.conf": GOOD.encode()}
    files["/etc/ssh/sshd_config.d/00.conf"] = b"Match User a\nInclude more.conf\n"
    files["/etc/ssh/more.conf"] = b"PermitRootLogin yes\n"
    assert ssh.settings(World(files).tree())["permitrootlogin"].value == "no"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90", 90), ("3m", 180), ("1h30m", 5400), ("1W2d", 777600), ("", None), ("m", None)],
)
def test_times_are_those_of_sshd(text: str, expected: int | None) -> None:
    assert ssh.seconds(text) == expected

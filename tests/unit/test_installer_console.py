"""What installers print, and what it says about how they are getting on."""

from __future__ import annotations

import pytest

from publisher.build.install_console import QUESTION, Progress


class Heard:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.phases: list[str] = []
        self.progress = Progress(self.lines.append, self.phases.append)

    def feed(self, text: str) -> Progress:
        # as it comes over a serial line
        for start in range(0, len(text), 7):
            self.progress.feed(text[start : start + 7].encode())
        return self.progress


@pytest.fixture
def heard() -> Heard:
    return Heard()


def test_debians_installer_shows_what_it_does(heard: Heard) -> None:
    heard.feed(
        "[    0.000000] Linux version 6.1\r\nBooting from ROM...\r\n"
        "Detecting network hardware  ... 2%... 95%... 100%\r\n"
        "Detecting link on enp0s2; please wait...  ... 0%... 100%\r\n"
        "Installing the base system  ... 1%... 10%"
    )
    assert heard.phases == [
        "Detecting network hardware",
        "Detecting link on enp0s2; please wait",
        "Installing the base system",
    ]
    assert heard.lines[0] == "Booting from ROM..."
    assert not heard.progress.trouble


def test_windows_of_newt_are_read_through_their_escapes(heard: Heard) -> None:
    heard.feed("\x1b[5;20H┌──────┤ \x1b[1mInstalling the base system\x1b[0m ├──────┐\r\n")
    assert heard.phases == ["Installing the base system"]
    heard.feed("\x1b[2J┌──┤ [!!] Configure the package manager ├──┐")
    assert heard.progress.trouble == "it asks or complains: Configure the package manager"


def test_anacondas_packages_are_one_phase(heard: Heard) -> None:
    heard.feed("Starting package installation process\nInstalling bash.x86_64 (3/300)\n")
    assert heard.phases == ["Starting package installation process", "Installing bash.x86_64"]


@pytest.mark.parametrize(
    ("said", "trouble"),
    [
        ("!! ERROR: Bad archive mirror\r\n", "Bad archive mirror"),
        ("[Press enter to continue]", QUESTION),
        ("  1: Retry [*],  2: Cancel,\r\nPrompt: '?' for help, default=1> ", QUESTION),
        ("An unknown error has occurred\n", "an unknown error has occurred"),
        ("Please make a selection from the above ['c' to continue]: ", QUESTION),
        ("\tInstallation complete.  Press return to quit", "it is done and waits for a key"),
        ("Installation complete. Press ENTER to quit: ", "it is done and waits for a key"),
        ("An error occurred. Press enter to start a shell\n", "an error occurred"),
        ("Kernel panic - not syncing: No working init found.\n", "kernel panic: No working init"),
        ("You are in emergency mode.\n", "it stopped in emergency mode"),
    ],
)
def test_an_installer_that_cannot_go_on_is_noticed(heard: Heard, said: str, trouble: str) -> None:
    assert heard.feed(f"[    1.0] a line before\n{said}").trouble.startswith(trouble)


def test_a_password_that_debians_installer_asks_for_is_noticed_without_a_prompt(
    heard: Heard,
) -> None:
    said = "Set up users and passwords\r\n--------------------------\r\n\r\nRoot password:\r\n"
    assert not heard.feed(said).trouble  # not its console: a table of a script's
    heard.feed(f"Loading additional components  ... 90%... 100%\r\n{said}")
    assert heard.progress.trouble == f"{QUESTION}: Set up users and passwords"


def test_an_error_of_debians_installer_is_told_before_its_title(heard: Heard) -> None:
    heard.feed(
        "Detecting disks  ... 0%... 100%\r\nPartition disks\r\n---------------\r\n\r\n"
        "!! ERROR: No root file system is defined.\r\n\r\n[Press enter to continue]"
    )
    assert heard.progress.trouble == "No root file system is defined"


def test_what_only_looks_like_trouble_is_none(heard: Heard) -> None:
    heard.feed("Prompt: '?' for help is shown when needed\nerrors=remount-ro\n! done\n")
    assert not heard.progress.trouble


def test_a_disk_that_is_too_small_is_noticed(heard: Heard) -> None:
    heard.feed("!! ERROR: Failed to partition the selected disk\n")
    assert heard.progress.full


def test_the_first_trouble_counts(heard: Heard) -> None:
    heard.feed("!! ERROR: Bad archive mirror\n[Press enter to continue]")
    assert heard.progress.trouble == "Bad archive mirror"

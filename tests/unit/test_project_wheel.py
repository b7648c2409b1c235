"""What pip installs: the wheel holds every file and works outside the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import publisher

ROOT = Path(__file__).parents[2]
PUBLISH = """
import importlib.metadata, sys
[command] = importlib.metadata.entry_points(group="console_scripts", name="publish")
sys.argv[0] = "publish"
sys.exit(command.load()())
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's content, unpacked away from the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    build: list[str | Path] = [
        sys.executable,
        "-m",
        "hatchling",
        "build",
        "--target",
        "wheel",
        "--directory",
        folder,
    ]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    [archive] = folder.glob("*.whl")
    with zipfile.ZipFile(archive) as content:
        content.extractall(folder / "site")
    return folder / "site"


def python(site: Path, code: str, *arguments: str) -> str:
    """What `code` prints when only the wheel provides the project."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=site.parent,
        env={**os.environ, "PYTHONPATH": str(site)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def test_it_holds_every_file_of_both_packages_and_nothing_else(wheel: Path) -> None:
    listing = subprocess.run(
        ["git", "ls-files", "publisher", "providers"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    tracked = set(listing.stdout.splitlines())
    packed = {path.relative_to(wheel).as_posix() for path in wheel.rglob("*") if path.is_file()}
    assert {path for path in tracked if (ROOT / path).exists()} <= packed
    assert {path.split("/")[0] for path in packed} == {
        "publisher",
        "providers",
        f"cloud_image_publisher-{publisher.__version__}.dist-info",
    }


def test_it_says_that_it_is_typed_and_carries_the_licence(wheel: Path) -> None:
    assert (wheel / "publisher/py.typed").is_file()
    assert (wheel / "providers/py.typed").is_file()
    [licence] = wheel.glob("*.dist-info/licenses/LICENSE")
    assert licence.read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_the_command_tells_its_version(wheel: Path) -> None:
    assert publisher.__version__ in python(wheel, PUBLISH, "--version")


def test_the_command_prints_the_schema_with_every_provider(wheel: Path) -> None:
    schema = json.loads(python(wheel, PUBLISH, "schema"))
    assert {"aws", "gcp", "azure", "files"} <= set(schema["$defs"]["Targets"]["properties"])


def test_the_providers_come_from_the_wheel(wheel: Path) -> None:
    code = (
        "import sys; from publisher import provider\n"
        "for name in provider.names(): print(sys.modules[provider.load(name).__module__].__file__)"
    )
    files = python(wheel, code).splitlines()
    assert len(files) == 4
    assert all(Path(file).is_relative_to(wheel) for file in files)

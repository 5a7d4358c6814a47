"""What a fresh clone rests on: the pins, the conda shell, .ci/run, and the closing account of the tests."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
PINS = (ROOT / "requirements.txt").read_text()
PIN = re.compile(r"^[a-z0-9-]+==\S+( ; [^\\\n]+)?( \\\n    --hash=sha256:[0-9a-f]{64})+$", re.MULTILINE)


def pinned(python: str) -> dict[str, list[str]]:
    """Pinned versions by name on Linux and one Python: more than one version of a name is a contradiction."""
    versions: dict[str, list[str]] = {}
    for match in PIN.finditer(PINS):
        pin = Requirement(match[0].split("\\")[0])
        place = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
        if pin.marker is None or pin.marker.evaluate(place):
            versions.setdefault(pin.name, []).append(str(pin.specifier).removeprefix("=="))
    return versions


def listed_files() -> list[Path]:
    """Files of the repository: those in git, and those that git would take."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git clone")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def test_conda_brings_python_and_pip_and_the_package_the_rest() -> None:
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    names = [Requirement(entry.replace("=", "==")) for entry in conda if isinstance(entry, str)]
    assert sorted(requirement.name for requirement in names) == ["pip", "python"]
    assert [entry for entry in conda if not isinstance(entry, str)] == [{"pip": ["-e .[notebooks]"]}]
    assert "notebooks" in PROJECT["optional-dependencies"]
    python = next(requirement for requirement in names if requirement.name == "python")
    version = str(python.specifier).removeprefix("==")
    assert SpecifierSet(PROJECT["requires-python"]).contains(version)


def test_the_pins_are_hashed_and_name_no_host() -> None:
    assert PIN.sub("", PINS).strip() == "", "something that is neither a pin nor its hashes"


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_the_pins_satisfy_every_declared_dependency(python: str) -> None:
    groups = PYPROJECT["dependency-groups"]
    declared = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["notebooks"]
    pins = pinned(python)
    for requirement in map(Requirement, [*declared, *PYPROJECT["build-system"]["requires"], *groups["test"]]):
        versions = pins.get(requirement.name.replace("_", "-"), [])
        assert len(versions) == 1, f"{requirement.name} is pinned {len(versions)} times: run make pins"
        assert requirement.specifier.contains(versions[0]), f"{requirement} is pinned at {versions[0]}: run make pins"
    assert "torch" not in pins


def test_no_lock_file_and_nothing_heavy_is_committed() -> None:
    files = listed_files()
    assert "uv.lock" not in [path.name for path in files]
    assert [path.name for path in files if path.stat().st_size > 8 * 2**20] == []


def test_the_citation_and_the_changes_name_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert citation["version"] == PROJECT["version"]
    assert changes.split("\n## ")[1].startswith(f"{PROJECT['version']} ({citation['date-released']})")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with .ci/run in it, and beside it a `make` that only says how it was called."""
    clone = tmp_path / "clone"
    (clone / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "run", clone / ".ci" / "run")
    make = tmp_path / "bin" / "make"
    make.parent.mkdir()
    make.write_text('#!/bin/sh\necho "make $* in $PWD with ${PRUNEJAX_SHARED-nothing}"\n')
    make.chmod(0o755)
    return clone


def ci_run(clone: Path, named: str | None) -> subprocess.CompletedProcess[str]:
    """.ci/run called from elsewhere, with PRUNEJAX_SHARED as given."""
    environment = {name: value for name, value in os.environ.items() if name != "PRUNEJAX_SHARED"}
    environment["PATH"] = f"{clone.parent / 'bin'}{os.pathsep}{environment['PATH']}"
    if named is not None:
        environment["PRUNEJAX_SHARED"] = named
    return subprocess.run([clone / ".ci" / "run"], cwd=clone.parent, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("beside", "named", "seen"),
    [
        (None, None, "nothing"),
        ("shared", None, "shared"),
        ("numbers", "../numbers", "numbers"),
        ("numbers", "{parent}/numbers", "numbers"),
    ],
)
def test_ci_calls_make_test_with_the_shared_folder(
    clone: Path, beside: str | None, named: str | None, seen: str
) -> None:
    if beside:
        (clone.parent / beside).mkdir()
    result = ci_run(clone, named and named.format(parent=clone.parent))
    expected = seen if seen == "nothing" else clone.parent / seen
    assert result.stdout == f"make test in {clone} with {expected}\n"
    assert result.returncode == 0


def test_ci_refuses_a_shared_folder_that_is_missing(clone: Path) -> None:
    (clone.parent / "shared").mkdir()
    result = ci_run(clone, "../elsewhere")
    assert result.returncode != 0
    assert result.stdout == ""
    assert result.stderr == ".ci/run: PRUNEJAX_SHARED names no folder: ../elsewhere\n"


PARITY_TESTS = """
import pytest

def test_numbers(shared): pass
def test_scores(shared): pass
@pytest.mark.parity
def test_marked(): pass
def test_plain(): pass
"""


def pytest_in(folder: Path, shared: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Pytest in a folder of its own, with our conftest.py, PRUNEJAX_SHARED as given, and no plugin but xdist."""
    shutil.copy(ROOT / "tests" / "conftest.py", folder)
    command = [sys.executable, "-m", "pytest", "-o", "markers=parity", "-p", "xdist", *arguments]
    environment = os.environ | {"PRUNEJAX_SHARED": shared, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_the_last_lines_tell_of_parity_across_workers(tmp_path: Path) -> None:
    (tmp_path / "test_parity.py").write_text(PARITY_TESTS)
    *_, count, reason, closing = pytest_in(tmp_path, "", "-n", "1", "-ra").stdout.splitlines()
    assert count == "parity tests: 1 ran, 2 skipped"
    assert reason == "  2 skipped: PRUNEJAX_SHARED is not set"
    assert "2 passed, 2 skipped" in closing


def test_a_missing_shared_folder_stops_the_tests(tmp_path: Path) -> None:
    result = pytest_in(tmp_path, str(tmp_path / "missing"))
    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert f"PRUNEJAX_SHARED names no folder: {tmp_path / 'missing'}" in result.stderr

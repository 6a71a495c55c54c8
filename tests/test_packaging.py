"""What is installed is what lies in the checkout."""

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

import radiogen

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PROJECT["tool"]["setuptools"]


def folder_of(package: str) -> Path:
    """Where a package lies in the checkout, by the longest mapping that fits."""
    mapping = SETUPTOOLS["package-dir"]
    owner = max((name for name in mapping if f"{package}.".startswith(f"{name}.")), key=len)
    return ROOT.joinpath(mapping[owner], *package.removeprefix(owner).strip(".").split("."))


def packages_on_disk() -> set[str]:
    """Every folder with Python files, by the name it is installed under, and the data folders."""
    found = {"radiogen.data_manifests", "radiogen.models"}
    for top, name in (("radiogen", "radiogen"), ("cli", "radiogen.cli")):
        for file in (ROOT / top).rglob("*.py"):
            found.add(".".join([name, *file.parent.relative_to(ROOT / top).parts]))
    return found


def test_the_list_of_packages_equals_the_folders_on_disk():
    assert sorted(SETUPTOOLS["packages"]) == sorted(packages_on_disk())


@pytest.mark.parametrize("package", SETUPTOOLS["packages"])
def test_every_listed_package_lies_where_its_mapping_says(package):
    assert folder_of(package).is_dir()


def test_every_data_file_of_the_library_is_shipped():
    unshipped = []
    for package in SETUPTOOLS["packages"]:
        folder, patterns = folder_of(package), SETUPTOOLS["package-data"].get(package, [])
        nested = [folder_of(name) for name in SETUPTOOLS["packages"] if name.startswith(f"{package}.")]
        for file in folder.rglob("*"):
            if not file.is_file() or file.suffix in {".py", ".pyc"}:
                continue
            if any(file.is_relative_to(inner) for inner in nested):
                continue
            inside = file.relative_to(folder).as_posix()
            if not any(fnmatch(inside, pattern.removeprefix("**/")) for pattern in patterns):
                unshipped.append(f"{package}: {inside}")
    assert not unshipped


def test_site_packages_receives_one_name():
    assert {name.split(".")[0] for name in SETUPTOOLS["packages"]} == {"radiogen"}


def test_every_direct_dependency_is_pinned_for_the_tests():
    pins = re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    pinned = {re.sub(r"[-_.]+", "-", name).lower() for name in pins}
    wanted = PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["dev"]
    names = {re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", line).group()).lower() for line in wanted}
    assert names - pinned == set()


def test_the_version_is_three_numbers():
    assert re.fullmatch(r"\d+\.\d+\.\d+", radiogen.__version__)

"""The tested versions have none of the holes that were known when they were chosen; no network is needed to say so.

This is no substitute for a data base of advisories: where there is a network, `pip-audit -r constraints.txt` asks one.
"""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]

KNOWN_BAD = {
    "aiohttp": "<3.13.4",  # CVE-2026-34525: several Host headers; CVE-2026-22815: unbounded trailers
    "datasets": "<4",  # runs scripts that come with a data set
    "filelock": "<3.20.3",  # CVE-2026-22701, CVE-2025-68146: races in making the lock
    "h11": "<0.16",  # CVE-2025-43859: request smuggling
    "jinja2": "<3.1.6",  # CVE-2025-27516: escape from the sandbox
    "jsonargparse": "<4.53",  # imports what a configuration names: the denylist of import paths came with 4.53
    "lightning": "<2.6.6",  # CVE-2026-58659: code execution in load_from_checkpoint; 2.6.2 and 2.6.3 were malicious
    "pytorch-lightning": "<2.6.6",  # the same under its other name
    "pillow": "<12.3",  # PYSEC-2026-2253 to 2257; CVE-2026-25990: out-of-bounds write in reading PSD
    "protobuf": "<6.33.5",  # CVE-2026-0994: unbounded recursion
    "requests": "<2.33",  # CVE-2026-25645; CVE-2024-47081: credentials of .netrc sent elsewhere
    "torch": "<2.10",  # CVE-2026-24747, CVE-2025-32434: code execution in spite of weights_only=True
    "tornado": "<6.5.5",  # CVE-2026-31958: denial of service
    "urllib3": "<2.6.3",  # CVE-2026-21441: decompression bombs in redirects
    "virtualenv": "<20.36.1",  # CVE-2026-22702: races in making folders
}
"""Package -> versions not to be installed, each looked up in public advisories in November 2026."""


def pinned():
    lines = (line.partition("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines())
    return {canonicalize_name(name): Version(version) for name, version in (line.split("==") for line in lines if line)}


def declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    texts = [*project["dependencies"], *(text for extra in extras for text in extra)]
    return {canonicalize_name(found.name): found for found in map(Requirement, texts)}


def test_every_pin_is_one_exact_version_and_none_is_named_twice():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.+!-]+", line)] == []
    assert len(lines) == len(pinned())


@pytest.mark.parametrize("package", KNOWN_BAD)
def test_no_pin_is_known_to_be_bad(package):
    assert pinned()[package] not in SpecifierSet(KNOWN_BAD[package])


@pytest.mark.parametrize("package", sorted(set(KNOWN_BAD) & set(declared())))
def test_no_range_begins_with_a_version_known_to_be_bad(package):
    lowest = min(Version(part.version) for part in declared()[package].specifier if part.operator in (">=", "=="))
    assert lowest not in SpecifierSet(KNOWN_BAD[package])


def test_every_pin_of_a_declared_package_is_in_its_range():
    pins = pinned()
    found = {name: needed for name, needed in declared().items() if name != "retrace-pl"}
    assert [name for name, needed in found.items() if pins[name] not in needed.specifier] == []

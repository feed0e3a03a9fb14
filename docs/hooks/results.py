"""Makes a page of every table in `benchmarks/results`, and puts single tables of them into other pages.

No figure of a measurement is typed in a page. A line `<!-- results: FILE.md N -->` becomes the N-th table of that file,
and `<!-- results -->` the list of all of them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

TABLE = re.compile(r"^[ \t]*<!-- results: (\S+)\.md (\d+) -->[ \t]*$", re.MULTILINE)
LIST = "<!-- results -->"
SECTION = "results"
"""Folder of the generated pages, and the page of the navigation that they follow."""


def tables(text: str) -> list[str]:
    """The Markdown tables of a text, in order."""
    found: list[list[str]] = []
    inside = False
    for line in text.splitlines():
        if line.startswith("|"):
            if not inside:
                found.append([])
            found[-1].append(line)
        inside = line.startswith("|")
    return ["\n".join(lines) for lines in found]


def title(path: Path) -> str:
    """The first heading of a file, or its name in words."""
    heading = re.search(r"^# (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return heading[1].strip() if heading else path.stem.replace("_", " ").capitalize()


def page_of(path: Path) -> str:
    """The page that shows one file of results; a file without a heading gets one."""
    text = path.read_text(encoding="utf-8")
    heading = "" if re.search(r"^# ", text, re.MULTILINE) else f"# {title(path)}\n\n"
    return f"{heading}{text}\n"


def sources(config: Any) -> list[Path]:
    """Every file that becomes a page, by name."""
    return sorted((Path(config.config_file_path).parent / "benchmarks" / "results").glob("*.md"))


def on_config(config: Any, **_: Any) -> Any:
    """Puts the generated pages below `Results` in the navigation, an event of MkDocs."""
    pages = [{title(path): f"{SECTION}/{path.name}"} for path in sources(config)]
    for entry in config.nav:
        if isinstance(entry, dict) and entry.get("Results") == f"{SECTION}.md":
            entry["Results"] = [f"{SECTION}.md", *pages]
            return config
    raise PluginError(f"mkdocs.yml: the navigation has no entry `Results: {SECTION}.md` to put the results below")


def on_files(files: Files, *, config: Any, **_: Any) -> Files:
    """Adds a page for every file of results, an event of MkDocs."""
    for path in sources(config):
        files.append(File.generated(config, f"{SECTION}/{path.name}", content=page_of(path)))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Puts in the tables that a page names, an event of MkDocs."""
    found = {path.stem: path for path in sources(config)}

    def table(match: re.Match[str]) -> str:
        name, number = match[1], int(match[2])
        there = tables(found[name].read_text(encoding="utf-8")) if name in found else []
        if not 1 <= number <= len(there):
            raise PluginError(f"{page.file.src_uri}: {match[0].strip()}: there are {len(there)} tables of that name")
        return there[number - 1]

    def row(path: Path) -> str:
        commands = re.findall(r"`(python [^`]+)`", path.read_text(encoding="utf-8"))
        command = f"`{' '.join(commands[0].split())}`" if commands else ""
        return f"| [{title(path)}]({SECTION}/{path.name}) | {command} |"

    markdown = TABLE.sub(table, markdown)
    if LIST in markdown:
        rows = "\n".join(row(path) for path in found.values())
        markdown = markdown.replace(LIST, f"| results | written by |\n|---|---|\n{rows}")
    return markdown

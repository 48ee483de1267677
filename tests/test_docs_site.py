"""The site's menu names every page, so that none is lost; `mkdocs` in `.ci/run` checks the rest."""

from __future__ import annotations

import re
from pathlib import Path

PROJECT = Path(__file__).parents[1]


def test_the_menu_names_every_page_and_only_pages() -> None:
    text = (PROJECT / "docs" / "mkdocs.yml").read_text()
    named = re.findall(r"^ +- .*: (\S+\.md)$", text[text.index("\nnav:") :], re.M)
    pages = [PROJECT / "benchmarks" / "NOTES.md", PROJECT / "weights" / "README.md"]
    for folder in ("", "docs", "examples"):
        pages += (PROJECT / folder).glob("*.md")
    assert sorted(named) == sorted(path.relative_to(PROJECT).as_posix() for path in pages)

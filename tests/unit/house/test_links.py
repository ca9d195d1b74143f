"""Links of the docs lead somewhere: to a file of ours, and to a heading in it."""

import re
from functools import cache
from pathlib import Path

import pytest

from tests.support.sources import ROOT

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
#: A link or a picture; what it leads to.
LINK = re.compile(r"\]\(([^()\s]+)\)")
#: A block of code, in which nothing is a link or a heading.
CODE = re.compile(r"^```.*?^```", re.M | re.S)
#: An anchor of our own.
ANCHOR = re.compile(r'<a id="([^"]+)">')
HEADING = re.compile(r"^#+ (.+)$", re.M)


def slug(heading: str) -> str:
    """The anchor that GitHub and the site give to a heading.

    >>> slug("`rules.lease_seconds` (5)")
    'ruleslease_seconds-5'
    """
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


@cache
def text_of(page: Path) -> str:
    return CODE.sub("", page.read_text())


@cache
def anchors(page: Path) -> frozenset[str]:
    text = text_of(page)
    return frozenset((*map(slug, HEADING.findall(text)), *ANCHOR.findall(text)))


def find_fault(page: Path, link: str) -> str | None:
    """What is wrong with a link of a page, None if it leads somewhere."""
    name, _, anchor = link.partition("#")
    target = (page.parent / name).resolve() if name else page
    if not target.exists():
        return f"{link}: there is no {target.relative_to(ROOT)}"
    if anchor and anchor not in anchors(target):
        return f"{link}: {target.name} has no such heading"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    links = [link for link in LINK.findall(text_of(page)) if "://" not in link]
    faults = [fault for link in links if (fault := find_fault(page, link))]
    assert faults == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_headings_of_a_page_are_told_apart(page: Path):
    found = [slug(heading) for heading in HEADING.findall(text_of(page))]
    # The changelog has the same ones for each version.
    assert page.name == "CHANGELOG.md" or len(found) == len(set(found))

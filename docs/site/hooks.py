"""The site's first page is the README, whose links and those to it are made to fit."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

README = Path(__file__).resolve().parents[2] / "README.md"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the README as the first page."""
    text = re.sub(r"\]\(docs/", "](", README.read_text())
    # A folder's licence is no page.
    text = text.replace("[Apache License 2.0](LICENSE)", "Apache License 2.0")
    files.append(File.generated(config, "index.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Have links to the README lead to the first page."""
    return markdown.replace("](../README.md", "](index.md")

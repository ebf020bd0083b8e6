"""Pages that are files of the repository's root: one text, two places."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md"}
FILES = {"CONTRIBUTING.md": "contributing.md", "README.md": "index.md"}


def on_page_markdown(markdown, page, **_):
    """Puts a root file in the place of the page that stands for it, with its links turned round."""
    source = ROOT / PAGES.get(page.file.src_uri, "")
    if not source.is_file():
        return markdown
    text = source.read_text()
    for link, target in FILES.items():
        text = text.replace(f"]({link})", f"]({target})")
    return text.replace("](docs/", "](").replace('src="docs/', 'src="')

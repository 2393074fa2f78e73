"""Complete the site's navigation from docs/: decisions by number, and pages nobody placed yet."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

Nav = list[dict[str, Any]]


def on_config(config: Any) -> Any:
    """Called by mkdocs with what mkdocs.yml says."""
    config.nav = complete_nav(config.nav, Path(config.docs_dir))
    return config


def complete_nav(nav: Nav, docs: Path) -> Nav:
    """`nav` with the decisions, and with every page that it does not name under `More`."""
    placed = set(_pages_in(nav))
    pages = sorted(path.relative_to(docs).as_posix() for path in docs.rglob("*.md"))
    decisions = [page for page in pages if page.startswith("decisions/")]
    others = [page for page in pages if page not in placed and page not in decisions]
    added: Nav = [{"Decisions": [{_title(docs / page): page} for page in decisions]}]
    if others:
        added.append({"More": [{_title(docs / page): page} for page in others]})
    return [*nav, *added]


def _pages_in(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
        return
    for part in nav.values() if isinstance(nav, dict) else nav:
        yield from _pages_in(part)


def _title(page: Path) -> str:
    """The first heading without its marks."""
    return page.read_text(encoding="utf-8").splitlines()[0].lstrip("# ").replace("`", "")

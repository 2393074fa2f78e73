"""The page of a preview: one file that needs no network, no script and no other file."""

from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined

if TYPE_CHECKING:
    from lorastudy.study.seen_rows import Preview

_TEMPLATE = "preview.html.jinja"


def render_preview(preview: "Preview") -> str:
    """The page as HTML; every text goes through Jinja's autoescape."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(_TEMPLATE).render(preview=preview)

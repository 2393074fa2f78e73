"""Chat templates and rows with answers for tests."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

END = "<|endoftext|>"
TEMPLATE = (  # a line break after a block is not written
    "{% for m in messages %}{{ '[' + m.role + ']\n' }}"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content | trim }}"
    "<|endoftext|>{% endgeneration %}{% else %}{{ m.content }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant]\n' }}{% endif %}"
)
WITHOUT_MARKS = TEMPLATE.replace("{% generation %}", "").replace("{% endgeneration %}", "")


def say(*contents: str, system: str = "") -> list[dict[str, str]]:
    """Messages of user and assistant in turn."""
    turns = [
        {"role": role, "content": content}
        for role, content in zip(("user", "assistant") * len(contents), contents, strict=False)
    ]
    return [*([{"role": "system", "content": system}] if system else []), *turns]


def write_rows(path: Path, rows: Iterable[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path

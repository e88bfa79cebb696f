"""Texts that the library writes, as Jinja templates beside this file: the model card, the report of ``reproduce``."""

import functools
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape


@functools.cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("glimpsenet"),
        autoescape=select_autoescape(["html.jinja"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render(template: str, /, **values: Any) -> str:
    """The file ``TEMPLATE.jinja`` with ``values``; what goes into HTML is escaped, and none may be missing."""
    return _environment().get_template(f"{template}.jinja").render(values)

"""Values into a page's template: everything is escaped, and a name that a template lacks is an error."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from ..core.errors import MissingDependency


def render(template: str, **values: Any) -> str:
    """The HTML of a template beside this file; `style.html` is the look that all pages include."""
    try:
        from jinja2 import Environment, FunctionLoader, StrictUndefined
    except ImportError as error:
        raise MissingDependency("The report page needs jinja2; pip install jinja2.") from error
    environment = Environment(
        loader=FunctionLoader(lambda name: files(__package__).joinpath(name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)


def markup(svg: str) -> Any:
    """SVG of our own drawing, which a template must not escape."""
    from markupsafe import Markup

    return Markup(svg)

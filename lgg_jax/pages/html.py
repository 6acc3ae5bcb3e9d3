"""Self-contained HTML pages, rendered from the Jinja2 templates in templates/.

    sections = {"Ages": [paragraph("87 of 88 are known."), picture("age.png", "Patients by decade.")]}
    Path("data.html").write_text(page("The data", "88 patients.", sections), encoding="utf-8")

The file holds its styles, its script and its pictures. A page is light or dark as the reader's system is, and readable
on a phone and in print. Jinja2 escapes every text; the parts returned here are Markup, which it does not escape again.
"""

import base64
import numbers
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

_TEMPLATES = Environment(
    loader=PackageLoader("lgg_jax.pages"), autoescape=True, undefined=StrictUndefined,
    trim_blocks=True, lstrip_blocks=True,
)  # fmt: skip
_PARTS = _TEMPLATES.get_template("parts.html").module


def page(title: str, lead: str, sections: dict[str, Iterable[Markup]]) -> str:
    """The whole document, to be written to a file.

    Args:
      title: of the page and of its window.
      lead: the paragraph under the title.
      sections: heading → its parts, in reading order; links to the headings follow the lead.
    """
    return _TEMPLATES.get_template("page.html").render(title=title, lead=lead, sections=sections)


def fill(template: str, **values) -> Markup:
    """A part with a template of its own, such as "model_card.html"."""
    return Markup(_TEMPLATES.get_template(template).render(values))


def paragraph(text: str) -> Markup:
    return _PARTS.paragraph(text)


def facts(values: dict[str, str]) -> Markup:
    """Headline values in tiles: label → value as it is to be read."""
    return _PARTS.facts(values)


def cards(*parts: Markup) -> Markup:
    """Pictures and narrow tables side by side, three at most, as far as the window is wide."""
    return _PARTS.cards(parts)


def picture(path, caption: str, wide: bool = False) -> Markup:
    """The PNG at `path` with what the reader should see in it under it; in `cards`, a wide one has its own row."""
    return _PARTS.picture(_base64(path), caption, wide)


def layers(base, overlays: dict[str, tuple[Path, str]], caption: str) -> Markup:
    """The PNG at `base` with transparent ones over it, each shown or hidden by a checkbox.

    Args:
      overlays: label → its PNG, of the same shape, and the colour that it draws in; two at most.
    """
    above = [{"label": label, "data": _base64(path), "colour": colour} for label, (path, colour) in overlays.items()]
    return _PARTS.layers(_base64(base), above, caption)


def table(frame: pd.DataFrame, caption: str, formats: dict[str, str] | None = None, sortable: bool = True) -> Markup:
    """A table, sorted by a click on a column's head where `sortable`; the index is not shown.

    Args:
      frame: a column of numbers is sorted and aligned as numbers, any other as text; missing values are a dash.
      formats: format specification by column, such as {"dice": ".3f"}; else whole numbers with thousands separators
        and others with four digits.
    """
    formats = formats or {}
    numeric = {name: pd.api.types.is_numeric_dtype(frame[name]) for name in frame}
    columns = [{"title": name, "numeric": numeric[name]} for name in frame]
    rows = [[_cell(row[name], numeric[name], formats.get(name)) for name in frame] for row in frame.to_dict("records")]
    return _PARTS.table(caption, columns, rows, sortable)


def _cell(value, numeric: bool, spec: str | None) -> dict:
    """What a cell sorts by, its `value`, None where it is missing; and the text that it shows."""
    if pd.isna(value):
        return {"numeric": numeric, "value": None, "text": "–"}
    if not numeric:
        return {"numeric": False, "value": str(value), "text": str(value)}
    whole = isinstance(value, numbers.Integral) or float(value).is_integer()
    return {"numeric": True, "value": float(value), "text": format(value, spec or (",.0f" if whole else ".4g"))}


def _base64(path) -> str:
    return base64.b64encode(Path(path).read_bytes()).decode()

"""Self-contained HTML pages, rendered from the Jinja2 templates in templates/.

    sections = {"Ages": [paragraph("87 of 88 are known."), picture("age.png", "Patients by decade.")]}
    Path("data.html").write_text(page("The data", "88 patients.", sections), encoding="utf-8")

The file contains its styles, its script and its pictures. A page follows the light or dark mode of the reader's system.
It is readable on a phone and in print. Jinja2 escapes every text. The parts returned here are Markup, which Jinja2 does
not escape again.
"""

import base64
import numbers
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

SORTING = "Click a column header to sort by this column."  # at the end of a long table's caption
_TEMPLATES = Environment(
    loader=PackageLoader("lgg_jax.pages"), autoescape=True, undefined=StrictUndefined,
    trim_blocks=True, lstrip_blocks=True,
)  # fmt: skip
_PARTS = _TEMPLATES.get_template("parts.html").module


def page(title: str, lead: str, sections: dict[str, Iterable[Markup]]) -> str:
    """Render the whole document.

    Args:
      title: the title of the page and of its window.
      lead: the paragraph under the title.
      sections: {heading: parts}, in reading order. Links to the headings follow the lead.
    """
    return _TEMPLATES.get_template("page.html").render(title=title, lead=lead, sections=sections)


def fill(template: str, **values) -> Markup:
    """Render a part that has its own template, such as "model_card.html"."""
    return Markup(_TEMPLATES.get_template(template).render(values))


def paragraph(text: str) -> Markup:
    return _PARTS.paragraph(text)


def facts(values: dict[str, str]) -> Markup:
    """Tiles with the main values: {label: formatted value}."""
    return _PARTS.facts(values)


def cards(*parts: Markup) -> Markup:
    """Pictures and narrow tables side by side: as many as fit in the window, at most three."""
    return _PARTS.cards(parts)


def picture(path, caption: str, wide: bool = False) -> Markup:
    """The PNG at `path` with its caption, which is also the alternative text. In `cards`, `wide` takes a whole row."""
    return _PARTS.picture(_base64(path), caption, wide)


def layers(base, overlays: dict[str, tuple[Path, str]], caption: str) -> Markup:
    """The PNG at `base` with transparent overlays, each with a checkbox that shows or hides it.

    Args:
      overlays: {label: (PNG of the same aspect ratio, colour of its lines)}, at most two.
    """
    above = [{"label": label, "data": _base64(path), "colour": colour} for label, (path, colour) in overlays.items()]
    return _PARTS.layers(_base64(base), above, caption)


def table(frame: pd.DataFrame, caption: str, formats: dict[str, str] | None = None, sortable: bool = True) -> Markup:
    """A table without the index of `frame`. If `sortable`, a click on a column header sorts the rows.

    Args:
      frame: a column of numbers is sorted and aligned as numbers, any other column as text. A missing value is a dash.
      formats: format specification by column, such as {"dice": ".3f"}. By default, integers have thousands separators,
        and other numbers have four digits.
    """
    formats = formats or {}
    numeric = {name: pd.api.types.is_numeric_dtype(frame[name]) for name in frame}
    columns = [{"title": name, "numeric": numeric[name]} for name in frame]
    rows = [[_cell(row[name], numeric[name], formats.get(name)) for name in frame] for row in frame.to_dict("records")]
    return _PARTS.table(caption, columns, rows, sortable)


def _cell(value, numeric: bool, spec: str | None) -> dict:
    """The sort key of a cell (`value`, None for a missing value) and its text."""
    if pd.isna(value):
        return {"numeric": numeric, "value": None, "text": "–"}
    if not numeric:
        return {"numeric": False, "value": str(value), "text": str(value)}
    whole = isinstance(value, numbers.Integral) or float(value).is_integer()
    return {"numeric": True, "value": float(value), "text": format(value, spec or (",.0f" if whole else ".4g"))}


def _base64(path) -> str:
    return base64.b64encode(Path(path).read_bytes()).decode()

"""One HTML page that needs nothing but itself: its styles, script and pictures are within the file.

    sections = {"Ages": [paragraph("87 of 88 are known."), picture("age.png", "Patients by decade.")]}
    Path("data.html").write_text(page("The data", "88 patients.", sections), encoding="utf-8")

Light or dark as the reader's system is, readable on a phone and in print. Every text given is escaped; what
functions here return is HTML and goes into others as it is.
"""

import base64
import html
import numbers
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

# The browser itself refuses to fetch anything, should a link to elsewhere ever slip in.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'"

STYLE = """
:root { color-scheme: light dark; --ground: #f6f7f8; --card: #fff; --text: #1b1f23; --quiet: #57606a;
  --line: #d5dae0; --accent: #00568a; }
@media (prefers-color-scheme: dark) { :root { --ground: #14171a; --card: #1e2226; --text: #e6e9ec; --quiet: #a3adb8;
  --line: #3a4149; --accent: #7cc4f2; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 75rem; padding: 1rem; background: var(--ground); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .4rem; }
p, figcaption { max-width: 46rem; }
p { margin: .5rem 0; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1rem; margin: 1rem 0; }
a { color: var(--accent); }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .7rem; margin: 1rem 0; }
.facts div, figure, .table { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; }
.facts div { display: flex; flex-direction: column-reverse; justify-content: flex-end; padding: .5rem .8rem; }
.facts dt { color: var(--quiet); font-size: .85rem; }
.facts dd { margin: 0; font-size: 1.35rem; font-weight: 600; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)); gap: 1rem;
  margin: 1rem 0; align-items: start; }
.cards .table { margin: 0; }
figure { margin: 0; padding: .7rem; }
figure.wide { grid-column: 1 / -1; max-width: 46rem; }
figure img { display: block; width: 100%; height: auto; background: #fff; border-radius: .25rem; }
figcaption { margin-top: .5rem; font-size: .92rem; }
.layers label { display: inline-block; margin: 0 1rem .5rem 0; border-bottom: .2rem solid var(--layer);
  cursor: pointer; }
.stack { position: relative; }
.stack img + img { position: absolute; inset: 0; height: 100%; background: none; }
.layers:has(label:nth-of-type(1) input:not(:checked)) img:nth-of-type(2),
.layers:has(label:nth-of-type(2) input:not(:checked)) img:nth-of-type(3) { display: none; }
.table { width: fit-content; max-width: 100%; margin: 1rem 0; padding: .3rem .7rem .7rem; }
.scroll { overflow: auto; }
.scroll:has(button) { max-height: 36rem; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
.caption { color: var(--quiet); font-size: .92rem; }
th, td { padding: .25rem .55rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { position: sticky; top: 0; background: var(--card); vertical-align: bottom; }
th.number, td.number { text-align: right; }
td { white-space: nowrap; }
.scroll:not(:has(button)) td { white-space: normal; }
@media (max-width: 30rem) {
  th, td { padding: .25rem .35rem; }
  td:not(.number) { white-space: normal; }
}
th button { all: unset; cursor: pointer; }
th button:focus-visible, .scroll:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
th button::after { content: "\\a0↕"; color: var(--quiet); }
th[aria-sort=ascending] button::after { content: "\\a0↑"; }
th[aria-sort=descending] button::after { content: "\\a0↓"; }
@media print {
  :root { --ground: #fff; --card: #fff; --text: #000; --quiet: #444; --line: #bbb; --accent: #000;
    color-scheme: light; }
  nav, th button::after { display: none; }
  .scroll, .scroll:has(button) { overflow: visible; max-height: none; }
  th { position: static; }
  table { font-size: .7rem; }
  th, td { padding: .2rem; }
  .caption { break-after: avoid; }
  td { white-space: normal; }
  figure, .facts div, tr { break-inside: avoid; }
  figure img { width: auto; max-width: 100%; max-height: 20cm; }
  .stack img { width: 100%; max-height: none; }
  h2 { break-after: avoid; }
}
"""

# Cells without a value stay at the end, whichever way the column is sorted.
SCRIPT = """
for (const button of document.querySelectorAll("th button")) button.addEventListener("click", () => {
  const head = button.parentElement, body = head.closest("table").tBodies[0];
  const way = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", way === 1 ? "ascending" : "descending");
  const value = row => row.cells[head.cellIndex].dataset.value;
  const compare = head.className === "number" ? (a, b) => a - b : (a, b) => a.localeCompare(b, "en", {numeric: true});
  body.append(...[...body.rows].sort((a, b) => {
    const [first, second] = [value(a), value(b)];
    if (first === undefined || second === undefined) return (first === undefined) - (second === undefined);
    return way * compare(first, second);
  }));
});
"""


def page(title: str, lead: str, sections: dict[str, Iterable[str]]) -> str:
    """The whole document.

    Args:
      title: of the page and of its window.
      lead: the paragraph under the title.
      sections: heading → HTML of its parts, in reading order; the headings are linked under the lead.
    """
    links, parts = [], []
    for number, (heading, content) in enumerate(sections.items(), start=1):
        name = html.escape(heading)
        links.append(f'<a href="#section{number}">{name}</a>')
        parts += [f'<section id="section{number}">', f"<h2>{name}</h2>", *content, "</section>"]
    body = "\n".join(parts)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{html.escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{html.escape(title)}</h1>
{paragraph(lead)}
<nav aria-label="Sections">{" ".join(links)}</nav>
{body}
<script>{SCRIPT}</script>
</body>
</html>
"""


def paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


def facts(values: dict[str, str]) -> str:
    """Headline values in tiles: label → value as it is to be read."""
    pairs = ((html.escape(label), html.escape(value)) for label, value in values.items())
    tiles = (f"<div><dt>{label}</dt><dd>{value}</dd></div>" for label, value in pairs)
    return f'<dl class="facts">{"".join(tiles)}</dl>'


def cards(*parts: str) -> str:
    """Pictures and narrow tables side by side, three at most, as far as the window is wide."""
    return '<div class="cards">\n' + "\n".join(parts) + "\n</div>"


def picture(path, caption: str, wide: bool = False) -> str:
    """The PNG at `path` with what the reader should see in it under it; in `cards`, a wide one has its own row."""
    text, kind = html.escape(caption), ' class="wide"' if wide else ""
    return f'<figure{kind}><img src="{_data(path)}" alt="{text}"><figcaption>{text}</figcaption></figure>'


def layers(base, overlays: dict[str, tuple[Path, str]], caption: str) -> str:
    """The PNG at `base` with transparent ones over it, each shown or hidden by a box.

    Args:
      overlays: label → its PNG, of the same shape, and the colour that it draws in; two at most.
    """
    text, boxes = html.escape(caption), []
    images = [f'<img src="{_data(base)}" alt="{text}">']
    for label, (path, colour) in overlays.items():
        name = html.escape(label)
        boxes.append(f'<label style="--layer: {colour}"><input type="checkbox" checked> {name}</label>')
        images.append(f'<img src="{_data(path)}" alt="{name}">')
    stack = f'<div class="stack">{"".join(images)}</div>'
    return f'<figure class="layers">{"".join(boxes)}{stack}<figcaption>{text}</figcaption></figure>'


def table(frame: pd.DataFrame, caption: str, formats: dict[str, str] | None = None, sortable: bool = True) -> str:
    """A table, sorted by a click on a column's head where `sortable`; the index is not shown.

    Args:
      frame: a column of numbers is sorted and aligned as numbers, any other as text; missing values are a dash.
      formats: format specification by column, such as {"dice": ".3f"}; else whole numbers with thousands separators
        and others with four digits.
    """
    formats = formats or {}
    numeric = {name: pd.api.types.is_numeric_dtype(frame[name]) for name in frame}
    titles = {name: html.escape(str(name)) for name in frame}
    if sortable:
        titles = {name: f'<button type="button">{title}</button>' for name, title in titles.items()}
    heads = "".join(f'<th scope="col"{_class(numeric[name])}>{title}</th>' for name, title in titles.items())
    rows = (
        "<tr>" + "".join(_cell(row[name], numeric[name], formats.get(name)) for name in frame) + "</tr>"
        for row in frame.to_dict("records")
    )
    text = html.escape(caption)
    return (
        f'<div class="table"><p class="caption">{text}</p><div class="scroll" tabindex="0" role="region" '
        f'aria-label="{text}"><table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n' + "\n".join(rows)
        + "\n</tbody></table></div></div>"
    )  # fmt: skip


def _data(path) -> str:
    return "data:image/png;base64," + base64.b64encode(Path(path).read_bytes()).decode()


def _class(numeric: bool) -> str:
    return ' class="number"' if numeric else ""


def _cell(value, numeric: bool, spec: str | None) -> str:
    if pd.isna(value):
        return f"<td{_class(numeric)}>–</td>"
    if not numeric:
        text = html.escape(str(value))
        return f'<td data-value="{text}">{text}</td>'
    whole = isinstance(value, numbers.Integral) or float(value).is_integer()
    shown = format(value, spec or (",.0f" if whole else ".4g"))
    return f'<td class="number" data-value="{float(value)!r}">{shown}</td>'

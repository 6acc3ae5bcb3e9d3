"""HTML parts, and pages in a browser: sorting by a click, no external resource, no part wider than a phone."""

import base64
import html
import re

import numpy as np
import pandas as pd
import pytest
from markupsafe import escape
from page_parser import in_browser
from PIL import Image

from lgg_jax.pages.html import cards, facts, page, paragraph, picture, table

FRAME = pd.DataFrame({"name": ["b", "a10", "a9<", None], "dice": [0.5, np.nan, -1.25, 10.0], "n": [1, 2000, 3, 12]})


@pytest.fixture(scope="module")
def png(tmp_path_factory):
    path = tmp_path_factory.mktemp("png") / "wide.png"
    Image.fromarray(np.full((20, 1500, 3), 200, np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def document(png) -> str:
    parts = [facts({"patients": "88"}), cards(picture(png, "A wide picture."), table(FRAME, "Cases", {"dice": ".2f"}))]
    wide = pd.DataFrame([[123456789] * 12], columns=[f"column{i}" for i in range(12)])
    return page("Title & <b>", "Lead", {"One": parts, "<Two>": [table(wide, "Wide")]})


def test_every_text_is_escaped():
    hostile = "<script>alert('\"x\"')</script>&"
    frame = pd.DataFrame({hostile: [hostile]})
    text = page(hostile, hostile, {hostile: [paragraph(hostile), facts({hostile: hostile}), table(frame, hostile)]})
    assert hostile not in text and "alert('" not in text
    assert text.count(escape(hostile)) == 13


def test_a_picture_is_embedded_in_the_page(png):
    text = picture(png, "a caption")
    assert base64.b64decode(re.search(r'src="data:image/png;base64,([^"]+)"', text)[1]) == png.read_bytes()
    assert "<figcaption>a caption</figcaption>" in text


def test_cells_show_rounded_values_and_sort_by_exact_values():
    text = table(FRAME, "Cases", {"dice": ".1f"})
    assert '<td class="number" data-value="-1.25">-1.2</td>' in text
    assert '<td class="number" data-value="2000.0">2,000</td>' in text
    assert '<td class="number">–</td>' in text and "<td>–</td>" in text
    assert "nan" not in text.lower()


def test_the_default_format_has_four_digits():
    assert ">0.1235<" in table(pd.DataFrame({"x": [0.123456, 3.0]}), "")


def test_a_table_that_is_not_sortable():
    assert '<th scope="col" class="number">n</th>' in table(FRAME, "Cases", sortable=False)


def test_the_navigation_links_to_the_sections(document):
    assert '<a href="#section2">&lt;Two&gt;</a>' in document
    assert '<section id="section2">\n<h2>&lt;Two&gt;</h2>' in document


def test_no_reference_to_external_resources(document):
    assert not re.search(r"(https?:)?//\w|@import|url\(", document)
    assert set(re.findall(r'(?:src|href)="([^"]{5})', document)) <= {"data:", "#sect"}


def test_a_click_sorts(document, tmp_path):
    found = in_browser(document, """
      const table = document.querySelector("table"), orders = [];
      const names = () => [...table.tBodies[0].rows].map(row => row.cells[0].textContent);
      const heads = [...table.tHead.rows[0].cells];
      for (const column of [1, 1, 0, 2]) {
        heads[column].querySelector("button").click();
        orders.push([names(), heads.map(head => head.getAttribute("aria-sort"))]);
      }
      return {orders};
    """, tmp_path)  # fmt: skip
    assert found["orders"] == [
        [["a9<", "b", "–", "a10"], [None, "ascending", None]],  # -1.25, 0.5, 10, then the missing value
        [["–", "b", "a9<", "a10"], [None, "descending", None]],
        [["a9<", "a10", "b", "–"], ["ascending", None, None]],
        [["b", "a9<", "–", "a10"], [None, None, "ascending"]],  # 1, 3, 12, 2000: sorted as numbers, not as text
    ]


def test_the_page_is_not_wider_than_a_phone(document, tmp_path):
    framed = f'<iframe style="border:0" width="390" height="800" srcdoc="{html.escape(document)}"></iframe>'
    found = in_browser(f"<html><head><style></style></head><body>{framed}</body></html>", """
      const inner = document.querySelector("iframe").contentDocument, root = inner.documentElement;
      return {window: root.clientWidth, page: root.scrollWidth, figure: inner.querySelector("img").clientWidth,
              scrolled: [...inner.querySelectorAll(".scroll")].map(box => box.scrollWidth > box.clientWidth)};
    """, tmp_path)  # fmt: skip
    assert found["window"] == found["page"] == 390
    assert 250 < found["figure"] < 390
    assert found["scrolled"] == [False, True]  # only the wide table scrolls, in its own box


def test_the_browser_loads_no_external_resource(document, tmp_path):
    """The content security policy blocks a link to an external picture, and the browser reports it."""
    modified = document.replace("</section>", '<img id="far" src="file:///far.png"></section>', 1)
    with pytest.raises(AssertionError, match="CONSOLE"):
        in_browser(modified, "return {};", tmp_path)

"""Parser of the HTML pages, and a browser that runs them, for tests."""

import base64
import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pandas as pd
import pytest


class Page(HTMLParser):
    """The content of a page.

    Attributes:
      tables: {caption: rows of [text, data-value]}.
      texts: the texts outside tables.
      pictures: the content of the embedded PNG files.
      boxes: the number of checkboxes.
    """

    def __init__(self, text: str):
        super().__init__()
        self.tables, self.texts, self.pictures, self.boxes = {}, [], [], 0
        self.rows, self.cell = None, None
        self.feed(text.replace("\N{NO-BREAK SPACE}", " "))

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag == "div" and "aria-label" in values:
            self.rows = self.tables.setdefault(values["aria-label"], [])
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.cell = ["", values.get("data-value")]
            self.rows[-1].append(self.cell)
        elif tag == "img":
            self.pictures.append(base64.b64decode(values["src"].removeprefix("data:image/png;base64,")))
        elif tag == "input":
            self.boxes += 1

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.cell = None

    def handle_data(self, data):
        data = re.sub(r"\s+", " ", data)  # a browser collapses white space
        if self.cell is None:
            self.texts.append(data)
        else:
            self.cell[0] += data

    def table(self, caption: str) -> pd.DataFrame:
        """The cell texts of the table whose caption starts with `caption`."""
        (rows,) = (rows for name, rows in self.tables.items() if name.startswith(caption))
        return pd.DataFrame([[cell[0] for cell in row] for row in rows[1:]], columns=[cell[0] for cell in rows[0]])

    def values(self, caption: str) -> pd.DataFrame:
        """The sort keys of the same table: unrounded numbers, None for a missing value."""
        (rows,) = (rows for name, rows in self.tables.items() if name.startswith(caption))
        return pd.DataFrame([[cell[1] for cell in row] for row in rows[1:]], columns=[cell[0] for cell in rows[0]])


def in_browser(document: str, script: str, folder) -> dict:
    """Open the page in a browser and return the result of `script`, which runs after the scripts of the page.

    The browser must report no error and load no external resource.
    """
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("chromium is not installed")
    listen = "<script>const problems = []; addEventListener('error', e => problems.push(e.message));</script>"
    report = f"""<script>addEventListener("load", () => {{
      const found = (() => {{ {script} }})();
      found.problems = problems;
      found.resources = performance.getEntriesByType("resource").map(entry => entry.name.slice(0, 30));
      document.documentElement.textContent = "FOUND" + JSON.stringify(found) + "END";
    }});</script></body>"""
    path = folder / "page.html"
    path.write_text(document.replace("<style>", listen + "<style>", 1).replace("</body>", report), encoding="utf-8")
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
               f"--user-data-dir={folder}/profile", "--enable-logging=stderr", "--virtual-time-budget=2000",
               "--dump-dom", path.as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "CONSOLE" not in done.stderr, done.stderr
    found = json.loads(html.unescape(re.search("FOUND(.*)END", done.stdout)[1]))
    assert found["problems"] == [] and all(name.startswith("data:") for name in found["resources"])
    return found

"""What a page says, for tests that compare it with the files it is made from."""

import base64
from html.parser import HTMLParser

import pandas as pd


class Page(HTMLParser):
    """Of a page: tables as rows of (text, data-value), caption first; texts of other elements; pictures."""

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
        if self.cell is None:
            self.texts.append(data)
        else:
            self.cell[0] += data

    def table(self, caption: str) -> pd.DataFrame:
        """The texts of the table whose caption starts so."""
        (rows,) = (rows for name, rows in self.tables.items() if name.startswith(caption))
        return pd.DataFrame([[cell[0] for cell in row] for row in rows[1:]], columns=[cell[0] for cell in rows[0]])

    def values(self, caption: str) -> pd.DataFrame:
        """What the cells of that table sort by: numbers unrounded, None without a value."""
        (rows,) = (rows for name, rows in self.tables.items() if name.startswith(caption))
        return pd.DataFrame([[cell[1] for cell in row] for row in rows[1:]], columns=[cell[0] for cell in rows[0]])

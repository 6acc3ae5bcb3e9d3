"""The learning curves of several runs, one picture a value."""

import pandas as pd
from matplotlib.figure import Figure

from lgg_jax.figures.learning import learning_curve


def test_every_run_is_in_the_legend_by_its_name(tmp_path, monkeypatch):
    """Also one that begins with an underscore, which matplotlib leaves out of legends of its own making."""
    drawn, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *to, **fields: drawn.append(self) or save(self, *to, **fields))
    log = pd.DataFrame({"step": [1, 2, 3], "value": [3.0, 2.0, 1.0]})
    learning_curve({"_first": log, "second": log}, "value", {"_first": 2}, "loss", tmp_path / "loss.png")
    ((legend,),) = (figure.legends for figure in drawn)
    assert [text.get_text() for text in legend.get_texts()] == ["_first", "second"]
    assert (tmp_path / "loss.png").stat().st_size > 0

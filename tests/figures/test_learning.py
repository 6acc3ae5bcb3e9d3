"""Learning curves of several runs; each figure shows one value."""

import pandas as pd
from matplotlib.figure import Figure

from lgg_jax.figures.learning import learning_curve


def test_the_legend_names_every_run(tmp_path, monkeypatch):
    """Including a name that begins with an underscore: matplotlib omits these from its automatic legends."""
    saved, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *to, **fields: saved.append(self) or save(self, *to, **fields))
    log = pd.DataFrame({"step": [1, 2, 3], "value": [3.0, 2.0, 1.0]})
    learning_curve({"_first": log, "second": log}, "value", {"_first": 2}, "loss", tmp_path / "loss.png")
    ((legend,),) = (figure.legends for figure in saved)
    assert [text.get_text() for text in legend.get_texts()] == ["_first", "second"]
    assert (tmp_path / "loss.png").stat().st_size > 0

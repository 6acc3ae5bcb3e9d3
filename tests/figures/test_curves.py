"""Figures of a binary classifier: the plotted values, and files that open as pictures."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from lgg_jax.figures.curves import confusion_matrix, precision_recall, reliability, roc
from lgg_jax.metrics.classification import resampled_curves

PATIENTS = np.repeat(np.arange(12), 10)
LABELS = (np.arange(120) % 3 == 0).astype(int)
SCORES = np.round(1 / (1 + np.exp(-np.random.default_rng(0).normal(1.5 * LABELS - 1))), 2)
SCORES[1] = 1.0  # the highest score belongs to a negative


@pytest.fixture
def figures(monkeypatch):
    """The saved figures, so that the tests can inspect their axes."""
    saved, save = [], Figure.savefig

    def spy(figure, *args, **options):
        saved.append(figure)
        save(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", spy)
    return saved


def legend(figure) -> str:
    return "\n".join(text.get_text() for text in figure.legends[0].get_texts())


def opens(path) -> bool:
    with Image.open(path) as picture:
        return picture.format == "PNG" and min(picture.size) > 350 and len(picture.convert("RGB").getcolors(10**6)) > 20


def band(axes):
    """x, and the lower and upper bounds of the shaded band at x."""
    corners = axes.collections[0].get_paths()[0].vertices
    x = np.unique(corners[:, 0])
    return x, *(np.array([choose(corners[corners[:, 0] == value, 1]) for value in x]) for choose in (np.min, np.max))


def test_roc(tmp_path, figures):
    roc(LABELS, SCORES, PATIENTS, tmp_path / "roc.png")
    axes = figures[0].axes[0]
    x, y = axes.lines[0].get_data()
    assert np.trapezoid(y, x) == pytest.approx(roc_auc_score(LABELS, SCORES))
    assert f"AUC {roc_auc_score(LABELS, SCORES):.3f} (95% CI 0." in legend(figures[0])
    assert "chance" in legend(figures[0]) and "band" in legend(figures[0])
    assert axes.get_title() == "120 slices of 12 patients, 40 positive"
    assert "sensitivity" in axes.get_ylabel() and "specificity" in axes.get_xlabel()
    grid, low, high = band(axes)
    half = [np.interp(0.5, fp / fp[-1], tp / tp[-1]) for tp, fp in resampled_curves(LABELS, SCORES, PATIENTS)]
    assert [low[100], high[100]] == pytest.approx(np.quantile(half, [0.025, 0.975])) and grid[100] == 0.5
    middle = np.interp(grid, x, y)
    assert np.mean((low <= middle) & (middle <= high)) > 0.95
    assert opens(tmp_path / "roc.png")


def test_precision_recall(tmp_path, figures):
    """The area under the steps is the average precision, and every plotted point belongs to a threshold."""
    precision_recall(LABELS, SCORES, PATIENTS, tmp_path / "pr.png")
    axes = figures[0].axes[0]
    recall, precision = axes.lines[0].get_data()
    average = average_precision_score(LABELS, SCORES)
    assert axes.lines[0].get_drawstyle() == "steps-pre"
    assert np.sum(np.diff(recall) * precision[1:]) == pytest.approx(average)
    assert precision[0] == precision[1] and (recall[0], recall[-1]) == (0, 1)
    assert axes.lines[1].get_ydata()[0] == pytest.approx(1 / 3)
    assert f"average precision {average:.3f} (95% CI 0." in legend(figures[0])
    assert "prevalence 0.33" in legend(figures[0])
    grid, low, high = band(axes)
    middle = precision[np.searchsorted(recall, grid)]
    assert np.mean((low <= middle) & (middle <= high)) > 0.9 and (high <= 1).all()
    assert opens(tmp_path / "pr.png")


@pytest.mark.parametrize("plot", [roc, precision_recall])
def test_no_band_if_a_class_is_in_one_patient_only(tmp_path, figures, plot):
    labels = np.append(np.zeros(9, int), 1)
    plot(labels, np.arange(10), np.arange(10), tmp_path / "curve.png")
    assert not figures[0].axes[0].collections and "CI" not in legend(figures[0])
    assert figures[0].axes[0].get_title() == "10 patients, 1 positive"


@pytest.mark.parametrize("plot", [roc, precision_recall])
def test_a_curve_needs_both_classes(tmp_path, plot):
    with pytest.raises(ValueError, match="both classes"):
        plot([1, 1], [0.2, 0.3], ["a", "b"], tmp_path / "curve.png")
    assert not list(tmp_path.iterdir())


def test_reliability(tmp_path, figures):
    """Two bins have rows: 0.05 and 0.09 (one of two is positive), and 0.9 (a bin includes its upper edge)."""
    reliability([0, 1, 1], [0.05, 0.09, 0.9], tmp_path / "reliability.png")
    axes, below = figures[0].axes
    np.testing.assert_allclose(axes.lines[1].get_data(), [[0.07, 0.9], [0.5, 1]])
    assert [text.get_text() for text in below.texts] == ["2", *"0000000", "1", "0"]
    assert "n = 3" in axes.get_title() and below.get_xlabel() and below.get_ylabel() and axes.get_ylabel()
    assert opens(tmp_path / "reliability.png")


def test_confusion_matrix(tmp_path, figures):
    confusion_matrix({"tp": 40, "fp": 8, "fn": 10, "tn": 32}, ("II", "III"), tmp_path / "matrix.png")
    axes = figures[0].axes[0]
    cells = {text.get_position(): text.get_text() for text in axes.texts}  # (predicted class, true class)
    assert cells == {(0, 0): "32\n80.0%", (1, 0): "8\n20.0%", (0, 1): "10\n20.0%", (1, 1): "40\n80.0%"}
    assert [text.get_text() for text in axes.get_xticklabels()] == ["II", "III"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["II\n(n = 40)", "III\n(n = 50)"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    assert opens(tmp_path / "matrix.png")


def test_confusion_matrix_of_one_class(tmp_path, figures):
    confusion_matrix({"tp": 0, "fp": 1, "fn": 0, "tn": 4}, ("no", "yes"), tmp_path / "matrix.png")
    assert [text.get_text() for text in figures[0].axes[0].texts] == ["4\n80.0%", "1\n20.0%", "0\n–", "0\n–"]

"""Means with bootstrap confidence intervals, for few and skewed values.

    summary([0.91, 0.84, 0.12])            # {"mean", "median", "std", "ci95": [lo, hi], "n"}
    pooled(sums=[4.5, 1.0], counts=[5, 2]) # {"mean", "ci95", "n"}: a mean over slices, bootstrap over patients
"""

import numpy as np
from scipy import stats


def bootstrap_ci(values, counts=None, *, seed=0, resamples=10_000, level=0.95) -> list[float] | None:
    """Percentile bootstrap confidence interval of a mean over patients (Efron 1979).

    The percentile method stays within the range of the metric, also works for ratios, and does not fail when all values
    are equal. BCa covers only slightly better: in a simulation of Dice with one failure in eight patients, the nominal
    95 % interval covered 77 % (BCa 78 %) at 13 patients and 88 % (BCa 89 %) at 30. Neither interval includes a failure
    that is too rare to occur in the sample.

    The result does not depend on the order of the patients.

    Args:
      values: (patient,) float, the value of each patient; with `counts`, the sum over the patient's slices.
      counts: (patient,) number of slices in each sum. The statistic is then sum(values) / sum(counts). Patients with
        a count of 0 are excluded.
      seed: seed of the resampling.
      resamples: number of bootstrap resamples.
      level: nominal coverage of the interval.

    Returns:
      [low, high], or None for fewer than two patients.
    """
    values = np.asarray(values, np.float64)
    counts = np.ones_like(values) if counts is None else np.asarray(counts, np.float64)
    order = np.lexsort((counts, values))  # The interval must not depend on the order of the rows.
    values, counts = values[order], counts[order]
    values, counts = values[counts > 0], counts[counts > 0]
    if len(values) < 2:
        return None
    result = stats.bootstrap(
        (values, counts), lambda values, counts, axis: values.sum(axis=axis) / counts.sum(axis=axis), paired=True,
        n_resamples=resamples, confidence_level=level, method="percentile", rng=np.random.default_rng(seed),
    )  # fmt: skip
    return sorted(map(float, result.confidence_interval))  # If all values are equal, rounding may put low above high.


def summary(values) -> dict:
    """Mean, median, standard deviation and 95 % confidence interval of one value per patient.

    Args:
      values: (patient,) float.

    Returns:
      {"mean", "median", "std", "ci95", "n"}; the standard deviation has the divisor n - 1. Undefined entries are None.

    Raises:
      ValueError: a value is NaN or infinite. The caller must remove and count excluded cases.
    """
    values = np.asarray(values, np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"{(~np.isfinite(values)).sum()} of {len(values)} values are not finite")
    return {
        "mean": float(values.mean()) if len(values) else None,
        "median": float(np.median(values)) if len(values) else None,
        "std": float(values.std(ddof=1)) if len(values) > 1 else None,
        "ci95": bootstrap_ci(values),
        "n": len(values),
    }


def pooled(sums, counts) -> dict:
    """Mean over slices with a bootstrap over patients, because slices of one patient are not independent.

    Args:
      sums: (patient,) float, sum of the slice values of each patient.
      counts: (patient,) int, number of slices of each patient.

    Returns:
      {"mean", "ci95", "n"}, where n is the number of slices. "mean" is None without slices, "ci95" is None for fewer
      than two patients with slices.
    """
    n = int(np.sum(counts))
    return {"mean": float(np.sum(sums)) / n if n else None, "ci95": bootstrap_ci(sums, counts), "n": n}

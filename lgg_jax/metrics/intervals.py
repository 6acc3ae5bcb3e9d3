"""Means with an interval, for values that are few and skewed.

    summary([0.91, 0.84, 0.12])            # {"mean", "median", "std", "ci95": [lo, hi], "n"}
    pooled(sums=[4.5, 1.0], counts=[5, 2]) # {"mean", "ci95", "n"}: a mean over slices, resampled by patient
"""

import numpy as np


def bootstrap_ci(values, counts=None, *, seed=0, resamples=10_000, level=0.95) -> list[float] | None:
    """Percentile bootstrap interval of a mean over patients (Efron 1979).

    The percentile form: it stays within the range of the metric, does not break down when values are equal, and serves
    ratios as well. BCa gains little: for Dice with one failure in eight patients (simulated), the nominal 95 % interval
    covered 77 % (BCa 78 %) at 13 patients, 88 % (89 %) at 30. A failure too rare to be in the sample widens neither.

    Args:
      values: (patient,) a value of each patient, or with `counts` the sum over what the patient has.
      counts: (patient,) how many went into each sum; the mean is then sum(values) / sum(counts). Patients with
        none take no part.

    Returns:
      [low, high], or None with fewer than two patients: one says nothing about the next (nor do three say much).
    """
    values = np.asarray(values, np.float64)
    counts = np.ones_like(values) if counts is None else np.asarray(counts, np.float64)
    order = np.lexsort((counts, values))  # the interval must not depend on the order of the rows
    values, counts = values[order], counts[order]
    values, counts = values[counts > 0], counts[counts > 0]
    if len(values) < 2:
        return None
    drawn = np.random.default_rng(seed).integers(len(values), size=(resamples, len(values)))
    means = values[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return np.quantile(means, [(1 - level) / 2, (1 + level) / 2]).tolist()


def summary(values) -> dict:
    """Mean, median, standard deviation (n - 1) and 95 % interval of one value a patient; None where undefined.

    Raises:
      ValueError: a value is NaN or infinite: what is excluded must be left out, and counted, before.
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
    """Mean over slices with an interval that resamples patients, because slices of one patient are not independent.

    Args:
      sums, counts: (patient,) sum of the slice values and number of slices.

    Returns:
      {"mean", "ci95", "n"} with n = slices; mean and ci95 are None where there is nothing to take them of.
    """
    n = int(np.sum(counts))
    return {"mean": float(np.sum(sums)) / n if n else None, "ci95": bootstrap_ci(sums, counts), "n": n}

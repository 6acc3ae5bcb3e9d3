"""Trained runs and scans from a notebook or a script.

    import lgg_jax

    segmenter = lgg_jax.load(["runs/cpu"])               # several runs are an ensemble
    scan = lgg_jax.read_scan("case_flair.nii.gz")
    mask = segmenter.segment(scan.volume)                # (slice, height, width) bool
    variables, step = lgg_jax.restore("runs/cpu")        # {"params", "batch_stats"} of the best step

Each name is imported when it is first used, so that `import lgg_jax` is fast.
"""

import importlib

_NAMES = {
    "load": ("lgg_jax.segmenter", "load_segmenter"),
    "read_scan": ("lgg_jax.scans", "read_scan"),
    "restore": ("lgg_jax.training.checkpoints", "restore_variables"),
}
__all__ = list(_NAMES)


def __getattr__(name: str):
    if name not in _NAMES:
        raise AttributeError(f"module 'lgg_jax' has no attribute {name!r}")
    # The input pipeline imports TensorFlow, which would take the memory of a GPU from JAX.
    importlib.import_module("lgg_jax.__main__").import_tensorflow()
    module, member = _NAMES[name]
    return getattr(importlib.import_module(module), member)


def __dir__() -> list[str]:
    return [*globals(), *_NAMES]

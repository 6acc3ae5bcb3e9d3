"""Logging of a training run to TensorBoard (through clu), to `metrics.jsonl` and to the terminal.

    with Logger(workdir / "logs", first_step=1200, num_steps=5000) as logger:
        logger.scalars(1250, "train", {"loss": 0.31})           # {"step": 1250, "train/loss": 0.31}
"""

import contextlib
import json
import sys
import time
from pathlib import Path

import jax
import numpy as np
import tqdm
from clu import metric_writers
from clu.metric_writers import interface

from lgg_jax import parallel, workdir


class JsonlWriter(metric_writers.MetricWriter):
    """Appends one line for each call of `write_scalars`; all other values are ignored.

    Lines of later steps than `first_step` are removed, because a resumed run writes them again.
    """

    def __init__(self, path: Path, first_step: int):
        path.parent.mkdir(parents=True, exist_ok=True)
        _drop_after(path, first_step)
        self._file = path.open("a")

    def write_scalars(self, step: int, scalars: dict[str, interface.Scalar]) -> None:
        line = {"step": step, **{name: float(value) for name, value in scalars.items()}}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _ignore(self, *_args, **_kwargs) -> None:
        pass

    write_images = write_texts = write_hparams = write_videos = write_audios = _ignore
    write_histograms = write_pointcloud = write_summaries = _ignore


class Logger:
    """Context manager that logs the scalars and images of a run; only the first host writes and prints.

    A terminal shows a progress bar with the rate and the remaining time. Otherwise, each call of `scalars` prints a
    line.
    """

    def __init__(self, folder: Path, first_step: int, num_steps: int):
        first_host = parallel.is_first_host()
        writers = []
        if first_host:
            writers = [metric_writers.SummaryWriter(str(folder)), JsonlWriter(folder / "metrics.jsonl", first_step)]
        self._writer, self._prints = metric_writers.MultiWriter(writers), first_host
        self._first, self._total, self._started, self._steps = first_step, num_steps, time.monotonic(), []
        terminal = first_host and sys.stderr.isatty()
        self._bar = tqdm.tqdm(total=num_steps, initial=first_step, unit="step", disable=not terminal)
        if first_step:
            self.note(f"resuming from step {first_step} of {num_steps}")

    def __enter__(self) -> "Logger":
        return self

    def __exit__(self, *_):
        self._bar.close()
        self._writer.flush()
        self._writer.close()

    def add(self, metrics: dict) -> None:
        """Add the metrics of one step, {name: (sum, count)}, which remain on the devices until `flush`."""
        self._steps.append(metrics)
        self._bar.update()

    def flush(self, step: int) -> dict[str, float]:
        """Write and return {name: Σ sums / Σ counts} over the steps since the last flush; counts of 0 are omitted."""
        steps, self._steps = jax.device_get(self._steps), []
        totals = {name: np.sum([s[name] for s in steps], axis=0, dtype=np.float64) for name in steps[0]}
        means = {name: float(total / count) for name, (total, count) in totals.items() if count}
        self.scalars(step, "train", means)
        return means

    def scalars(self, step: int, kind: str, values: dict[str, float]) -> None:
        """Write values as `kind/name` and print them."""
        self._writer.write_scalars(step, {f"{kind}/{name}": value for name, value in values.items()})
        shown = f"{kind}: " + "  ".join(f"{name} {value:.4f}" for name, value in values.items())
        if not self._bar.disable:
            self._bar.set_postfix_str(shown)
            return
        left = (time.monotonic() - self._started) / max(1, step - self._first) * (self._total - step)
        self.note(f"step {step}/{self._total}  {shown}  ({left / 60:.1f} min left)")

    def images(self, step: int, pictures: dict[str, np.ndarray]) -> None:
        """Write images, {name: (n, height, width, 3) uint8}."""
        self._writer.write_images(step, {f"validation/{name}": rows for name, rows in pictures.items()})

    def note(self, line: str) -> None:
        """Print a line on the first host."""
        if self._prints:
            tqdm.tqdm.write(line, file=sys.stdout)
            sys.stdout.flush()


def _drop_after(path: Path, step: int) -> None:
    """Remove the lines of later steps, which the resumed run writes again, and a truncated last line."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        with contextlib.suppress(ValueError):  # only a line that was truncated when the run was killed is invalid
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
    workdir.write_atomically(path, "".join(kept).encode())

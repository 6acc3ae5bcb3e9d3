"""Segmentation and grading of new scans. The masks have the format and the pixel grid of the scans.

    python -m lgg_jax predict --workdir=W [--workdir=W2 …] --input=PATH --output=DIR
    python -m lgg_jax predict --workdir=W --grade_workdir=G --clinical=cases.csv --input=PATH --output=DIR

PATH is a kaggle_3m folder of TIFF slices, a NIfTI file or folder, a DICOM series, or a folder of any of these. Several
workdirs are an ensemble.

DIR/predictions.csv has one row per scan. DIR/<patient>/ has the mask, overlay.png, and with --probability the tumour
probability of every pixel.

If a scan cannot be read, its row in predictions.csv has the error, the other scans are still processed, and the exit
code is 2. Runs of configs/multitask.py segment and grade; they need no --grade_workdir.
"""

import collections
import contextlib
import filecmp
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import tqdm
from absl import flags
from PIL import Image

from lgg_jax import scans
from lgg_jax import workdir as workdir_lib
from lgg_jax.data.clinical import FIELDS
from lgg_jax.data.files import number, patient_rows
from lgg_jax.errors import UserError
from lgg_jax.figures.masks import overlay_image
from lgg_jax.metrics.segmentation import missing_sequences
from lgg_jax.scans.scan import Scan
from lgg_jax.segmenter import Grader, Segmenter, gives_grade, load_grader, load_segmenter

# Columns of predictions.csv. tumour_ml is empty if spacing_mm (slices × rows × columns) is "unknown".
COLUMNS = ("patient", "input", "mask", "slices", "tumour_slices", "tumour_pixels", "tumour_ml", "spacing_mm",
           "missing_sequences")  # fmt: skip
GRADE_COLUMNS = ("grade_3_probability", "grade")


def define_flags(flag_values: flags.FlagValues) -> None:
    """Define the flags of the verb `predict`."""
    text = "Segment with the run in this folder; the probabilities of several runs are averaged"
    flags.DEFINE_multi_string("workdir", None, text, flag_values=flag_values)
    text = "Read this scan, or every scan in this folder."
    flags.DEFINE_string("input", None, text, flag_values=flag_values)
    flags.DEFINE_string("output", None, "Write masks and predictions.csv to this folder.", flag_values=flag_values)
    text = "Grade with the run in this folder; the logits of several runs are averaged"
    flags.DEFINE_multi_string("grade_workdir", [], text, flag_values=flag_values)
    text = "Read clinical values for the grade from this CSV file with a column `patient`."
    flags.DEFINE_string("clinical", "", text, flag_values=flag_values)
    text = "Also write the tumour probability of every pixel."
    flags.DEFINE_bool("probability", False, text, flag_values=flag_values)
    text = "Refuse a sequence of more than this many GB after decompression."
    flags.DEFINE_float("max_gigabytes", 4.0, text, lower_bound=0, flag_values=flag_values)
    flags.mark_flags_as_required(["workdir", "input", "output"], flag_values)


def main(flag_values: flags.FlagValues) -> int:
    """Run the verb `predict`; return 2 if a scan failed, otherwise 0."""
    f, output = flag_values, Path(flag_values.output)
    check_paths(Path(f.input), output)
    if f.clinical and not f.grade_workdir:
        raise UserError("--clinical without --grade_workdir: segmentation uses no clinical values", "pass both or none")
    with warnings_as_lines():
        sources = without_copies(scans.find_scans(f.input, f.max_gigabytes))
        clinical = clinical_table(Path(f.clinical)) if f.clinical else None
        segmenter = load_segmenter(f.workdir)
        graders = f.grade_workdir or list(filter(also_grades, f.workdir))
        grader = load_grader(graders) if graders else None
        try:
            output.mkdir(parents=True, exist_ok=True)
            rows = predict_all(sources, output, segmenter, grader, clinical, f.probability)
            columns = [*COLUMNS, *(GRADE_COLUMNS if grader else ()), "error"]
            pd.DataFrame(rows, columns=columns, dtype=object).to_csv(output / "predictions.csv", index=False)
        except OSError as error:
            raise UserError(f"cannot write to {output} ({error})", "free space or pass another --output") from error
    done = [row for row in rows if not row["error"]]
    print(f"written: {output}/predictions.csv, {len(done)} of {len(rows)} scans done")
    unknown = sum(row["spacing_mm"] == "unknown" for row in done)
    if unknown:
        print(f"pixel size unknown: {unknown} scans; their tumour volume is in pixels only, not in ml")
    return 0 if len(done) == len(rows) else 2


def predict_all(
    sources: list[scans.Source], output: Path, segmenter: Segmenter, grader: Grader | None = None,
    clinical: dict[str, dict] | None = None, with_probability: bool = False,
) -> list[dict]:
    """Process every scan and return the rows of predictions.csv.

    If a scan cannot be read or processed, the error is printed to stderr and written to its row.

    Args:
      sources: the scans.
      output: the folder that gets one folder per scan.
      segmenter: computes the mask.
      grader: computes the grade; None for no grade.
      clinical: {patient: {field: value}} for the grade; None if there is no table.
      with_probability: whether to write the probability of every pixel.
    """
    rows = []
    for source in tqdm.tqdm(sources, unit="scan", disable=None):
        row = {"patient": source.patient, "input": str(source.path), "error": None}
        rows.append(row)
        try:
            scan = source.read()
            mask, result = predict(scan, segmenter, output / source.patient, with_probability)
            row |= result | {"mask": str(result["mask"].relative_to(output))}
            if grader:
                row |= grader.grade(scan.volume, mask, _values(clinical, source.patient))
        except UserError as error:
            row["error"] = str(error)
            _print_error_line(f"lgg_jax: error: {error}")
    return rows


def predict(scan: Scan, segmenter: Segmenter, folder: Path, with_probability: bool = False) -> tuple[np.ndarray, dict]:
    """Segment one scan and write its mask and overlay to `folder`.

    The overlay is the slice with the largest tumour area, or the middle slice if the mask is empty.

    Returns:
      The mask, (slice, height, width) bool, and the scan's entries in predictions.csv.
    """
    volume, spacing = scan.volume, scan.spacing_mm
    probability = segmenter.probability(volume)
    mask = segmenter.mask(probability, volume)
    path = scan.write_mask(mask, folder)
    if with_probability:
        scan.write_probability(probability, folder)
    index = int(mask.sum(axis=(1, 2)).argmax()) if mask.any() else len(mask) // 2
    no_ground_truth = np.zeros_like(mask[index])
    Image.fromarray(overlay_image(volume.image[index], no_ground_truth, mask[index])).save(folder / "overlay.png")
    pixels = int(mask.sum())
    return mask, {
        "mask": path,
        "slices": len(mask),
        "tumour_slices": int(mask.any(axis=(1, 2)).sum()),
        "tumour_pixels": pixels,
        "tumour_ml": None if spacing is None else round(pixels * float(np.prod(spacing)) / 1000, 3),
        "spacing_mm": "unknown" if spacing is None else "×".join(f"{side:g}" for side in spacing),
        "missing_sequences": missing_sequences(volume.image),
    }


def also_grades(workdir: str) -> bool:
    """Return whether the run predicts a grade."""
    fields = workdir_lib.read_fields(Path(workdir), "pass the --workdir of a training run")
    return gives_grade(fields["task"], fields.get("data.target"))


def without_copies(sources: list[scans.Source]) -> list[scans.Source]:
    """Return the scans without duplicate folders, and warn about the duplicates.

    The Kaggle zip contains its data twice. Of folders with the same name and the same files, the first is kept.
    """
    kept, copies = [], collections.Counter()
    for source in sources:
        original = next((other for other in kept if is_copy(source.path, other.path)), None)
        if original is None:
            kept.append(source)
        else:
            copies[original.path.parent, source.path.parent] += 1
    for (used, ignored), count in copies.items():
        warnings.warn(f"{count} scans occur twice: using those in {used}, ignoring those in {ignored}", stacklevel=2)
    return kept


def is_copy(first: Path, second: Path) -> bool:
    """Return whether two different folders have the same name and the same files, compared byte by byte."""
    if first == second or first.name != second.name or not (first.is_dir() and second.is_dir()):
        return False
    names, others = ({str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()} for root in (first, second))
    return bool(names) and names == others == {*filecmp.cmpfiles(first, second, names, shallow=False)[0]}


def check_paths(source: Path, output: Path) -> None:
    """Raise UserError if one path contains the other.

    Otherwise the next prediction would read the written masks as scans, or a patient's folder would be modified.
    """
    source_path, output_path = source.resolve(), output.resolve()
    if source_path.is_relative_to(output_path) or output_path.is_relative_to(source_path):
        raise UserError(f"--input={source} and --output={output}: one contains the other", "pass another --output")


def clinical_table(path: Path) -> dict[str, dict[str, float | None]]:
    """Read a CSV file with a column `patient` and any of `clinical.FIELDS`; return {patient: {field: value}}."""
    table = {}
    for patient, record, place in patient_rows(path, "patient"):
        table[patient] = {field: number(record, field, place) for field in FIELDS if field in record}
        if not table[patient]:
            raise UserError(f"{path} has no clinical column", f"name its columns {', '.join(FIELDS)}")
    return table


@contextlib.contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Context in which each warning is one line on stderr, without the source line that raised it."""

    def show(message, *_) -> None:
        _print_error_line(f"lgg_jax: warning: {' '.join(str(message).split())}")

    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = show
        yield


def _values(clinical: dict[str, dict] | None, patient: str) -> dict[str, float | None]:
    if clinical is not None and patient not in clinical:
        warnings.warn(f"the clinical table has no row for {patient}", stacklevel=2)
    return (clinical or {}).get(patient, {})


def _print_error_line(line: str) -> None:
    tqdm.tqdm.write(line, file=sys.stderr)

"""New scans outlined, and graded where a grade run is given: masks in the scans' own format and on their own grid.

    python -m lgg_jax predict --workdir=W [--workdir=W2 …] --input=PATH --output=DIR
    python -m lgg_jax predict --workdir=W --grade_workdir=G --clinical=cases.csv --input=PATH --output=DIR

PATH is a kaggle_3m folder of TIFF slices, a NIfTI file or folder, a DICOM series, or a folder of any of these. Several
workdirs are an ensemble. DIR gets a folder a scan (mask, overlay.png, with --probability the probability as well) and
predictions.csv, a row a scan. A scan that cannot be read is listed there and the others are still done; exit code 2.
A --workdir of configs/multitask.py grades as well, where no --grade_workdir is given.
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

# Of predictions.csv. tumour_ml is empty where spacing_mm (slices × rows × columns) is "unknown".
COLUMNS = ("patient", "input", "mask", "slices", "tumour_slices", "tumour_pixels", "tumour_ml", "spacing_mm",
           "missing_sequences")  # fmt: skip
GRADE_COLUMNS = ("grade_3_probability", "grade")


def define_flags(flag_values: flags.FlagValues) -> None:
    """Flags of the verb `predict`."""
    flags.DEFINE_multi_string("workdir", None, "A run that outlines; several: their mean.", flag_values=flag_values)
    flags.DEFINE_string("input", None, "A scan, or a folder of scans.", flag_values=flag_values)
    flags.DEFINE_string("output", None, "Folder for what is found.", flag_values=flag_values)
    flags.DEFINE_multi_string("grade_workdir", [], "A run that grades; several: their mean.", flag_values=flag_values)
    flags.DEFINE_string("clinical", "", "Table with a column patient: values for the grade.", flag_values=flag_values)
    flags.DEFINE_bool("probability", False, "Write the probability of every pixel too.", flag_values=flag_values)
    flags.DEFINE_float("max_gigabytes", 4.0, "Largest sequence, unpacked.", lower_bound=0, flag_values=flag_values)
    flags.mark_flags_as_required(["workdir", "input", "output"], flag_values)


def main(flag_values: flags.FlagValues) -> int:
    """The verb `predict`: 2 where some scan could not be done."""
    f, output = flag_values, Path(flag_values.output)
    check_paths(Path(f.input), output)
    if f.clinical and not f.grade_workdir:
        raise UserError("--clinical without --grade_workdir: an outline takes no clinical values", "pass both or none")
    with warnings_as_lines():
        sources = without_copies(scans.find_scans(f.input, f.max_gigabytes))
        clinical = clinical_table(Path(f.clinical)) if f.clinical else None
        segmenter = load_segmenter(f.workdir)
        graders = f.grade_workdir or list(filter(grades_too, f.workdir))
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
        print(f"pixel size unknown: {unknown} scans, whose tumour is given in pixels and not in ml")
    return 0 if len(done) == len(rows) else 2


def predict_all(
    sources: list[scans.Source], output: Path, segmenter: Segmenter, grader: Grader | None = None,
    clinical: dict[str, dict] | None = None, with_probability: bool = False,
) -> list[dict]:
    """A row of predictions.csv for each scan; what is wrong with a scan is said on stderr and in its row."""
    rows = []
    for source in tqdm.tqdm(sources, unit="scan", disable=None):
        row = {"patient": source.patient, "input": str(source.path), "error": None}
        rows.append(row)
        try:
            scan = source.read()
            mask, found = predict(scan, segmenter, output / source.patient, with_probability)
            row |= found | {"mask": str(found["mask"].relative_to(output))}
            if grader:
                row |= grader.grade(scan.volume, mask, _values(clinical, source.patient))
        except UserError as error:
            row["error"] = str(error)
            _say(f"lgg_jax: error: {error}")
    return rows


def predict(scan: Scan, segmenter: Segmenter, folder: Path, with_probability: bool = False) -> tuple[np.ndarray, dict]:
    """Outlines one scan, writes mask and overlay into `folder`; returns the mask and what predictions.csv says of it.

    The overlay is the slice with most tumour, the middle one where none is found.
    """
    volume, spacing = scan.volume, scan.spacing_mm
    probability = segmenter.probability(volume)
    mask = segmenter.mask(probability, volume)
    path = scan.write_mask(mask, folder)
    if with_probability:
        scan.write_probability(probability, folder)
    index = int(mask.sum(axis=(1, 2)).argmax()) if mask.any() else len(mask) // 2
    nothing = np.zeros_like(mask[index])
    Image.fromarray(overlay_image(volume.image[index], nothing, mask[index])).save(folder / "overlay.png")
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


def grades_too(workdir: str) -> bool:
    """Whether the run also gives a grade."""
    fields = workdir_lib.read_fields(Path(workdir), "pass the --workdir of a training run")
    return gives_grade(fields["task"], fields.get("data.target"))


def without_copies(sources: list[scans.Source]) -> list[scans.Source]:
    """Of folders with one name and the same files in them the first, as the Kaggle zip holds its data twice."""
    kept, copies = [], collections.Counter()
    for source in sources:
        original = next((one for one in kept if is_copy(source.path, one.path)), None)
        if original is None:
            kept.append(source)
        else:
            copies[original.path.parent, source.path.parent] += 1
    for (used, ignored), count in copies.items():
        warnings.warn(f"{count} scans are here twice: using those in {used}, ignoring those in {ignored}", stacklevel=2)
    return kept


def is_copy(first: Path, second: Path) -> bool:
    """Whether these are two folders of one name that hold the same files, byte by byte."""
    if first == second or first.name != second.name or not (first.is_dir() and second.is_dir()):
        return False
    names, others = ({str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()} for root in (first, second))
    return bool(names) and names == others == {*filecmp.cmpfiles(first, second, names, shallow=False)[0]}


def check_paths(source: Path, output: Path) -> None:
    """UserError where one holds the other: a mask would be the next run's scan, or lie among the patient's files."""
    source_path, output_path = source.resolve(), output.resolve()
    if source_path.is_relative_to(output_path) or output_path.is_relative_to(source_path):
        raise UserError(f"--input={source} and --output={output} lie within each other", "pass another --output")


def clinical_table(path: Path) -> dict[str, dict[str, float | None]]:
    """{patient: {field: value}} of a table with a column patient and any of `clinical.FIELDS`, as numbers."""
    table = {}
    for patient, record, place in patient_rows(path, "patient"):
        table[patient] = {field: number(record, field, place) for field in FIELDS if field in record}
        if not table[patient]:
            raise UserError(f"{path} has no clinical column", f"name its columns {', '.join(FIELDS)}")
    return table


@contextlib.contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Each warning is one line on stderr, without the line of code that it comes from."""
    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = lambda message, *_: _say(f"lgg_jax: warning: {' '.join(str(message).split())}")
        yield


def _values(clinical: dict[str, dict] | None, patient: str) -> dict[str, float | None]:
    if clinical is not None and patient not in clinical:
        warnings.warn(f"the clinical table has no row for {patient}", stacklevel=2)
    return (clinical or {}).get(patient, {})


def _say(line: str) -> None:
    tqdm.tqdm.write(line, file=sys.stderr)

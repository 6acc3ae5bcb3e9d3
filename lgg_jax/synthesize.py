"""Synthetic data: phantom heads with tumours in the kaggle_3m layout, for use without the real data.

    python -m lgg_jax synthesize --output=phantoms --patients=20

Each head consists of ellipsoids (scalp, skull, brain, ventricles) with irregular surfaces and a tumour. The tumour is
bright on FLAIR and dark on T1; in grade III it has a ring that enhances after contrast. A bias field, a gain and noise
are applied to every sequence. Scalp and face are as bright as the tumour, so no threshold segments it. The phantoms
are not anatomical: never use a model trained on them for a patient.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from absl import flags
from PIL import Image
from scipy import ndimage

from lgg_jax.errors import UserError

SIZE = 256
INSTITUTIONS = ("CS", "DU", "HT", "FG")

# Intensities of T1, FLAIR and T1 with contrast, between 0 and 1.
AIR = (0.01, 0.01, 0.01)
SCALP = (0.75, 0.60, 0.80)
SKULL = (0.06, 0.06, 0.08)
CSF = (0.14, 0.09, 0.16)
GREY = (0.36, 0.42, 0.40)
WHITE = (0.47, 0.36, 0.50)
CAPS = (0.42, 0.50, 0.46)
TUMOUR = (0.27, 0.66, 0.30)
RING = (0.32, 0.62, 0.85)

# The columns of the original data.csv and the number of codes in each. Age is in years.
TABLE = {
    "RNASeqCluster": 4, "MethylationCluster": 5, "miRNACluster": 4, "CNCluster": 3, "RPPACluster": 4,
    "OncosignCluster": 3, "COCCluster": 3, "histological_type": 3, "neoplasm_histologic_grade": 2,
    "tumor_tissue_site": 1, "laterality": 3, "tumor_location": 6, "gender": 2, "age_at_initial_pathologic": 75,
    "race": 4, "ethnicity": 2, "death01": 1,
}  # fmt: skip


def define_flags(flag_values: flags.FlagValues) -> None:
    """Define the flags of the verb `synthesize`."""
    text = "Write the data set to this folder, which must be new or empty."
    flags.DEFINE_string("output", None, text, flag_values=flag_values, required=True)
    text = "Generate this number of patients."
    flags.DEFINE_integer("patients", 20, text, lower_bound=1, flag_values=flag_values)
    text = "Use this random seed; the same seed gives the same files."
    flags.DEFINE_integer("seed", 0, text, lower_bound=0, flag_values=flag_values)


def main(flag_values: flags.FlagValues) -> int:
    """Run the verb `synthesize`."""
    try:
        synthesize(flag_values.output, flag_values.patients, flag_values.seed)
    except OSError as error:
        raise UserError(f"cannot write to {flag_values.output} ({error})", "choose another --output") from error
    print(f"wrote {flag_values.patients} phantom patients to {flag_values.output}")
    return 0


def synthesize(output, patients: int, seed: int = 0) -> None:
    """Write patient folders and data.csv to `output`. Patient i depends only on (seed, i).

    Of every twelve patients, one has no T1, one has no T1 with contrast, and one has neither. The channel of a missing
    sequence repeats FLAIR, as in the original data. Patient 4 has no clinical values.

    Raises:
      UserError: `output` exists and is not an empty folder.
    """
    output = Path(output)
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise UserError(f"{output} exists and is not an empty folder (--output)", "pass a new folder or empty this one")
    output.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(1, patients + 1):
        rng = np.random.default_rng([seed, number])
        patient = f"TCGA_{INSTITUTIONS[number % 4]}_{number:04d}"
        row = _clinical_row(rng)
        image, mask = phantom(rng, grade=row["neoplasm_histologic_grade"] + 1)
        for channel in {6: (0,), 9: (2,), 0: (0, 2)}.get(number % 12, ()):
            image[..., channel] = image[..., 1]
        date = f"{rng.integers(1990, 2010)}{rng.integers(1, 13):02d}{rng.integers(1, 29):02d}"
        _write(output / f"{patient}_{date}", image, mask)
        missing = 1.0 if number == 4 else 0.08  # the probability that a value is missing
        rows.append({"Patient": patient} | {name: "" if rng.random() < missing else row[name] for name in TABLE})
    pd.DataFrame(rows).to_csv(output / "data.csv", index=False)


def _clinical_row(rng) -> dict[str, int]:
    row = {name: int(rng.integers(1, codes + 1)) for name, codes in TABLE.items()}
    return row | {"age_at_initial_pathologic": int(rng.integers(18, 76)), "death01": int(rng.integers(0, 2))}


def _write(folder: Path, image: np.ndarray, mask: np.ndarray) -> None:
    folder.mkdir()
    for number, (pixels, tumour) in enumerate(zip(image, mask, strict=True), start=1):
        Image.fromarray(pixels).save(folder / f"{folder.name}_{number}.tif")
        Image.fromarray(tumour.astype(np.uint8) * 255).save(folder / f"{folder.name}_{number}_mask.tif")


def phantom(rng: np.random.Generator, grade: int) -> tuple[np.ndarray, np.ndarray]:
    """Generate one head with 18 to 22 slices.

    Args:
      rng: the random numbers of this patient.
      grade: 2 or 3.

    Returns:
      The image, (slice, 256, 256, 3) uint8, and the ground-truth mask, (slice, 256, 256) bool.
    """
    z, y, x = _coordinates(rng)
    rough, fine = _noise(rng, len(z), 5), _noise(rng, len(z), 30)
    brain = np.sqrt(x**2 + y**2 + np.abs(np.where(z > 0, z, 1.25 * z)) ** 3) + 0.02 * rough
    image = _head(z, y, x, brain, rough, fine)
    brain = brain < 0.88
    ventricles = _ventricles(rng, z, y, x, rough)
    _paint(image, np.clip((1.6 - ventricles) / 0.6, 0, 1) * brain, CAPS)
    image[(ventricles < 1) & brain] = CSF
    depth = _tumour_depth(rng, z, y, x) + 0.3 * _noise(rng, len(z), 14)
    inside = brain & (ventricles >= 1)
    _paint(image, np.clip((1.1 - depth) / 0.2, 0, 1) * inside, TUMOUR)
    if grade == 3:
        _paint(image, np.clip(2 - np.abs(depth - 0.5) / 0.07, 0, 1) * inside, RING)
    return _scan(rng, image), (depth < 1) & inside


def _coordinates(rng):
    """Return z, y and x, broadcastable to (slice, 256, 256).

    The head is the unit ball. The slices go from the jaw to the crown.
    """
    slices = rng.integers(18, 23)
    grid = np.linspace(-1, 1, SIZE, dtype=np.float32)
    y, x = np.meshgrid(grid - rng.normal(0, 0.03), grid - rng.normal(0, 0.03), indexing="ij")
    angle, size = rng.normal(0, 0.06), rng.uniform(0.9, 1.05)
    y, x = y * np.cos(angle) - x * np.sin(angle), y * np.sin(angle) + x * np.cos(angle)
    z = np.linspace(-0.85, 0.97, slices, dtype=np.float32)[:, None, None]
    return z, (y / (0.82 * size))[None], (x / (0.64 * size))[None]


def _noise(rng, slices: int, cells: int) -> np.ndarray:
    """Return smooth noise, (slice, 256, 256), of unit variance with about `cells` bumps along each side."""
    field = rng.standard_normal((max(2, cells // 2) + 2, cells + 2, cells + 2), dtype=np.float32)
    for size in (slices, SIZE, SIZE):
        # einsum sums in the same order on every machine; BLAS does not.
        field = np.einsum("ij,jkl->kli", _bumps(size, len(field)), field)
    return field


def _bumps(size: int, cells: int) -> np.ndarray:
    position = np.linspace(0.5, cells - 1.5, size, dtype=np.float32)
    weights = np.exp(-((position[:, None] - np.arange(cells, dtype=np.float32)) ** 2))
    return weights / np.linalg.norm(weights, axis=1, keepdims=True)


def _head(z, y, x, brain, rough, fine) -> np.ndarray:
    """Return scalp, skull, brain with cortex, and random patches instead of a face, (slice, 256, 256, 3) float32."""
    head = np.sqrt(x**2 + y**2 + np.abs(np.where(z > 0, z, 0.5 * z)) ** 3) + 0.01 * rough
    image = np.empty((*head.shape, 3), np.float32)
    image[:] = AIR
    image[head < 1] = SCALP
    image[(head < 0.94) & (fine + 2 * rough > -1.5)] = GREY
    image[(head < 0.94) & (fine + 2 * rough < 0.5)] = SKULL
    image[brain < 0.96] = SKULL
    image[brain < 0.91] = CSF
    image[brain + 0.06 * np.abs(fine) < 0.90] = GREY
    image[brain + 0.12 * np.abs(fine) < 0.81] = WHITE
    image[(np.abs(x + 0.01 * rough) < 0.012) & (brain < 0.91)] = CSF
    return image


def _paint(image, weight, tissue) -> None:
    image += np.asarray(weight, np.float32)[..., None] * (np.array(tissue, np.float32) - image)


def _ventricles(rng, z, y, x, rough) -> np.ndarray:
    """Return a field that is below 1 inside the two ventricles."""
    width, length = rng.uniform(0.07, 0.13), rng.uniform(0.3, 0.42)
    across = (np.abs(x) - 0.13 - 0.12 * (y + 0.1) ** 2) / width
    return np.sqrt(across**2 + ((y + 0.02) / length) ** 2 + ((z - 0.2) / 0.3) ** 2) + 0.06 * rough


def _tumour_depth(rng, z, y, x) -> np.ndarray:
    """Return the distance from the tumour's centre in radii, before noise makes the surface irregular."""
    side, radius = rng.choice((-1, 1)), rng.uniform(0.2, 0.37)
    centre = rng.uniform(-0.1, 0.5), rng.uniform(-0.5, 0.5), side * rng.uniform(0.2, 0.5)
    stretch = rng.uniform(0.8, 1.25, 2)
    return np.sqrt(
        ((z - centre[0]) / 1.1) ** 2 + ((y - centre[1]) * stretch[0]) ** 2 + ((x - centre[2]) * stretch[1]) ** 2
    ) / radius


def _scan(rng, image) -> np.ndarray:
    """Simulate the scanner: partial volume, bias field, texture, gain and noise of each sequence; return uint8."""
    image = ndimage.gaussian_filter(image, (0, 0.8, 0.8, 0))
    field = np.exp(0.15 * _noise(rng, len(image), 2) + 0.05 * _noise(rng, len(image), 40))
    image *= field[..., None] * rng.uniform(100, 200, 3).astype(np.float32)
    noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(rng.uniform(2, 5))
    return np.clip(np.abs(image + noise), 0, 255).astype(np.uint8)

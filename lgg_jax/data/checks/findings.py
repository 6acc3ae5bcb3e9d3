"""Report of an integrity check, and the checks of slices that all layouts share.

    report = Report()
    has_tumour, replaced = report.add_slices("TCGA_CS_4941", [(path, image, mask), …])
    report.find_duplicates()
    report.findings             # [("error", "1.tif and 2.tif have the same pixels …; remove one of …")]
"""

import collections
import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from lgg_jax.data.volume import FLAIR
from lgg_jax.errors import UserError

NO_TUMOUR_REMEDY = "check the masks; without tumour, the volume Dice is undefined and excluded from the mean"
REPLACED_REMEDY = "for training, keep config.augment.missing_sequence above 0"
_SEQUENCES = {0: "T1", 2: "T1 with contrast", 3: "T2"}  # the channels other than FLAIR


@dataclasses.dataclass
class Report:
    """Findings of a check.

    Attributes:
      findings: (severity, line); the severity is "error" or "odd".
      patients, slices, with_tumour: numbers of patients, of slices, and of slices with tumour.
      digests: (patient, file) of all slices with the same pixels, by a hash of the pixels.
    """

    findings: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    patients: int = 0
    slices: int = 0
    with_tumour: int = 0
    digests: dict = dataclasses.field(default_factory=lambda: collections.defaultdict(list))

    def error(self, wrong: str, remedy: str) -> None:
        """Add an error: training would fail or learn from wrong data."""
        self.findings.append(("error", f"{wrong}; {remedy}"))

    def odd(self, wrong: str, remedy: str) -> None:
        """Add a finding that does not prevent training."""
        self.findings.append(("odd", f"{wrong}; {remedy}"))

    def add_exception(self, error: UserError) -> None:
        """Add an exception that would end a training as an error."""
        self.findings.append(("error", str(error)))

    def count(self, severity: str) -> int:
        """Number of findings of a severity."""
        return sum(entry == severity for entry, _ in self.findings)

    def add_slices(self, patient: str, slices: list[tuple]) -> tuple[bool, str]:
        """Count a patient's slices, and compare their sizes and channels.

        Args:
          patient: the patient.
          slices: (file, image, mask) of each slice; the mask may be None.

        Returns:
          Whether a mask shows tumour, and the names of the channels that equal FLAIR in all slices.
        """
        sizes, tumours, equal = {}, 0, dict.fromkeys(_SEQUENCES, bool(slices))
        for name, image, mask in slices:
            sizes.setdefault(image.shape[:2], name)
            tumours += mask is not None and bool(mask.any())
            for channel in _SEQUENCES:
                exists = channel < image.shape[-1]
                equal[channel] &= exists and np.array_equal(image[..., channel], image[..., FLAIR])
            if np.ptp(image):  # blank slices are the same in all patients
                self.digests[hashlib.sha256(np.ascontiguousarray(image)).digest()].append((patient, name))
        for size, name in list(sizes.items())[1:]:
            wrong = f"{name} has shape {size}, the slices before it {next(iter(sizes))}"
            self.error(wrong, "make all slices of a patient the same size")
        self.with_tumour += tumours
        return tumours > 0, " and ".join(name for channel, name in _SEQUENCES.items() if equal[channel])

    def check_patient(self, place: object, has_tumour: bool, replaced: str) -> None:
        """Add the findings for a patient.

        Args:
          place: file or folder of the patient, for messages.
          has_tumour, replaced: as `add_slices` returns them.
        """
        if not has_tumour:
            self.odd(f"no tumour in any mask ({place})", NO_TUMOUR_REMEDY)
        if replaced:
            self.odd(f"FLAIR replaces the missing {replaced} ({place})", REPLACED_REMEDY)

    def find_duplicates(self) -> None:
        """Add slices with the same pixels: an error if they are from two patients, odd within one patient."""
        shared = collections.defaultdict(list)
        for places in self.digests.values():
            (first, path), *others = places
            for patient, other in others:
                shared[first, patient].append((path, other))
        for (first, second), paths in shared.items():
            path, other = paths[0]
            patients = " and ".join(dict.fromkeys((first, second)))
            wrong = f"{path} and {other} have the same pixels (identical slices in {patients}: {len(paths)})"
            if first == second:
                self.odd(wrong, "check the scan, and remove one of them if it is a copy")
            else:
                self.error(wrong, "remove one of the two patients, otherwise the training and test sets may overlap")


def first_six(values: Sequence) -> str:
    """The first six values, separated by commas, with an ellipsis if there are more."""
    return ", ".join(map(str, values[:6])) + ", …" * (len(values) > 6)

"""What `check` finds in a data folder, and what it looks for in the slices of every layout.

    report = Report()
    tumour, filled = report.add_slices("TCGA_CS_4941", [(path, image, mask), …])
    report.compare_patients()
    report.findings             # [("error", "… hold the same pixels …; keep one of the two patients, …")]
"""

import collections
import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from lgg_jax.data.volume import FLAIR
from lgg_jax.errors import UserError

_OTHERS = {0: "T1", 2: "T1 with contrast", 3: "T2"}  # channels beside FLAIR


@dataclasses.dataclass
class Report:
    """Findings as (severity, line), and what was counted on the way."""

    findings: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    patients: int = 0
    slices: int = 0
    with_tumour: int = 0
    # Which slices hold the same pixels: (patient, file) by digest.
    digests: dict = dataclasses.field(default_factory=lambda: collections.defaultdict(list))

    def error(self, what: str, remedy: str) -> None:
        self.findings.append(("error", f"{what}; {remedy}"))

    def odd(self, what: str, remedy: str) -> None:
        self.findings.append(("odd", f"{what}; {remedy}"))

    def refused(self, error: UserError) -> None:
        """Notes what would have ended a training."""
        self.findings.append(("error", str(error)))

    def count(self, severity: str) -> int:
        return sum(found == severity for found, _ in self.findings)

    def add_slices(self, patient: str, slices: list[tuple]) -> tuple[bool, str]:
        """Counts a patient's slices, each (its file, image, mask or None), and looks at their sizes.

        Returns whether there is tumour, and the sequences that FLAIR stands in for.
        """
        sizes, tumours, equal = {}, 0, dict.fromkeys(_OTHERS, bool(slices))
        for name, image, mask in slices:
            sizes.setdefault(image.shape[:2], name)
            tumours += mask is not None and bool(mask.any())
            for channel in _OTHERS:
                there = channel < image.shape[-1]
                equal[channel] &= there and np.array_equal(image[..., channel], image[..., FLAIR])
            if np.ptp(image):  # blank slices are alike in all patients
                self.digests[hashlib.sha256(np.ascontiguousarray(image)).digest()].append((patient, name))
        for size, name in list(sizes.items())[1:]:
            what = f"{name} is {size}, slices before it {next(iter(sizes))}"
            self.error(what, "make all slices of a patient one size")
        self.with_tumour += tumours
        return tumours > 0, " and ".join(name for channel, name in _OTHERS.items() if equal[channel])

    def describe(self, place: object, tumour: bool, filled: str) -> None:
        """Notes of a patient what `add_slices` told."""
        if not tumour:
            self.odd(f"{place}: no tumour in any mask", "its volume Dice is undefined and it is left out of the mean")
        if filled:
            self.odd(f"{place}: FLAIR stands in for {filled}", "train with the missing-sequence augmentation")

    def compare_patients(self) -> None:
        """Notes slices that are there twice, within a patient or in two."""
        shared = collections.defaultdict(list)
        for places in self.digests.values():
            (first, path), *others = places
            for patient, other in others:
                shared[first, patient].append((path, other))
        for (first, second), paths in shared.items():
            path, other = paths[0]
            what = f"{path} and {other} hold the same pixels ({len(paths)} such slices of {first} and {second})"
            if first == second:
                self.odd(what, "remove one of them unless the scan is like that")
            else:
                self.error(what, "keep one of the two patients, or one trains and the other tests")


def shown(values: Sequence) -> str:
    """The first six of them."""
    return ", ".join(map(str, values[:6])) + ", …" * (len(values) > 6)

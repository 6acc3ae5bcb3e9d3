"""DICOM SEG: encoding of a mask or of probabilities on the grid of a DICOM series.

    encode(mask, headers, "series-1a2b3c4d").save_as("mask.dcm")
"""

import copy
import importlib.metadata
from collections.abc import Sequence

import highdicom
import numpy as np
import pydicom
from pydicom.sr.codedict import codes

_CLEARED = ("PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate", "StudyTime",
            "ReferringPhysicianName")  # fmt: skip


def encode(values: np.ndarray, headers: Sequence[pydicom.Dataset], patient: str) -> highdicom.seg.Segmentation:
    """Encode an array as one segment, "neoplasm", with one frame per slice, including empty slices.

    Args:
      values: (slice, row, column), uint8 in {0, 1} for a binary segmentation or float32 in [0, 1] for a fractional one.
      headers: source headers in slice order; pixels are not needed.
      patient: PatientID of the output.

    Returns:
      A segmentation that references the source series and shares its study and frame of reference. The patient's name,
      birth date and sex and the date of the study are empty.
    """
    fractional = values.dtype.kind == "f"
    return highdicom.seg.Segmentation(
        source_images=[_anonymous(header, patient) for header in headers],
        pixel_array=values[..., None] if fractional else values,
        segmentation_type="FRACTIONAL" if fractional else "BINARY",
        segment_descriptions=[_describe()],
        omit_empty_frames=False,
        series_instance_uid=highdicom.UID(),
        series_number=1,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="lgg_jax",
        manufacturer_model_name="lgg_jax",
        software_versions=_version(),
        device_serial_number="0",
        content_label="TUMOUR",
        series_description="lgg_jax tumour probability" if fractional else "lgg_jax tumour mask",
    )


def _anonymous(header: pydicom.Dataset, patient: str) -> pydicom.Dataset:
    """Return a copy of the header without identifying fields, with the attributes that highdicom requires."""
    header = copy.copy(header)
    for keyword in _CLEARED:
        setattr(header, keyword, None)
    header.PatientID = patient
    header.SliceThickness = header.get("SliceThickness")
    return header


def _describe() -> highdicom.seg.SegmentDescription:
    return highdicom.seg.SegmentDescription(
        segment_number=1,
        segment_label="FLAIR abnormality of a glioma",
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Neoplasm,
        anatomic_regions=[codes.SCT.Brain],
        algorithm_type="AUTOMATIC",
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name="lgg_jax", version=_version(), family=codes.DCM.ArtificialIntelligence
        ),
    )


def _version() -> str:
    try:
        return importlib.metadata.version("lgg-jax")
    except importlib.metadata.PackageNotFoundError:  # The package runs from a source folder.
        return "not installed"

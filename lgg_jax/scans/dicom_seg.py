"""DICOM SEG: an array on the grid of a series as an object that references the series.

    encode(mask, headers, "series-1a2b3c4d").save_as("mask.dcm")
"""

import copy
import importlib.metadata
from collections.abc import Sequence

import highdicom
import numpy as np
import pydicom
from pydicom.sr.codedict import codes

_EMPTIED = ("PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate", "StudyTime",
            "ReferringPhysicianName")  # fmt: skip


def encode(values: np.ndarray, headers: Sequence[pydicom.Dataset], patient: str) -> highdicom.seg.Segmentation:
    """One segment, "neoplasm", a frame for every slice, empty ones too.

    Args:
      values: (slice, row, column), uint8 of 0 and 1 (a binary segmentation) or float32 in [0, 1] (a fractional one).
      headers: of the slices, in the same order; no pixels needed.
      patient: the PatientID of the output. Study, series and frame of reference are the source's; the patient's name,
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
    """The header as highdicom wants it, with nothing in it that tells who the patient is."""
    header = copy.copy(header)
    for keyword in _EMPTIED:
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
    except importlib.metadata.PackageNotFoundError:  # run from a checkout
        return "not installed"

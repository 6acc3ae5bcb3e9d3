"""Test helpers: a synthetic head without symmetry, written as TIFF, NIfTI or DICOM in any orientation."""

import warnings

import nibabel
import numpy as np
import pydicom
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from lgg_jax.scans import find_scans

NAME, BIRTH, HOSPITAL_ID = "Doe^Jane", "19610203", "HOSP-4711"
SPACING = (4.0, 1.0, 0.95)  # slice, row, column
IMAGE = np.random.default_rng(0).integers(1, 200, (6, 12, 14, 3), np.uint8)  # (slice, row, column, sequence)
MASK = np.zeros(IMAGE.shape[:3], bool)
MASK[1:3, 2:7, 9:13] = True
MASK[3, 2, 9] = True
PROBABILITY = np.random.default_rng(1).random(MASK.shape, np.float32)

_AXES = {"S": (0, 1), "I": (0, -1), "P": (1, 1), "A": (1, -1), "L": (2, 1), "R": (2, -1)}
_UNIT = {"L": (-1, 0, 0), "R": (1, 0, 0), "P": (0, -1, 0), "A": (0, 1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}


def orient(axial, codes):
    """Reorient an axial array (slice, row, column).

    Args:
      axial: the array.
      codes: the direction of each axis of the result, such as "RSA".

    Returns:
      The array and its affine to mm (x right, y anterior, z superior).
    """
    array = axial.transpose([_AXES[code][0] for code in codes])[tuple(slice(None, None, _AXES[c][1]) for c in codes)]
    affine = np.eye(4)
    for axis, code in enumerate(codes):
        affine[:3, axis] = np.array(_UNIT[code]) * SPACING[_AXES[code][0]]
    affine[:3, 3] = (-31.0, 17.0, 5.0)
    return array, affine


def write_tiff(folder, image=IMAGE, masks=False):
    folder.mkdir(parents=True)
    for number, pixels in enumerate(image, start=1):
        Image.fromarray(pixels).save(folder / f"{folder.name}_{number}.tif")
        if masks:
            Image.fromarray(MASK[number - 1].astype(np.uint8) * 255).save(folder / f"{folder.name}_{number}_mask.tif")
    return folder


def write_nifti(path, axial, codes="LPS"):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(*orient(axial, codes)), path)
    return path


def save_nifti(path, array, affine=None):
    nibabel.save(nibabel.Nifti1Image(array, np.diag([-1, -1, 4, 1]) if affine is None else affine), path)
    return path


def write_brats(folder, codes="LPS", names=("_t1", "_flair", "_t1ce")):
    for channel, name in enumerate(names):
        write_nifti(folder / f"{folder.name}{name}.nii.gz", IMAGE[..., channel], codes)
    return folder


def write_dicom(folder, axial, codes="SPL", study="1.2.3", **fields):
    """Write a series whose slices, rows and columns have the directions `codes`. File names do not have the order."""
    folder.mkdir(parents=True)
    array, affine = orient(axial, codes)
    series = generate_uid()
    to_lps = np.diag([-1, -1, 1])
    directions = to_lps @ affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    for number, plane in enumerate(array):
        dataset = pydicom.Dataset()
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID, dataset.SOPInstanceUID = MRImageStorage, generate_uid()
        dataset.PatientName, dataset.PatientBirthDate, dataset.PatientID = NAME, BIRTH, HOSPITAL_ID
        dataset.ReferringPhysicianName, dataset.AccessionNumber, dataset.StudyDescription = "House^G", "A-99", NAME
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = study, series, f"{study}.9"
        dataset.StudyDate, dataset.Modality = "20200101", "MR"
        dataset.PixelSpacing = [float(np.linalg.norm(affine[:3, axis])) for axis in (1, 2)]
        dataset.ImageOrientationPatient = [*map(float, directions[:, 2]), *map(float, directions[:, 1])]
        dataset.ImagePositionPatient = list(map(float, to_lps @ (affine @ [number, 0, 0, 1])[:3]))
        dataset.SliceThickness = 3.0
        dataset.RescaleSlope, dataset.RescaleIntercept = 0.5, -3
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.Rows, dataset.Columns = plane.shape
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
        dataset.PixelData = (2 * plane.astype(np.uint16) + 6).tobytes()
        for keyword, value in fields.items():
            setattr(dataset, keyword, value)
        dataset.save_as(folder / f"{dataset.SOPInstanceUID}.dcm", enforce_file_format=True)
    return folder


def change(path, **fields):
    """Set fields of a DICOM file; None removes a field."""
    dataset = pydicom.dcmread(path)
    for keyword, value in fields.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.save_as(path)


def by_position(folder):
    """Return the headers of a series in the order of the slice positions."""
    headers = [pydicom.dcmread(path) for path in folder.iterdir()]
    normal = np.cross(headers[0].ImageOrientationPatient[:3], headers[0].ImageOrientationPatient[3:])
    return sorted(headers, key=lambda header: normal @ np.array(header.ImagePositionPatient, float))


def read(path, **arguments):
    """Read the only scan at `path`, without the warnings about missing sequences."""
    [source] = find_scans(path, **arguments)
    with warnings.catch_warnings(action="ignore"):
        return source.read()

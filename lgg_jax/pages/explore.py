"""The page of `explore`: figures and tables of a data set, with captions that state its numbers.

    Path("explore.html").write_text(compose(survey, config, Path("figures")), encoding="utf-8")
"""

from pathlib import Path

import ml_collections
import numpy as np
import pandas as pd
from markupsafe import Markup

from lgg_jax.data import dataset
from lgg_jax.data.clinical import FIELDS
from lgg_jax.data.survey import Survey
from lgg_jax.data.volume import find_geometry, network_images, network_masks
from lgg_jax.figures import augmentation as sheet
from lgg_jax.figures import explore as draw
from lgg_jax.pages.html import cards, facts, page, paragraph, picture, table

GRADES = {2.0: "II", 3.0: "III", 4.0: "IV"}
SAMPLES = 24  # patients shown
CODES = "The table does not say what its codes mean, so they are shown as they are."


def compose(survey: Survey, config: ml_collections.ConfigDict, folder: Path) -> str:
    """The HTML of the page; its figures are written to `folder` on the way.

    Args:
      survey: the measurements that the page shows.
      config: `config.data` to read two volumes again, `config.augment` for the sheet.
      folder: must exist.
    """
    cases = survey.cases
    sections = {
        "At a glance": [facts(glance(cases))],
        "Missing clinical values": missing_values(cases, folder),
        "Patients": patients(cases, folder),
        "Tumour size and location": tumours(survey, folder),
        "Grade against the rest": grade_against(cases, folder),
        "Slices": slices(cases, folder),
        "Intensities": intensities(survey.intensities, folder),
        "Missing sequences": missing_sequences(cases),
        "Sample slices": samples(survey, folder),
        "Augmentation": augmentation(cases, config, folder),
        "All patients": everyone(cases),
    }
    lead = f"What is in {config.data.dir}, before anything is trained on it."
    return page("The data", lead, sections)


def glance(cases: pd.DataFrame) -> dict[str, str]:
    known = _labelled(cases[cases["grade"].notna()], "grade").value_counts().sort_index()
    return {
        "patients": f"{len(cases):,}",
        "slices": f"{cases['slices'].sum():,}",
        "slices with tumour": f"{cases['tumour_slices'].sum():,} ({_ratio(cases['tumour_slices'], cases['slices'])})",
        "institutions": f"{cases['institution'].nunique():,}",
        "grade " + " / ".join(known.index): " / ".join(f"{count:,}" for count in known) or "unknown",
        "patients lacking a sequence": f"{cases['missing'].map(bool).sum():,}",
    }


def missing_values(cases: pd.DataFrame, folder: Path) -> list[Markup]:
    counts = cases[list(FIELDS)].isna().sum()
    if not cases[list(FIELDS)].notna().any(axis=None):
        return [paragraph("No clinical value is known: there is no clinical table, or nothing in it for these "
                          "patients. A tumour can be outlined without; to grade one, grades are needed.")]  # fmt: skip
    bare = cases.loc[cases[list(FIELDS)].isna().all(axis=1), "patient"]
    caption = f"Patients without a value, of {len(cases)}, in each clinical field that is read."
    if len(bare):
        caption += f" {_people(len(bare))} without a value in any: {', '.join(bare)}."
    counts.index = counts.index.str.replace("_", " ")
    draw.bars(counts, folder / "missing_values.png", "patients without a value")
    return [cards(picture(folder / "missing_values.png", caption))]


def patients(cases: pd.DataFrame, folder: Path) -> list[Markup]:
    """Bar charts of what is known: a field without any value is left out."""
    fields = {"grade": grades, "age": ages, "gender": genders, "institution": institutions}
    return [cards(*(plot(cases, folder) for name, plot in fields.items() if cases[name].notna().any()))]


def grades(cases: pd.DataFrame, folder: Path) -> Markup:
    counts = _labelled(cases, "grade").value_counts().sort_index().rename(lambda name: f"grade {name}")
    largest = cases["grade"].value_counts(normalize=True).iloc[0]
    draw.bars(counts, folder / "grade.png", "patients")
    return picture(folder / "grade.png", f"Grade, known of {cases['grade'].notna().sum()}. Always naming the commoner "
                   f"grade would be right in {largest:.0%}: a model must do better.")  # fmt: skip


def ages(cases: pd.DataFrame, folder: Path) -> Markup:
    known = cases["age"].dropna()
    draw.histogram(known, folder / "age.png", "age in years", np.arange(known.min() // 5 * 5, known.max() + 6, 5))
    return picture(folder / "age.png", f"Age at diagnosis in years, in steps of 5: {_spread(known, '.0f')}.")


def genders(cases: pd.DataFrame, folder: Path) -> Markup:
    draw.bars(_labelled(cases, "gender").value_counts().sort_index(), folder / "gender.png", "patients")
    return picture(folder / "gender.png", f"Gender. {CODES}")


def institutions(cases: pd.DataFrame, folder: Path) -> Markup:
    counts = cases["institution"].value_counts()
    draw.bars(counts, folder / "institution.png", "patients")
    return picture(folder / "institution.png", "Institution, as a TCGA identifier names it. The share of the largest "
                   f"is {counts.iloc[0] / len(cases):.0%}.")  # fmt: skip


def tumours(survey: Survey, folder: Path) -> list[Markup]:
    cases = survey.cases[survey.cases["tumour_share"] > 0]
    without = len(survey.cases) - len(cases)
    text = f"{_people(without)} without tumour in any slice, or without a visible head; left out here."
    parts = [paragraph(text)] if without else []
    return parts if cases.empty else [*parts, cards(*sizes(cases, folder), *places(survey, cases, folder))]


def sizes(cases: pd.DataFrame, folder: Path) -> list[Markup]:
    """Histograms of the tumours' sizes, in pixels and as a share of the head."""
    pixels, share = cases["tumour_pixels"], cases["tumour_share"]
    draw.histogram(pixels, folder / "tumour_pixels.png", "tumour pixels in the whole volume")
    draw.histogram(share, folder / "tumour_share.png", "tumour, share of the head", share=True)
    return [
        picture(folder / "tumour_pixels.png", f"Size in pixels, all slices together: {_spread(pixels, ',.0f')}. "
                "Pixels differ in size between scanners; no size is assumed here."),
        picture(folder / "tumour_share.png", f"Size as a share of the head that was scanned: {_spread(share, '.1%')}."),
    ]  # fmt: skip


def places(survey: Survey, cases: pd.DataFrame, folder: Path) -> list[Markup]:
    """Where the tumours are: within a slice, and along the stack."""
    draw.heat_map(survey.tumour_map, survey.head_map, cases[["row", "column"]].to_numpy(), folder / "location.png")
    draw.histogram(cases["depth"], folder / "depth.png", "centroid, share of the stack", np.linspace(0, 1, 13), True)
    left = (cases["column"] < 0.5).sum()
    return [
        picture(folder / "location.png", "Where tumours are, seen through all slices, in the square around the head. "
                f"Dots are the tumours' centroids: {left} lie left of the middle of the picture, {len(cases) - left} "
                f"right. The commonest place is in the tumour of {survey.tumour_map.max():.0%} of patients. "
                "The white line is the outline of most heads."),
        picture(folder / "depth.png", "Where in the stack of slices the tumours' centroids are, from the first slice "
                f"(0%) to the last: {_spread(cases['depth'], '.0%')}."),
    ]  # fmt: skip


def grade_against(cases: pd.DataFrame, folder: Path) -> list[Markup]:
    known = cases[cases["grade"].notna()]
    if known.empty:
        return [paragraph("No grade is known.")]
    known = known.assign(grade=_labelled(known, "grade"))
    side = known["column"].lt(0.5).map({True: "left", False: "right"}).where(known["column"].notna(), "no tumour")
    groups = {"institution": known["institution"], "centroid's side": side}
    coded = [name for name in ("gender", "laterality", "tumor_location") if known[name].notna().any()]
    groups |= {name.replace("_", " "): _labelled(known, name) for name in coded}
    return [
        paragraph(f"{_people(len(known))} of known grade. A difference seen here may be chance: none was tested."),
        cards(*box_plots(known, folder)),
        cards(*(grade_table(known["grade"], group, name) for name, group in groups.items())),
        paragraph("The centroid's side is the half of the picture it lies in. " + CODES * bool(coded)),
    ]


def box_plots(known: pd.DataFrame, folder: Path) -> list[Markup]:
    """Age and tumour size by grade."""
    parts = []
    for name, label, what in (("age", "age in years", "Age"), ("tumour_share", "tumour, share of the head", "Size")):
        groups = {f"grade {grade}": rows[name].dropna() for grade, rows in known.groupby("grade")}
        if any(map(len, groups.values())):
            path, spec = folder / f"grade_{name}.png", ".0f" if name == "age" else ".1%"
            draw.boxes(groups, path, label, share=name != "age")
            medians = ", ".join(f"{grade} {format(rows.median(), spec)}" for grade, rows in groups.items() if len(rows))
            parts.append(picture(path, f"{what} by grade, a dot a patient. Medians: {medians}."))
    return parts


def grade_table(grades: pd.Series, groups: pd.Series, label: str) -> Markup:
    """Counts of each grade and the share of the highest one, a row a group."""
    counts = pd.crosstab(groups, grades)
    highest = counts.columns[-1]
    counts["n"] = counts.sum(axis=1)
    percent = f"%\N{NO-BREAK SPACE}{highest}"
    counts[percent] = 100 * counts[highest] / counts["n"]
    return table(counts.rename_axis(label).reset_index(), f"Grade by {label}", {percent: ".0f"})


def slices(cases: pd.DataFrame, folder: Path) -> list[Markup]:
    draw.histogram(cases["slices"], folder / "slices.png", "slices", draw.whole_bins(cases["slices"]))
    path = folder / "tumour_slices.png"
    draw.histogram(cases["tumour_slices"], path, "slices with tumour", draw.whole_bins(cases["tumour_slices"]))
    shapes = (cases["height"].astype(str) + " × " + cases["width"].astype(str)).value_counts()
    shapes = ", ".join(f"{shape} ({_people(count)})" for shape, count in shapes.items())
    return [cards(
        picture(folder / "slices.png", f"Slices a patient: {_spread(cases['slices'], '.0f')}. "
                f"Pixels in a slice: {shapes}."),
        picture(path, f"Slices with tumour a patient: {_spread(cases['tumour_slices'], '.0f')}"
                f"; {_ratio(cases['tumour_slices'], cases['slices'])} of all slices."),
    )]  # fmt: skip


def intensities(rows: pd.DataFrame, folder: Path) -> list[Markup]:
    if rows.empty:
        return [paragraph("No head was found in any volume.")]
    draw.intensities(rows, folder / "intensities.png")
    groups = rows.groupby(["sequence", "institution"], sort=False)
    typical = groups[["low", "median", "high"]].median()
    typical.insert(0, "patients", groups.size())
    typical = typical.sort_index().rename(columns={"low": "lower quartile", "high": "upper quartile"}).reset_index()
    text = ("Of the head's pixels as stored, before they are normalised. MRI has no unit: institutions differ as their "
            "scanners do. A model sees each volume with median 0 and unit spread over the brain.")
    caption = ("A dot is the median of one patient's head. The red line is the median of these dots, the bar goes from "
               "the typical (median) lower quartile to the typical upper one. Copies of FLAIR that stand in for a "
               "missing sequence are left out.")
    formats = dict.fromkeys(("lower quartile", "median", "upper quartile"), ".1f")
    numbers = table(typical, "The red lines and the ends of the bars as numbers", formats)
    return [paragraph(text), cards(picture(folder / "intensities.png", caption)), numbers]


def missing_sequences(cases: pd.DataFrame) -> list[Markup]:
    lacking = cases[cases["missing"].map(bool)]
    if lacking.empty:
        return [paragraph("No patient lacks a sequence.")]
    counts = lacking["missing"].explode().value_counts().sort_index()
    counts = ", ".join(f"{name} {count}" for name, count in counts.items())
    text = f"{_people(len(lacking))} of {len(cases)} without a sequence ({counts}): FLAIR stands in for it."
    shown = lacking[["patient", "institution"]].assign(lacks=lacking["missing"].map(" and ".join))
    return [paragraph(text), table(shown, "Patients that lack a sequence")]


def samples(survey: Survey, folder: Path) -> list[Markup]:
    ranked = survey.cases[survey.cases["patient"].isin(survey.samples)].sort_values("tumour_pixels", kind="stable")
    if ranked.empty:
        return [paragraph("There is no tumour to show.")]
    ranks = np.unique(np.linspace(0, len(ranked) - 1, min(SAMPLES, len(ranked))).round().astype(int))
    chosen = ranked.iloc[ranks]
    draw.sample_grid({patient: survey.samples[patient] for patient in chosen["patient"]}, folder / "samples.png")
    pixels = chosen["tumour_pixels"]
    caption = (f"The slice with most tumour of {len(chosen)} of {len(ranked)} patients, from the smallest tumour "
               f"({pixels.iloc[0]:,} pixels in the volume) to the largest ({pixels.iloc[-1]:,}), in even steps of "
               "rank: FLAIR with the outline that was drawn by hand.")  # fmt: skip
    return [cards(picture(folder / "samples.png", caption, wide=True))]


def _largest(config: ml_collections.ConfigDict, patient: str) -> tuple[np.ndarray, np.ndarray, int]:
    """The patient's slice with most tumour as the network sees it, its mask and its number."""
    volume = next(dataset.load_volumes(config.data, [patient]))
    index = int(volume.mask.sum(axis=(1, 2)).argmax())
    square = find_geometry(volume.image, config.data.size)
    return network_images(volume.image, square)[index], network_masks(volume.mask[index][None], square)[0], index


def augmentation(cases: pd.DataFrame, config: ml_collections.ConfigDict, folder: Path) -> list[Markup]:
    whole = cases[~cases["missing"].map(bool) & (cases["tumour_pixels"] > 0)]
    ranked = (cases if whole.empty else whole).sort_values("tumour_pixels", kind="stable")
    middle = len(ranked) // 2
    patient, donor = ranked["patient"].iloc[middle], ranked["patient"].iloc[middle - 1]
    image, mask, index = _largest(config, patient)
    sheet.augmentation_sheet(image, mask, _largest(config, donor)[:2], config.augment, folder / "augmentation.png")
    off = [sheet.title(name, config.augment) for name in sheet.PROBABILITIES if not config.augment[name]]
    note = f" Off unless a config turns it on: {', '.join(off)}." if off else ""
    caption = (f"{patient}, slice {index + 1}: each augmentation alone, the strongest of {sheet.SAMPLES} random draws "
               f"with the ranges of configs/default.py. CarveMix pastes the tumour of {donor}. Training mixes them. "
               f"Each sequence keeps one grey scale throughout.{note}")  # fmt: skip
    return [cards(picture(folder / "augmentation.png", caption, wide=True))]


def everyone(cases: pd.DataFrame) -> list[Markup]:
    shown = pd.DataFrame({
        "patient": cases["patient"],
        "institution": cases["institution"],
        "grade": cases["grade"].map(GRADES.get),
        "age": cases["age"],
        "gender code": cases["gender"],
        "slices": cases["slices"],
        "with tumour": cases["tumour_slices"],
        "tumour pixels": cases["tumour_pixels"],
        "share of head": cases["tumour_share"],
        "lacks": cases["missing"].map(lambda names: " and ".join(names) or None),
    })
    return [table(shown, "All patients; a click on a column's head sorts by it", {"share of head": ".1%"})]


def _labelled(cases: pd.DataFrame, field: str) -> pd.Series:
    """Grades as Roman numerals, codes as "code 1", unknown ones as such."""
    names = GRADES if field == "grade" else {}
    return cases[field].map(lambda value: "unknown" if pd.isna(value) else names.get(value, f"code {value:g}"))


def _spread(values, spec: str) -> str:
    """Median, quartiles and range in words."""
    low, first, median, third, high = (format(value, spec) for value in np.percentile(values, [0, 25, 50, 75, 100]))
    return f"median {median}, middle half {first} to {third}, range {low} to {high}"


def _ratio(part: pd.Series, whole: pd.Series) -> str:
    return f"{part.sum() / max(whole.sum(), 1):.0%}"


def _people(count: int) -> str:
    return f"{count} patient" if count == 1 else f"{count} patients"

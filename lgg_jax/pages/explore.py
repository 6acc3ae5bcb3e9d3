"""Page of the verb `explore`: figures and tables that describe a data set.

    Path("explore.html").write_text(compose(survey, config, Path("figures")), encoding="utf-8")

The functions of the sections write their figures to the folder and return the parts of the section.
"""

from pathlib import Path

import ml_collections
import numpy as np
import pandas as pd
from markupsafe import Markup

from lgg_jax.data.clinical import FIELDS
from lgg_jax.data.survey import Survey
from lgg_jax.figures import explore as figures
from lgg_jax.pages.explore_slices import augmentation, samples
from lgg_jax.pages.html import SORTING, cards, facts, page, paragraph, picture, table

GRADES = {2.0: "II", 3.0: "III", 4.0: "IV"}
CODES = "The clinical table does not document its codes, so they are not decoded."
MEDIAN_LINE = "The orange line is the median."


def compose(survey: Survey, config: ml_collections.ConfigDict, folder: Path) -> str:
    """Compose the HTML of the page and write its figures to `folder`.

    Args:
      survey: the measurements of the data set.
      config: `config.data` is used to read two volumes again, `config.augment` for the figure of augmentations.
      folder: an existing folder.
    """
    cases = survey.cases
    sections = {
        "Overview": [facts(overview(cases))],
        "Missing clinical values": missing_values(cases, folder),
        "Patients": patients(cases, folder),
        "Tumour size and location": tumours(survey, folder),
        "Grade and other characteristics": grade_comparisons(cases, folder),
        "Slices": slices(cases, folder),
        "Intensities": intensities(survey.intensities, folder),
        "Missing sequences": missing_sequences(cases),
        "Sample slices": samples(survey, folder),
        "Augmentation": augmentation(cases, config, folder),
        "All patients": all_patients(cases),
    }
    lead = f"Patients, tumours, images and missing values of the data set in {config.data.dir}, before any training."
    return page("Data set overview", lead, sections)


def overview(cases: pd.DataFrame) -> dict[str, str]:
    known = _labelled(cases[cases["grade"].notna()], "grade").value_counts().sort_index()
    return {
        "patients": f"{len(cases):,}",
        "slices": f"{cases['slices'].sum():,}",
        "slices with tumour": f"{cases['tumour_slices'].sum():,} ({_ratio(cases['tumour_slices'], cases['slices'])})",
        "institutions": f"{cases['institution'].nunique():,}",
        "grade " + " / ".join(known.index): " / ".join(f"{count:,}" for count in known) or "unknown",
        "patients with a missing sequence": f"{cases['missing'].map(bool).sum():,}",
    }


def missing_values(cases: pd.DataFrame, folder: Path) -> list[Markup]:
    counts = cases[list(FIELDS)].isna().sum()
    if not cases[list(FIELDS)].notna().any(axis=None):
        return [paragraph("No clinical value is known: there is no clinical table, or it has no values for these "
                          "patients. Segmentation does not need clinical values. Grading needs grades.")]  # fmt: skip
    without = cases.loc[cases[list(FIELDS)].isna().all(axis=1), "patient"]
    caption = f"Number of patients (of {len(cases)}) without a value in each clinical field."
    if len(without):
        caption += f" No clinical value is known for {_patients(len(without))}: {', '.join(without)}."
    counts.index = counts.index.str.replace("_", " ")
    figures.bars(counts, folder / "missing_values.png", "patients without a value")
    return [cards(picture(folder / "missing_values.png", caption))]


def patients(cases: pd.DataFrame, folder: Path) -> list[Markup]:
    """Charts of the clinical fields. A field without any value is omitted."""
    fields = {"grade": grades, "age": ages, "gender": genders, "institution": institutions}
    return [cards(*(plot(cases, folder) for name, plot in fields.items() if cases[name].notna().any()))]


def grades(cases: pd.DataFrame, folder: Path) -> Markup:
    counts = _labelled(cases, "grade").value_counts().sort_index().rename(lambda name: f"grade {name}")
    largest = cases["grade"].value_counts(normalize=True).iloc[0]
    figures.bars(counts, folder / "grade.png", "patients")
    return picture(folder / "grade.png", f"Tumour grade, known for {_patients(cases['grade'].notna().sum())}. "
                   f"Predicting the majority class for all of them has an accuracy of {largest:.0%}, which a model "
                   "must exceed.")  # fmt: skip


def ages(cases: pd.DataFrame, folder: Path) -> Markup:
    known = cases["age"].dropna()
    figures.histogram(known, folder / "age.png", "age in years", np.arange(known.min() // 5 * 5, known.max() + 6, 5))
    return picture(folder / "age.png", f"Age at diagnosis in bins of 5 years: {_summary(known, '.0f')}. {MEDIAN_LINE}")


def genders(cases: pd.DataFrame, folder: Path) -> Markup:
    figures.bars(_labelled(cases, "gender").value_counts().sort_index(), folder / "gender.png", "patients")
    return picture(folder / "gender.png", f"Gender of the patients. {CODES}")


def institutions(cases: pd.DataFrame, folder: Path) -> Markup:
    counts = cases["institution"].value_counts()
    figures.bars(counts, folder / "institution.png", "patients")
    return picture(folder / "institution.png", "Institution (tissue source site) in the TCGA identifiers of the "
                   f"patients. {counts.iloc[0] / len(cases):.0%} of them are from the largest one.")  # fmt: skip


def tumours(survey: Survey, folder: Path) -> list[Markup]:
    cases = survey.cases[survey.cases["tumour_share"] > 0]
    without = len(survey.cases) - len(cases)
    text = f"The figures exclude {_patients(without)} without tumour in any slice or without a visible head."
    parts = [paragraph(text)] if without else []
    return parts if cases.empty else [*parts, cards(*sizes(cases, folder), *places(survey, cases, folder))]


def sizes(cases: pd.DataFrame, folder: Path) -> list[Markup]:
    """Histograms of tumour size in pixels and as a share of the head."""
    pixels, share = cases["tumour_pixels"], cases["tumour_share"]
    figures.histogram(pixels, folder / "tumour_pixels.png", "tumour pixels in the whole volume")
    figures.histogram(share, folder / "tumour_share.png", "tumour size, share of the head", share=True)
    return [
        picture(folder / "tumour_pixels.png", "Tumour size in pixels, summed over all slices: "
                f"{_summary(pixels, ',.0f')}. {MEDIAN_LINE} The pixel size may differ between scanners."),
        picture(folder / "tumour_share.png", f"Tumour size as a share of the scanned head: {_summary(share, '.1%')}. "
                f"{MEDIAN_LINE}"),
    ]  # fmt: skip


def places(survey: Survey, cases: pd.DataFrame, folder: Path) -> list[Markup]:
    """Figures of tumour positions within a slice and along the stack of slices."""
    figures.heat_map(survey.tumour_map, survey.head_map, cases[["row", "column"]].to_numpy(), folder / "location.png")
    label, bins = "centroid, position in the stack of slices", np.linspace(0, 1, 13)
    figures.histogram(cases["depth"], folder / "depth.png", label, bins, share=True)
    left = (cases["column"] < 0.5).sum()
    return [
        picture(folder / "location.png", "Share of patients with tumour at each position of the square around the "
                f"head, projected over all slices. The maximum is {survey.tumour_map.max():.0%}. Dots are the tumour "
                f"centroids: {left} in the left half of the picture, {len(cases) - left} in the right half. The "
                "white contour encloses the positions that are in the head in most patients."),
        picture(folder / "depth.png", "Position of the tumour centroids in the stack of slices, from the first slice "
                f"(0%) to the last (100%): {_summary(cases['depth'], '.0%')}. {MEDIAN_LINE}"),
    ]  # fmt: skip


def grade_comparisons(cases: pd.DataFrame, folder: Path) -> list[Markup]:
    known = cases[cases["grade"].notna()]
    if known.empty:
        return [paragraph("No grade is known.")]
    known = known.assign(grade=_labelled(known, "grade"))
    half = known["column"].lt(0.5).map({True: "left", False: "right"}).where(known["column"].notna(), "no tumour")
    groups = {"institution": known["institution"], "half of the picture": half}
    coded = [name for name in ("gender", "laterality", "tumor_location") if known[name].notna().any()]
    groups |= {name.replace("_", " "): _labelled(known, name) for name in coded}
    return [
        paragraph(f"The grade of {_patients(len(known))} is known. Differences between the grades were not tested for "
                  "statistical significance and may be due to chance."),
        cards(*box_plots(known, folder)),
        cards(*(grade_table(known["grade"], group, name) for name, group in groups.items())),
        paragraph("“Half of the picture” is the half that contains the tumour centroid. " + CODES * bool(coded)),
    ]  # fmt: skip


def box_plots(known: pd.DataFrame, folder: Path) -> list[Markup]:
    """Box plots of age and of tumour size by grade."""
    parts = []
    size = "tumour size, share of the head"
    for name, label, title in (("age", "age in years", "Age"), ("tumour_share", size, "Tumour size")):
        groups = {f"grade {grade}": rows[name].dropna() for grade, rows in known.groupby("grade")}
        if any(map(len, groups.values())):
            path, spec = folder / f"grade_{name}.png", ".0f" if name == "age" else ".1%"
            figures.boxes(groups, path, label, share=name != "age")
            medians = ", ".join(f"{grade} {format(rows.median(), spec)}" for grade, rows in groups.items() if len(rows))
            parts.append(picture(path, f"{title} by grade. Each dot is a patient. Medians: {medians}."))
    return parts


def grade_table(grades: pd.Series, groups: pd.Series, label: str) -> Markup:
    """Table with one row per group: the count of each grade and the share of the highest grade."""
    counts = pd.crosstab(groups, grades)
    highest = counts.columns[-1]
    counts["n"] = counts.sum(axis=1)
    percent = f"%\N{NO-BREAK SPACE}{highest}"
    counts[percent] = 100 * counts[highest] / counts["n"]
    return table(counts.rename_axis(label).reset_index(), f"Grade by {label}", {percent: ".0f"})


def slices(cases: pd.DataFrame, folder: Path) -> list[Markup]:
    figures.histogram(cases["slices"], folder / "slices.png", "slices", figures.whole_bins(cases["slices"]))
    path = folder / "tumour_slices.png"
    figures.histogram(cases["tumour_slices"], path, "slices with tumour", figures.whole_bins(cases["tumour_slices"]))
    shapes = (cases["height"].astype(str) + " × " + cases["width"].astype(str)).value_counts()
    shapes = ", ".join(f"{shape} ({_patients(count)})" for shape, count in shapes.items())
    return [cards(
        picture(folder / "slices.png", f"Slices per patient: {_summary(cases['slices'], '.0f')}. "
                f"{MEDIAN_LINE} Size of a slice in pixels: {shapes}."),
        picture(path, f"Slices with tumour per patient: {_summary(cases['tumour_slices'], '.0f')}. {MEDIAN_LINE} "
                f"{_ratio(cases['tumour_slices'], cases['slices'])} of all slices have tumour."),
    )]  # fmt: skip


def intensities(rows: pd.DataFrame, folder: Path) -> list[Markup]:
    if rows.empty:
        return [paragraph("No head was found in any volume.")]
    figures.intensities(rows, folder / "intensities.png")
    groups = rows.groupby(["sequence", "institution"], sort=False)
    typical = groups[["low", "median", "high"]].median()
    typical.insert(0, "patients", groups.size())
    typical = typical.sort_index().rename(columns={"low": "lower quartile", "high": "upper quartile"}).reset_index()
    text = ("Intensities of the pixels in the head as stored, before normalisation. MRI intensities have no unit and "
            "differ between scanners. Normalisation gives each volume median 0 and unit spread over the brain.")
    caption = ("Stored intensities by sequence and institution. A dot is the median of one patient's head. The orange "
               "line is the median of the dots. The bar extends from the median of the lower quartiles to the median "
               "of the upper quartiles. Missing sequences are excluded.")
    formats = dict.fromkeys(("lower quartile", "median", "upper quartile"), ".1f")
    numbers = table(typical, "Values of the orange lines and of the ends of the bars", formats)
    return [paragraph(text), cards(picture(folder / "intensities.png", caption)), numbers]


def missing_sequences(cases: pd.DataFrame) -> list[Markup]:
    incomplete = cases[cases["missing"].map(bool)]
    if incomplete.empty:
        return [paragraph("No patient has a missing sequence.")]
    counts = incomplete["missing"].explode().value_counts().sort_index()
    counts = ", ".join(f"{name} {count}" for name, count in counts.items())
    text = f"FLAIR replaces the missing sequences of {_patients(len(incomplete))} of {len(cases)} ({counts})."
    shown = incomplete[["patient", "institution"]].assign(missing=incomplete["missing"].map(" and ".join))
    return [paragraph(text), table(shown, "Patients with a missing sequence")]


def all_patients(cases: pd.DataFrame) -> list[Markup]:
    shown = pd.DataFrame({
        "patient": cases["patient"],
        "institution": cases["institution"],
        "grade": cases["grade"].map(GRADES.get),
        "age": cases["age"],
        "gender code": cases["gender"],
        "slices": cases["slices"],
        "tumour slices": cases["tumour_slices"],
        "tumour pixels": cases["tumour_pixels"],
        "share of head": cases["tumour_share"],
        "missing sequences": cases["missing"].map(lambda names: " and ".join(names) or None),
    })
    return [table(shown, f"All patients. {SORTING}", {"share of head": ".1%"})]


def _labelled(cases: pd.DataFrame, field: str) -> pd.Series:
    """Grades as Roman numerals, other codes as "code 1", missing values as "unknown"."""
    names = GRADES if field == "grade" else {}
    return cases[field].map(lambda value: "unknown" if pd.isna(value) else names.get(value, f"code {value:g}"))


def _summary(values, spec: str) -> str:
    """The median, the interquartile range and the range as text."""
    low, first, median, third, high = (format(value, spec) for value in np.percentile(values, [0, 25, 50, 75, 100]))
    return f"median {median}, interquartile range {first} to {third}, range {low} to {high}"


def _ratio(part: pd.Series, whole: pd.Series) -> str:
    return f"{part.sum() / max(whole.sum(), 1):.0%}"


def _patients(count: int) -> str:
    return f"{count} patient" if count == 1 else f"{count} patients"

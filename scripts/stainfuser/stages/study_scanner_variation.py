"""Study: how near do normalisers bring the same tissue from several scanners to one another?"""

from __future__ import annotations

from pathlib import Path

from stainfuser.diffusion.scanner_study import (
    AGREEMENT,
    COLOUR,
    FAN,
    LEAST_AGREEMENT,
    PHANTOM_SHIFTS,
    SHIFT,
    available_arms,
    measure_fan,
    measure_scanners,
    phantom_regions,
    read_regions,
)
from stainfuser.diffusion.study_numbers import (
    Measured,
    StudyNumbers,
    compared,
    draw_estimates,
    markdown_table,
    write_answer,
)
from stainfuser.diffusion.torch_threads import reproducible
from stainfuser.evaluation_arms import ARMS
from stainfuser.io.image_collection import is_mosaic, read_entry, read_split_table
from stainfuser.io.scanner_table import read_scanner_table
from stainfuser.logs import LOGGER

TABLE, PHANTOMS = "scanners of the table", "phantom scanners"
METRICS = {
    COLOUR: ("Colour error, \u0394E", 2),
    "psnr_truth": ("PSNR, dB", 1),
    "ssim_truth": ("SSIM", 3),
    "gradient_correlation_source": ("Gradient correlation with the source", 3),
}


def study_scanner_variation(
    *,
    split_path: str | Path,
    model_dir: str | Path,
    answer_path: str | Path,
    table_path: str | Path,
    figure_path: str | Path,
    images_dir: str | Path,
    scanners: str | None,
    fan_step: int,
    seed: int,
    bootstrap_samples: int,
    confidence: float,
    threads: int = 1,
) -> None:
    """Compare arms on scanners of the user's table, on phantoms, and on staining protocols.

    Parameters
    ----------
    split_path, images_dir
        Table of the real images and their folder: the mosaics of staining protocols. Where the
        folder has none, that part is not run and the answer says so.
    scanners
        The user's table, see `io.scanner_table`; None: that part is not run.
    fan_step
        Every so manieth pair of protocols is measured; 1: all.
    """
    with reproducible(threads):
        arms = available_arms(model_dir, seed, threads)
        rows = measure_scanners(phantom_regions(seed), arms, PHANTOMS)
        if scanners is not None:
            rows += measure_scanners(read_regions(read_scanner_table(scanners)), arms, TABLE)
        mosaics = _mosaics(split_path, images_dir)
        if len(mosaics) > 1:
            LOGGER.info("measuring %d blocks of nine protocols", len(mosaics))
            rows += measure_fan(mosaics, arms, fan_step)
    numbers = StudyNumbers(rows, seed, bootstrap_samples, confidence)
    numbers.write(table_path)
    panels = [(COLOUR, METRICS[COLOUR][0]), ("gradient_correlation_source", "Gradient correlation")]
    draw_estimates(figure_path, numbers, panels, list(arms))
    _write(answer_path, numbers, list(arms), rows)


def _mosaics(split_path: str | Path, images_dir: str | Path) -> list:
    entries = [entry for entry in read_split_table(split_path) if is_mosaic(entry.file)]
    known = [entry for entry in entries if (Path(images_dir) / entry.file).exists()]
    return [read_entry(images_dir, entry) for entry in known]


def _write(path: str | Path, numbers: StudyNumbers, arms: list[str], rows: list[Measured]) -> None:
    kinds = [kind for kind in (TABLE, PHANTOMS, FAN) if kind in numbers.names("data")]
    sections = [("What was run", "\n".join(_what_was_run(kinds))), ("Numbers", "")]
    tables = [_table(numbers, arms, kind) for kind in kinds]
    registered = [_registration(numbers, rows, kind) for kind in kinds if kind != FAN]
    sections[1] = ("Numbers", "\n\n".join([*tables, *registered]))
    sections.append(("Answer", "\n".join(_answers(numbers, arms, kinds))))
    limits = (
        "Two images of one section differ by the scanner alone, so what is left after registration "
        "and normalisation is error, interpolation and the scanners' own noise: no arm reaches "
        "zero. Phantom scanners follow the model that paints them. The protocols are of adjacent "
        "sections, compared by bands of lightness, and differ in staining more than in scanning. "
        "Of the regions of one table, as of the blocks, there are few: intervals hold for tissue "
        "and scanners like these."
    )
    sections.append(("What it does and does not show", limits))
    write_answer(path, "Real scanner variation", sections)


def _what_was_run(kinds: list[str]) -> list[str]:
    shifts = ", ".join(f"({dy}, {dx})" for dy, dx in PHANTOM_SHIFTS)
    lines = [
        "- Every ordered pair of scanners and every region: the source is one scanner's image, the "
        "reference another region by the other scanner, the truth the same region by that scanner, "
        "moved onto the source by phase correlation and cut to what both show.",
        f"- {PHANTOMS}: one protocol, scanners drawn at random, seen {shifts} px apart.",
    ]
    if TABLE not in kinds:
        lines.append("- No table of scanners was given (`studies.scanners`): not run.")
    if FAN in kinds:
        lines.append(
            "- fan protocols: five regions of each block in nine staining protocols; the reference "
            "is another block; lightness bands of the same regions are compared (CIEDE2000)."
        )
    else:
        lines.append("- fan protocols: not run, `operator_head.images` holds no mosaics.")
    return lines


def _table(numbers: StudyNumbers, arms: list[str], kind: str) -> str:
    known = [m for m in METRICS if any(numbers.mean(arm, kind, m).n for arm in arms)]
    body = [[arm, *(numbers.mean(arm, kind, m).text(METRICS[m][1]) for m in known)] for arm in arms]
    return f"**{kind}**\n\n" + markdown_table(["arm", *(METRICS[m][0] for m in known)], body)


def _registration(numbers: StudyNumbers, rows: list[Measured], kind: str) -> str:
    own = [row for row in rows if row.arm == "registration" and row.data == kind]
    shifts = [row.value for row in own if row.metric == SHIFT]
    left_out = [row.unit for row in own if row.metric == AGREEMENT and row.value < LEAST_AGREEMENT]
    text = (
        f"Registration, {kind}: moved by {min(shifts, default=0):.1f} to "
        f"{max(shifts, default=0):.1f} px, after which gradients correlate by "
        f"{numbers.mean('registration', kind, AGREEMENT).text(2)}."
    )
    return text + (f" Left out, not registered: {'; '.join(left_out)}." if left_out else "")


def _answers(numbers: StudyNumbers, arms: list[str], kinds: list[str]) -> list[str]:
    """Compare each arm with doing nothing, and the best classical one with the model's."""
    untouched = ARMS["identity"].label
    lines = []
    for kind in kinds:
        means = {arm: numbers.mean(arm, kind, COLOUR) for arm in arms}
        measured = [arm for arm in arms if means[arm].n]
        if not measured:
            lines.append(f"- {kind}: nothing could be registered, nothing was measured.")
            continue
        best = min(measured, key=lambda arm: means[arm].value)
        lines.append(f"- {kind}: the least colour error is that of {best}.")
        operator = ARMS["operator"].label
        peers = [ARMS[name].label for name in ("reinhard", "macenko", "vahadane")]
        if operator in measured:
            peer = min((arm for arm in peers if arm in measured), key=lambda arm: means[arm].value)
            lines.append(
                f"- {kind}, {operator} against the best classical method, {peer}: colour error "
                f"{compared(numbers.difference(operator, peer, kind, COLOUR), 2)}."
            )
        lines += [
            f"- {kind}, {arm} against {untouched}: colour error "
            f"{compared(numbers.difference(arm, untouched, kind, COLOUR), 2)}."
            for arm in measured
            if arm != untouched
        ]
    return lines

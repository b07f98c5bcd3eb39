"""The report: one page that opens from disk, asks no network, and answers first whether the student is worth having."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from lora_distill import __version__
from lora_distill.config import CONTROLS, role_noun
from lora_distill.data.wording import byte_size, counted, listing, points
from lora_distill.evidence import Evidence, gather
from lora_distill.reporting import figures
from lora_distill.reporting.pairs import pairs, settings_of
from lora_distill.reporting.ranking import rank_students, say_ranking
from lora_distill.reporting.sections import cost, section
from lora_distill.reporting.sentences import (
    ONE_CLASS,
    about_data,
    about_speed,
    has_one_class,
    no_better,
    one_line,
    only_answer,
    percent,
    remedy,
    roles_in,
    seeds_draw,
    unlearnt,
    warnings_of,
)
from lora_distill.reporting.summary import Experiment, summarise
from lora_distill.run_folder import REPORT, RunFolder
from lora_distill.store import write_bytes, write_text

TEMPLATE = "report.html.j2"
CAPTIONS = {
    "learning": "Accuracy on validation after each epoch.",
    "calibration": "On the dashed line, answers are right as often as they say.",
    "coverage": "Accuracy when only the rows are answered of which the model is surest.",
    "length": "Accuracy on texts of so many words, with 95% intervals.",
}


def write_report(
    path: Path,
    experiments: Mapping[str, Evidence],
    runs: Mapping[str, list[RunFolder]],
    figures_folder: Path | None = None,
    missing: Sequence[str] = (),
) -> int:
    """Write the page, and each plot of it as an SVG and a PNG file where a folder is given.

    Args:
        path: of the HTML file.
        experiments: the evidence, by experiment.
        runs: finished runs of each.
        figures_folder: is made if need be.
        missing: names of runs that belong to them and that the page cannot tell of.

    Returns:
        How many plots were written as files.
    """
    each = summarise(experiments, runs)
    settings = [settings_of(experiment) for experiment in each]
    overview, latency = figures.overview(each), figures.latency(each)
    sections = [section(experiment, each[0]) for experiment in each]
    effects = [(effect, list(effect.figures())) for effect in figures.effects(settings, each)]
    roles = roles_in(results for experiment in each for results in experiment.results)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "points": points,
        "one_line": one_line,
        "byte_size": byte_size,
        "flags": _flags,
        "counted": lambda number, role: counted(number, role_noun(role)),
        "svg": Markup,  # ElementTree has escaped it
    }
    page = environment.get_template(TEMPLATE).render(
        experiments=each,
        headline=headline(each),
        rankings=rank_students(each),
        roles=roles,
        controls=[control for control in CONTROLS if control in roles],
        overview=overview,
        latency=latency,
        effects=effects,
        sections=sections,
        cost=cost(each),
        pairs=pairs(each),
        notes=[*_missing(missing), *_notes(each)],
        captions=CAPTIONS,
        version=__version__,
    )
    write_text(path, page)
    if figures_folder is None:
        return 0
    plots = {"accuracy": overview} | ({"latency": latency} if latency else {})
    for number, (effect, drawn) in enumerate(effects, start=1):
        names = (f"{number} {kind} by {effect.setting}" for kind in ("accuracy", "difference"))
        plots |= dict(zip(names, drawn, strict=False))
    for number, one in enumerate(sections, start=1):  # two names may be one when they name files
        plots |= {f"{number} {one['experiment'].name} {kind}": svg for kind, svg in one["plots"].items() if svg}
    for name, svg in plots.items():
        stem = re.sub(r"[^\w.+-]+", "-", name)
        alone = figures.standalone(svg)
        write_text(figures_folder / f"{stem}.svg", alone)
        write_bytes(figures_folder / f"{stem}.png", figures.png(alone))
    return len(plots)


def write_own_report(run: RunFolder) -> None:
    """Write the page of one finished run, into its folder."""
    runs = {run.path.name: [run]}
    write_report(run.path / REPORT, gather(runs), runs)


def _flags(line: str) -> Markup:
    """A line with its flags set as code, which is not broken after their dashes."""
    return Markup(re.sub(r"--\w+", r'<code class="flag">\g<0></code>', str(escape(line))))  # noqa: S704 - what is no flag is escaped


def headline(experiments: list[Experiment]) -> list[str]:
    """What the page says first: whether distillation helped, which student is best, which may be as good for less."""
    runs = [results for each in experiments for results in each.results]
    if all(map(has_one_class, runs)):
        return [f"{ONE_CLASS[0].upper()}{ONE_CLASS[1:]}. Give test rows of every class."]
    if all(only_answer(results, "student") for results in runs):
        return [
            "Nothing was learnt: in every run the student puts all test rows into one class. Train for more epochs"
            " (--num_epochs), faster (--learning_rate), or on more rows."
        ]
    warned = _say_unlearnt(runs)
    if len(experiments) == 1:
        return [*warned, experiments[0].sentence]
    said = [*_say_findings(experiments), *say_ranking(experiments)]
    compared = [each for each in experiments if each.difference()] or experiments
    # A variation without a control that learnt nothing takes nothing from what the others show.
    concerns = any(unlearnt(results) for each in compared for results in each.results)
    return [*warned, *said] if concerns else [*said, *warned]


def _say_findings(experiments: list[Experiment]) -> list[str]:
    """In how many experiments distillation helped, of those that have a verdict; and which have none, and why."""
    asked = [each.finding for each in experiments if each.evidence.verdict]
    others = [f"{one_line(each.name)} ({each.finding})" for each in experiments if not each.evidence.verdict]
    if not asked:
        return ["Whether distillation helped cannot be said: each experiment has one seed, or no control."]
    helped, hurt, of_all = asked.count("helped"), asked.count("hurt"), counted(len(asked), "experiment")
    if helped or hurt:
        said = [f"Distillation helped in {helped} of {of_all}, and hurt in {hurt}."]
    else:
        said = [f"In none of {of_all} can these runs show that distillation helped, or hurt."]
    return [*said, f"Of others it cannot be said: {', '.join(others)}."] if others else said


def _say_unlearnt(runs: list[dict[str, Any]]) -> list[str]:
    """That models are no better than the commonest class, where some are: no difference between them means much."""
    found = [(results, roles) for results in runs if (roles := unlearnt(results))]
    if not found:
        return []
    results, roles = found[0]
    said, advice = no_better(results, roles), remedy(results, roles)
    where = ""
    if len(runs) > 1:
        where = f"in {len(found)} of {len(runs)} runs, as in {one_line(results['exp_name'])}: "
    lead = "teach" if any("teacher" in roles for _, roles in found) else "be compared"
    return [f"What has not learnt cannot {lead}: {where}{said}.", f"{advice[0].upper()}{advice[1:]}."]


def _missing(names: Sequence[str]) -> list[str]:
    """That runs which belong to these are not told of."""
    if not names:
        return []
    return [f"{counted(len(names), 'run')} of the suite failed, or did not run: {listing(map(one_line, names), 20)}."]


def _notes(experiments: list[Experiment]) -> list[str]:
    """What speaks against the figures, what they are of, and what they do not mean."""
    results = [result for each in experiments for result in each.results]
    lines = [*warnings_of(results), *about_data(results)]
    lines += seeds_draw({each.name: each.evidence for each in experiments})
    lines += about_speed((each.name, each.results[0]) for each in experiments)
    return list(dict.fromkeys(lines))

"""Results as tables for the terminal, and what they mean in words."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from lora_distill.config import CONTROLS, ROLES, Role
from lora_distill.data.wording import byte_size, points
from lora_distill.deployment.forms import MERGED
from lora_distill.reporting.sentences import (
    about_data,
    about_speed,
    differences_of_one_seed,
    interval,
    one_line,
    percent,
    roles_in,
    warnings_of,
)

if TYPE_CHECKING:
    from lora_distill.cache import Entry
    from lora_distill.model.budget import Fit
    from lora_distill.planning import Plan
    from lora_distill.tuning import TrialResult

ABSENT = "-"
OPERATORS_SHOWN = 12
TIMED_AS = {MERGED: "Merged models in fp32", "onnx": "ONNX graphs in fp32", "onnx-int8": "ONNX graphs in eight bits"}


def results_table(results: list[dict[str, Any]]) -> Table:
    """One row for each experiment.

    Args:
        results: what each metrics.json holds.
    """
    roles = roles_in(results)
    controls = [control for control in CONTROLS if control in roles]
    leads = (f"Student -\n{control}" for control in controls)
    headings = (
        *("Trainable\nof total\n(budget)", *(role.capitalize() for role in roles), *leads),
        *("Same as\nteacher", "Seconds"),
    )
    table = plain_table("Accuracy on the test split", "Experiment", *headings)
    for each in results:
        student = each["student"]
        compared = [each.get(f"student_minus_{control}") for control in controls]
        share = percent(student["trainable_parameters"]["total"] / student["budget"])
        table.add_row(
            Text(one_line(each["exp_name"])),
            f"{size_of(student)}\n({share})",
            *(percent(each[role]["test"]["accuracy"]) if role in each else ABSENT for role in roles),
            *(f"{points(one['accuracy'])}\n{interval(*one['interval'])}" if one else ABSENT for one in compared),
            percent(each["agreement"]["student_teacher"]["rate"]) if "agreement" in each else ABSENT,
            f"{each['seconds']:,.0f}",
        )
    return table


def size_of(facts: Mapping[str, Any]) -> str:
    """What is trained of a role's parameters, as far as something is, of how many in all."""
    trained, total = facts["trainable_parameters"], facts.get("total_parameters")  # answers in a file have neither
    said = f"{trained['total']:,}" if trained else ABSENT
    return f"{said}\nof {total / 1e6:.3g}M" if total else said


def explain(results: list[dict[str, Any]]) -> list[str]:
    """What the results table above means: a blank line, then a sentence or two a line.

    Args:
        results: what each metrics.json holds.
    """
    budgets = " or ".join(f"{budget:,}" for budget in sorted({each["student"]["budget"] for each in results}))
    lines = ["", *warnings_of(results)]
    compared = {each["exp_name"]: said for each in results if (said := differences_of_one_seed(each))}
    column = " Student - control: points, with a 95% interval for these models; one seed." if compared else ""
    lines.append(
        f"Trainable: the student's parameters, of all that it has and of a budget of {budgets}.{column} Same as"
        " teacher: test rows that both put in one class."
    )
    lines += [f"- {one_line(name)}: {line}" for name, said in compared.items() for line in said]
    lines += [*about_data(results), *about_speed((each["exp_name"], each) for each in results)]
    return list(dict.fromkeys(lines))


def role_table(results: dict[str, Any]) -> Table:
    """One row for each role of one experiment, judged on the test split.

    Args:
        results: what metrics.json holds.
    """
    data = results["data"]
    title = f"{one_line(results['exp_name'])}: {one_line(data['name'])}, {data['test_rows']:,} test rows"
    headings = ["Trainable\nof total", "LoRA", "Head", "Accuracy", "Macro F1", "NLL", "ECE", "Brier"]
    dropped = any("projector_parameters" in results.get(role, {}) for role in ROLES)
    if dropped:
        headings.insert(3, "Projector,\ndropped")
    timed = "seconds" in results["student"]  # an evaluation on other texts trains nothing
    table = plain_table(title, "Role", *headings, *(["Seconds"] if timed else []))
    for role in (role for role in ROLES if role in results):
        facts, test = results[role], results[role]["test"]
        parameters = facts["trainable_parameters"]
        table.add_row(
            role,
            size_of(facts),
            *(f"{parameters[part]:,}" if parameters else ABSENT for part in ("lora", "head")),
            *([f"{facts['projector_parameters']:,}" if "projector_parameters" in facts else ABSENT] if dropped else []),
            *(percent(test[metric]) for metric in ("accuracy", "macro_f1")),
            *(f"{test[metric]:.4f}" for metric in ("nll", "ece", "brier")),
            *([f"{facts['seconds']:,.0f}"] if timed else []),
        )
    return table


def class_table(results: dict[str, Any]) -> Table:
    """Precision, recall and F1 of each class and role, on the test split.

    Args:
        results: what metrics.json holds.
    """
    roles = [role for role in ROLES if role in results]
    headings = (f"{role.capitalize()}\n prec   rec    F1" for role in roles)
    table = plain_table("Each class, in percent", "Class", "Rows", *headings)
    for name in results["data"]["label_names"]:
        scores = [results[role]["test"]["per_class"][name] for role in roles]
        cells = (" ".join(f"{100 * score[part]:5.1f}" for part in ("precision", "recall", "f1")) for score in scores)
        table.add_row(Text(one_line(name)), f"{scores[0]['support']:,}", *cells)
    return table


def budget_table(fits: list["Fit"], base_model: str, budget: int) -> Table:
    """One row for each way to adapt a student, the one that spends most of the budget first, then those over it."""
    title = f"Students of {one_line(base_model)} within {budget:,} trainable parameters"
    table = plain_table(
        title, "--target_modules", "--student_\ntarget_layers", "--student_\nlora_r", "LoRA", "Head", "Total", "Spent"
    )
    for fit in fits:
        count = fit.count
        numbers = (f"{number:,}" for number in (count.lora, count.head, count.total))
        rank, style = (str(fit.rank), "") if fit.rank else (ABSENT, "dim")
        table.add_row(
            ",".join(fit.modules), str(fit.layers), rank, *numbers, percent(count.total / budget), style=style
        )
    return table


def plan_table(plan: "Plan") -> Table:
    """One row for each run that is not finished: which of its roles it trains, and what it takes from others."""
    roles = roles_in(run.artefacts for run in plan.runs)
    table = plain_table("What would run", "Run", *(role.capitalize() for role in roles), "Seconds")
    for run in plan.runs:
        cells = ("trained" if role in run.trains else "shared" if run.artefacts.get(role) else ABSENT for role in roles)
        table.add_row(Text(one_line(run.name)), *cells, f"{run.seconds:,.0f}")
    return table


def trials_table(results: list["TrialResult"], role: Role) -> Table:
    """One row for each trial of a search for a role."""
    table = plain_table(
        f"Trials of the {role}, judged on validation", "Trial", *results[0].settings, "State", "NLL", "Accuracy"
    )
    for each in results:
        table.add_row(
            str(each.number + 1),
            *(Text(f"{value:.4g}" if isinstance(value, float) else str(value)) for value in each.settings.values()),
            f"{each.state}\n{each.message}" if each.state == "over budget" else each.state,
            ABSENT if each.nll is None else f"{each.nll:.4f}",
            ABSENT if each.accuracy is None else percent(each.accuracy),
        )
    return table


def cache_table(entries: list["Entry"]) -> Table:
    """One row for each entry of the cache, the one that was used longest ago first."""
    table = plain_table("The cache, longest unused first", "Entry", "Last used", "Size")
    for entry in entries:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.last_used))
        table.add_row(Text(one_line(entry.title)), used, byte_size(entry.size))
    return table


def profile_tables(profile: dict[str, Any]) -> list[Table]:
    """Where a run's time went: by stage, and within a training step of each role that was trained.

    Args:
        profile: what profile.json holds.
    """
    total = profile["stages"]["total"]
    stages = plain_table("Where the time went", "Stage", "Seconds", "Share")
    named = {name: seconds for name, seconds in profile["stages"].items() if name != "total"}
    for name, seconds in [*named.items(), ("other", total - sum(named.values())), ("total", total)]:
        stages.add_row(name, f"{seconds:,.1f}", percent(seconds / total))
    tables = [stages]
    for role, operators in profile["operators"].items():
        table = plain_table(f"A training step of the {role}", "Operator", "Calls", "Milliseconds", "Share")
        for each in operators[:OPERATORS_SHOWN]:
            table.add_row(
                Text(each["name"]), f"{each['calls']:.0f}", f"{1000 * each['seconds']:,.2f}", percent(each["share"])
            )
        tables.append(table)
    return tables


def plain_table(title: str, first: str, *others: str) -> Table:
    """Names on the left, which may fold, and numbers on the right, which may not."""
    table = Table(title=Text(f"\n{title}"), box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    table.add_column(first, overflow="fold")
    for heading in others:
        table.add_column(Text(heading), justify="right", no_wrap=True)
    return table


def speed_table(measured: dict[str, Any]) -> Table:
    """What answering takes of teacher and student.

    Args:
        measured: as `deployment.speed.measure_speed` has it.
    """
    timed = TIMED_AS[measured["form"]]
    title = f"{timed} on {measured['device']}: milliseconds of a batch, median (95th percentile)"
    table = plain_table(title, "Threads", "Texts", "Batch", "Tokens", "Teacher", "Student", "Teacher/student")
    for timing in measured["timings"]:
        teacher, student = timing["teacher"], timing["student"]
        table.add_row(
            *(str(timing["threads"]), timing["texts"], str(timing["batch"]), f"{student['tokens']:,.0f}"),
            *(f"{1000 * each['median']:,.1f} ({1000 * each['p95']:,.1f})" for each in (teacher, student)),
            f"{teacher['median'] / student['median']:.2f}",
        )
    return table


def explain_speed(measured: dict[str, Any], results: dict[str, Any]) -> list[str]:
    """What there is of teacher and student, trained and in all, and what that does to their speed.

    Args:
        measured: as `deployment.speed.measure_speed` has it.
        results: what metrics.json holds.
    """
    lines = []
    for role, size in measured["models"].items():
        trained = results[role]["trainable_parameters"]
        number = f"{trained['total']:,}" if trained else "no"
        lines.append(
            f"{role.capitalize()}: {number} trained parameters of {size['total_parameters']:,} in all,"
            f" {size['multiply_adds'] / 1e6:,.1f} million multiply-adds a token,"
            f" {byte_size(size['weight_bytes'])} of weights in fp32."
        )
    return [*lines, *about_speed([("", results)])]

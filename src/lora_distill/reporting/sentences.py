"""Numbers as people read them, and what may be said of them: the same words in tables and model cards."""

import math
import re
from collections.abc import Callable, Container, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from lora_distill.config import CONTROLS, ROLES, Config, Role
from lora_distill.data.wording import counted, listed, points
from lora_distill.evaluation.enough import LEAST_DISCORDANT, missing

if TYPE_CHECKING:
    from lora_distill.evidence import Evidence

FEW_TEST_ROWS, FEW_STEPS = 30, 100


def one_line(text: str) -> str:
    """A user's text without line breaks and control characters."""
    return re.sub(r"[\s\x00-\x1f\x7f-\x9f]+", " ", text).strip()


def literal(text: str) -> str:
    """A user's text on one line of Markdown, taken literally, in a table too."""
    return re.sub(r"([\\`*_\[\]<>|~&$])", r"\\\1", one_line(text))


def percent(share: float) -> str:
    """`97.08%`."""
    return f"{100 * share:.2f}%"


def interval(low: float, high: float, said: Callable[[float], str] = points) -> str:
    """`[-0.69, +1.14]`, in percentage points, or as it is said otherwise."""
    return f"[{said(low)}, {said(high)}]"


def with_interval(found: tuple[float, float, float] | None, said: Callable[[float], str] = percent) -> str:
    """`97.08% [95.07%, 98.29%]`, a figure and the ends of its interval; empty where there is none."""
    return f"{said(found[0])} {interval(*found[1:], said)}" if found else ""


def roles_in(results: Iterable[Container[str]]) -> list[Role]:
    """The roles to be shown beside each other: the self-trained student where there is one."""
    every = list(results)
    return [role for role in ROLES if role != "self-trained" or any(role in each for each in every)]


def differences_of_one_seed(results: Mapping[str, Any]) -> list[str]:
    """Student minus each control, in words; none without a control.

    Args:
        results: what metrics.json holds.
    """
    said = []
    for control in CONTROLS:
        if found := results.get(f"student_minus_{control}"):
            apart = f", the same {found['apart']}," if found.get("apart") else ""
            lead = f"{points(found['accuracy'])} points {interval(*found['interval'])}"
            said.append(f"student - {control}{apart} {lead}: {verdict(found, control)}")
    return said


def verdict(comparison: dict[str, Any], control: str = "control") -> str:
    """What student minus a control (`student_minus_control` of metrics.json) allows, and what a verdict lacks.

    Args:
        comparison: of the two.
        control: which of `CONTROLS` it is with.
    """
    low, high = comparison["interval"]
    p, student, other = comparison["p_value"], comparison["only_student_right"], comparison["only_control_right"]
    if student + other < LEAST_DISCORDANT:
        finding = "too few rows differ to tell"
    elif low <= 0 <= high:
        finding = "no difference beyond chance"
    elif p < 0.05:
        finding = "a difference beyond chance"
    else:
        finding = "at the edge of chance: the interval leaves zero out, the test does not"
    evidence = f"p = {p:.2g}; the student alone is right on {counted(student, 'row')}, the {control} alone on {other:,}"
    return f"{finding} ({evidence}); {missing(1, comparison['rows'], student + other)}."


def standard_error(accuracy: float, rows: int) -> str:
    """How uncertain an accuracy is for want of rows: the binomial standard error, in points.

    It is 0 where all rows are right or all are wrong; the exact one-sided bound (Clopper and Pearson, The Use of
    Confidence or Fiducial Limits Illustrated in the Case of the Binomial, Biometrika 26, 1934) is said then.
    """
    few = f"; fewer than {FEW_TEST_ROWS} test rows say next to nothing" if rows < FEW_TEST_ROWS else ""
    measured = f"an accuracy of {percent(accuracy)} on {counted(rows, 'test row')}"
    bound = 0.05 ** (1 / rows)
    if accuracy == 1:
        return f"{measured} shows, with 95% confidence, a true one above {percent(bound)}{few}"
    if accuracy == 0:
        return f"{measured} shows, with 95% confidence, a true one below {percent(1 - bound)}{few}"
    return f"{measured} has a standard error of {100 * math.sqrt(accuracy * (1 - accuracy) / rows):.2f} points{few}"


def baseline(results: dict[str, Any]) -> tuple[str, float]:
    """The commonest class of the test rows, and the accuracy of always answering it."""
    rows = [sum(row) for row in results["student"]["test"]["confusion"]]
    return one_line(results["data"]["label_names"][rows.index(max(rows))]), max(rows) / sum(rows)


def only_answer(results: dict[str, Any], role: str) -> str | None:
    """The class that a role puts every test row into; None: it knows more than one."""
    answers = [sum(column) for column in zip(*results[role]["test"]["confusion"], strict=True)]
    most = max(answers)
    return str(results["data"]["label_names"][answers.index(most)]) if most == sum(answers) else None


ONE_CLASS = "the test rows have one class only, so that nothing can be judged"


def has_one_class(results: dict[str, Any]) -> bool:
    """Whether all test rows are of one class, so that a model that always answers it is right on all."""
    return baseline(results)[1] == 1


def unlearnt(results: dict[str, Any]) -> list[Role]:
    """The roles that are no better than who always answers the commonest class; none where there is one class only.

    They are no more often right, nor with classes weighed alike: on rows that are mostly of one class, who knows the
    others too may be less often right than who does not.
    """
    share = baseline(results)[1]

    def is_no_better(test: dict[str, Any]) -> bool:
        recalls = [row[label] / sum(row) for label, row in enumerate(test["confusion"]) if any(row)]
        return bool(test["accuracy"] <= share and sum(recalls) <= 1)  # of one constant answer: 1, and else zeros

    return [role for role in ROLES if share < 1 and role in results and is_no_better(results[role]["test"])]


def no_better(results: dict[str, Any], roles: list[Role]) -> str:
    """That some roles are no better than the commonest class, in a clause."""
    known = listed([f"the {role}" for role in roles])
    return f"{known} {'is' if len(roles) == 1 else 'are'} no better than always answering {baseline(results)[0]!r}"


def remedy(results: dict[str, Any], roles: list[Role]) -> str:
    """What to do about roles that have learnt nothing, from what is known of their training, in a clause."""
    trained = {role: results[role] for role in roles if results[role]["trainable_parameters"] is not None}
    if not trained:
        return "it was not trained here: give another teacher"
    known = {role: facts for role, facts in trained.items() if "steps" in facts}
    if not known:  # several teachers
        return "give more --teacher_num_epochs, or a higher --teacher_learning_rate"
    role = min(known, key=lambda role: int(known[role]["steps"]))
    least = known[role]
    whose = f" of the {role}" if len({facts["steps"] for facts in known.values()}) > 1 else ""
    took = f"{counted(least['steps'], 'step')} of training{whose} ({counted(least['epochs'], 'epoch')})"

    def flag(setting: str, fact: str) -> str:
        """Of the role alone, where it is about no other or the student's is another."""
        own, differs = f"{role}_{setting}", least[fact] != results["student"][fact]
        return f"--{own}" if own in Config.model_fields and (differs or len(trained) == 1) else f"--{setting}"

    few, rate = least["steps"] < FEW_STEPS, f"{flag('learning_rate', 'learning_rate')} than {least['learning_rate']:g}"
    if few or least["still_learning"]:
        lack = "is little" if few else "ended while validation still got better"
        return f"{took} {lack}: give more {flag('num_epochs', 'epochs')}, or a higher {rate}"
    return f"{took} came to nothing: try another {rate}, another --base_model, or more rows"


def doubts(results: dict[str, Any]) -> list[str]:
    """What speaks against roles that look good: one answer to everything, or nothing learnt that could be taught."""
    if has_one_class(results):
        return [ONE_CLASS]
    said = [
        f"the {role} puts every test row into {one_line(only)!r}"
        for role in ROLES
        if role in results and (only := only_answer(results, role))
    ]
    if roles := unlearnt(results):
        said += [no_better(results, roles), remedy(results, roles)]
    if "teacher" not in results:  # it is a file that does not answer these rows
        return said
    teacher, control = (results[role]["test"]["accuracy"] if role in results else 0 for role in ("teacher", "control"))
    if teacher < control:
        said.append("the teacher is less often right than the control")
    return said


def same_backbone(results: dict[str, Any]) -> bool:
    """Whether student and teacher, one model each, are known to share one; of a given teacher it is not known."""
    same: bool = results["same_backbone"] and "members" not in results.get("teacher", {})
    return same


SPEED = (
    "Merged, the student is exactly as fast as its teacher: fewer trainable parameters save training and storage only."
)

FASTER = "What makes a student faster is fewer layers or narrower ones, not fewer trained parameters."


def about_speed(named: Iterable[tuple[str, dict[str, Any]]]) -> list[str]:
    """What holds of the speed of students: each sentence once, and whose it is where it is not of all.

    Args:
        named: what metrics.json holds, by the name of its run or experiment.
    """
    every = list(named)
    alike = [one_line(name) for name, results in every if same_backbone(results)]
    if len(alike) == len(every):
        return [SPEED]
    return [*([f"{', '.join(alike)}: {SPEED}"] if alike else []), FASTER]


def warnings_of(results: list[dict[str, Any]]) -> list[str]:
    """What was not as it was asked for, or cannot be trusted."""
    lines = [f"SUBSTITUTED: {one_line(fallback)}." for each in results for fallback in each["fallbacks"]]
    for each in results:
        doubted = [one_line(note) for note in each["data"]["notes"] if note.startswith("teacher:")] + doubts(each)
        if doubted:
            lines.append(f"WARNING: {one_line(each['exp_name'])}: {'; '.join(doubted)}.")
    return lines


def about_data(results: list[dict[str, Any]]) -> list[str]:
    """Once for each test split: how uncertain its test is, what is no merit, and what its rows and labels are."""
    first: dict[tuple[Any, ...], dict[str, Any]] = {}
    for each in results:
        tested = each["data"]["name"], each["data"]["source"].get("revision"), each["data"]["test_rows"]
        first.setdefault(tested, each)
    lines = []
    for each in first.values():
        data, (commonest, share) = each["data"], baseline(each)
        whose = f"for the student of {one_line(each['exp_name'])}, " if len(results) > 1 else ""
        facts = [
            whose + standard_error(each["student"]["test"]["accuracy"], data["test_rows"]),
            f"always answering {commonest!r} gets {percent(share)}",
            *(
                one_line(note) for note in data["notes"] if note.startswith(("test:", "labels:"))
            ),  # cards hold the others
        ]
        lines.append(f"{one_line(data['name'])}: {'; '.join(facts)}.")
    return lines


def seeds_draw(evidence: Mapping[str, "Evidence"]) -> list[str]:
    """What another seed would change, and what it would not: in a sentence, or one for each group of experiments.

    Args:
        evidence: by experiment; what is said is of those with several seeds.
    """
    said: dict[str, list[str]] = {}
    for name, each in evidence.items():
        if len(each.seeds) > 1:
            kept = listed(each.seed_keeps)
            but = f", but not {kept}: all is said for what it leaves as it is" if kept else ""
            said.setdefault(f"A seed draws {listed(each.seed_draws)}{but}.", []).append(one_line(name))
    if len(said) < 2:
        return list(said)
    return [f"{', '.join(names)}: {sentence}" for sentence, names in said.items()]

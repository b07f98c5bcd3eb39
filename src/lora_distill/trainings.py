"""What an experiment trains, or reads of a teacher that was given, by role."""

from lora_distill.config import Role
from lora_distill.data.tokens import Tokens
from lora_distill.preparation import Prepared
from lora_distill.store import Artefact
from lora_distill.training.filed_teacher import FiledTeacher
from lora_distill.training.loop import Observer
from lora_distill.training.outcome import Outcome
from lora_distill.training.role import RoleTraining
from lora_distill.training.self_taught import SelfTaughtTeacher
from lora_distill.training.several import SeveralTeachers, teachers
from lora_distill.training.teacher_reading import TeacherReading

Model = RoleTraining | TeacherReading  # what computes
Training = Model | SeveralTeachers | SelfTaughtTeacher | FiledTeacher


def trainings(prepared: Prepared) -> dict[Role, Training]:
    """What an experiment trains or reads, by role and in the order in which one learns from another."""
    config, dataset, plan, cache = prepared.config, prepared.dataset, prepared.plan, prepared.cache

    def training(
        role: Role, teacher: Artefact | None = None, control: Artefact | None = None, *, teaches: bool = False
    ) -> RoleTraining:
        return RoleTraining(role, config, dataset, prepared.base_of(role), plan, cache, teacher, control, teaches)

    teacher: Training
    if prepared.given_teacher:
        teacher = TeacherReading(prepared.given_teacher, config, dataset, plan, cache)
    elif prepared.answers:
        teacher = FiledTeacher(prepared.answers, config, dataset)
    else:
        teacher = first = teachers(training("teacher", teaches=True))
        if config.teacher_self_training:
            teacher = SelfTaughtTeacher(first, training("teacher", first.artefact(), teaches=True))
    roles: dict[Role, Training] = {"teacher": teacher}
    if config.no_control:
        return roles | {"student": training("student", teacher.artefact())}
    has_unlabelled = dataset.unlabelled is not None
    control = training("control", teaches=has_unlabelled or config.learn_from == "both")
    if config.learn_from == "both":
        roles |= {"control": control, "student": training("student", teacher.artefact(), control.artefact())}
    else:
        roles |= {"student": training("student", teacher.artefact()), "control": control}
    if has_unlabelled:  # of what these texts bring, self-training shows how much needs no teacher
        roles["self-trained"] = training("self-trained", control.artefact())
    return roles


def run_training(
    prepared: Prepared, training: Training, since: float, observe: Observer, *, judged: bool = True
) -> Outcome:
    """Train or read it, unless the store has it already.

    Args:
        prepared: the experiment.
        training: of one of its roles.
        since: what was made before that moment, in seconds since the epoch, is made again.
        observe: of its training, if it is trained.
        judged: whether it answers the test split.
    """
    splits = splits_of(prepared, training)
    if not judged:
        splits.pop("test", None)
    if isinstance(training, RoleTraining | SeveralTeachers | SelfTaughtTeacher):
        return training.run(splits, since=since, observe=observe)
    return training.run(splits, since=since)


def splits_of(prepared: Prepared, training: Training) -> dict[str, Tokens]:
    """Every split as a training's own tokenizer reads it; none where it reads no tokens."""
    names = prepared.dataset.splits()
    if isinstance(training, FiledTeacher):
        return {}
    if isinstance(training, TeacherReading):
        return prepared.tokenised(training.given.tokenizer_folder, training.given.fingerprint, names)
    return prepared.tokenised(training.base.folder, training.base.whole.fingerprint, names)


def models_of(training: Training, splits: dict[str, Tokens]) -> list[tuple[Model, dict[str, Tokens]]]:
    """The models that a training is made of, each with what it reads of these splits."""
    if isinstance(training, SelfTaughtTeacher):
        return [*models_of(training.first, splits), (training.last, splits)]
    if isinstance(training, SeveralTeachers):
        return [(member.training, member.reads(splits)) for member in training.members]
    return [] if isinstance(training, FiledTeacher) else [(training, splits)]

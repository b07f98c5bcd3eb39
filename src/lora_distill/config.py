"""Every knob of an experiment, once: typed, bounded, documented. Flags and YAML keys are made from it."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from lora_distill.data.long_text import LongText
from lora_distill.errors import UserError
from lora_distill.faults import make_settings
from lora_distill.home import expanded
from lora_distill.presets import PRESETS, Preset, with_preset

Role = Literal["teacher", "student", "control", "self-trained"]
Keep = Literal["first", "spread", "last"]
ALL_LINEAR = "all-linear"  # PEFT's name for every linear module of a layer
ATTENTION = "attention"  # query, key, value and the output projection
WITHOUT_BUDGET = {"student_budget": 10**12}  # a setting that is as good as none
ROLES: tuple[Role, ...] = get_args(Role)
CONTROLS: tuple[Role, ...] = ("control", "self-trained")  # what a student is compared with
# What is at work where a student differs from a control, and what that control is.
TOLD: dict[Role, tuple[str, str]] = {
    "control": ("Distillation", "the same student without a teacher"),
    "self-trained": ("The teacher", "the same student taught by what it learned without one"),
}


def role_noun(role: Role) -> str:
    """A role as something of which there may be several."""
    return "self-trained student" if role == "self-trained" else role


def _split_commas(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _read_pairs(value: object) -> object:
    """`a=b,c=d` from the command line; YAML gives a mapping already."""
    if not isinstance(value, str):
        return value
    pairs = [part.partition("=") for part in value.split(",") if part.strip()]
    if any(not separator for _, separator, _ in pairs):
        raise ValueError("write it as theirs=ours,theirs=ours; labels with commas as a mapping in a --config file")
    found = {theirs.strip(): ours.strip() for theirs, _, ours in pairs}
    if len(found) < len(pairs):
        raise ValueError("each of theirs may be named once")
    return found


def _read_ranks(value: object) -> object:
    """`8=4,9=8` from the command line; YAML gives a mapping already."""
    if not isinstance(value, str):
        return value
    parts = [part.strip() for part in value.split(",") if part.strip()]
    found = [re.fullmatch(r"(\d+) *= *([1-9]\d*)", part) for part in parts]
    pairs = {int(match[1]): int(match[2]) for match in found if match}
    if len(pairs) < len(parts):
        raise ValueError("write it as layer=rank,layer=rank, each layer once")
    return pairs


def _check_folder_name(value: str) -> str:
    # Bytes, because file systems count those; they take 255, and what lies beside a run has a longer name.
    if value and (not re.fullmatch(r"\w[^/\\]*", value) or len(value.encode()) > 200):
        raise ValueError(
            "must name one folder: no / or \\, a letter, a digit or _ at its beginning, at most 200 bytes of UTF-8"
        )
    return value


def _expand(value: str) -> str:
    try:
        return str(expanded(value)) if value.startswith("~") else value
    except UserError as error:
        raise ValueError(f"is no place: {error}") from None


FolderName = Annotated[str, AfterValidator(_check_folder_name)]
Names = Annotated[tuple[str, ...], BeforeValidator(_split_commas)]
Pairs = Annotated[dict[str, str], BeforeValidator(_read_pairs)]
PositiveInt = Annotated[int, Field(ge=1)]
Ranks = Annotated[dict[Annotated[int, Field(ge=0)], PositiveInt], BeforeValidator(_read_ranks)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
OpenShare = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Config(BaseModel):
    """One experiment: a teacher, a student and a control on one data set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    exp_name: FolderName = Field("", description="name of the run's folder; made from the settings when empty")
    output_dir: Annotated[str, AfterValidator(_expand)] = Field(
        "outputs/lora_distillation", min_length=1, description="folder that the runs lie in"
    )
    seed: int = Field(0, ge=0, description="seed of every random draw")

    preset: Preset | None = Field(
        None,
        description=f"settings that go together, by what they are for: {', '.join(PRESETS)}; those that are given win",
    )
    base_model: str = Field(
        "roberta-base", min_length=1, description="pretrained encoder: a hub name, a folder, or minilm"
    )
    base_depth: PositiveInt | None = Field(
        None, description="use the first layers of the base model only, this many; all when empty"
    )
    student_base_model: str | None = Field(
        None, min_length=1, description="the encoder of student and control, if it is another than the teacher's"
    )
    student_depth: PositiveInt | None = Field(
        None, description="cut the encoder of student and control to this many layers; as it is when empty"
    )
    student_keep: Keep = Field(
        "spread", description="which layers --student_depth keeps: some from first to last, the first, or the last"
    )
    dataset: str = Field(
        "ag_news",
        min_length=1,
        description="a hub name, ag_news, bbc_news, a CSV/TSV/JSONL/Parquet file, or a folder with train.* in it",
    )
    text_column: str = Field("text", min_length=1, description="column of the texts")
    text_pair_column: str | None = Field(
        None,
        min_length=1,
        description="column of a second text, where rows are pairs that are judged together: entailment, duplicates",
    )
    label_column: str = Field("label", min_length=1, description="column of the labels")
    max_length: int = Field(128, ge=4, description="tokens that a model reads at once")
    long_text: LongText = Field(
        "truncate",
        description="what is read of a text with more tokens: its beginning, its beginning and its end, or all of it in"
        " chunks, whose logits are averaged",
    )
    max_train_rows: PositiveInt | None = Field(None, description="train on this many rows, drawn stratified")
    labels_per_class: PositiveInt | None = Field(None, description="train on this many rows of each class")
    unlabelled: str | None = Field(
        None,
        min_length=1,
        description="texts without labels, from which a student learns what its teacher says of them: named as a"
        " dataset is",
    )
    labelled_per_batch: PositiveInt = Field(
        8, description="rows with labels in each batch of a student that reads --unlabelled texts, too"
    )
    validation_fraction: OpenShare = Field(0.1, description="share of train kept for validation")
    test_fraction: OpenShare = Field(0.2, description="share kept for the test where the data has no test split")

    teacher_lora_r: PositiveInt = Field(16, description="rank of the teacher's adapter")
    teacher_lora_alpha: PositiveInt = Field(32, description="the teacher's LoRA alpha (scale = alpha / rank)")
    teacher_target_layers: PositiveInt = Field(8, description="layers that the teacher adapts")
    teacher_rank_pattern: Ranks = Field(
        {}, description="the teacher's adapted layers that have another rank, as --student_rank_pattern"
    )
    student_lora_r: PositiveInt = Field(8, description="rank of the student's adapter")
    student_lora_alpha: PositiveInt = Field(16, description="the student's LoRA alpha (scale = alpha / rank)")
    student_target_layers: PositiveInt = Field(6, description="layers that the student adapts")
    student_rank_pattern: Ranks = Field(
        {},
        description="adapted layers, counted from 0, that have another rank, as 10=4,11=16; their scale is the others',"
        " or with --use_rslora what their own rank makes of alpha",
    )
    student_budget: PositiveInt = Field(
        1_000_000, description="limit of the student's trainable parameters, LoRA and head together"
    )
    target_modules: Names = Field(
        (),
        description=f"linear modules to adapt, by name; {ALL_LINEAR}: each; empty: the attention's query, key and"
        f" value; {ATTENTION}: its output projection, too",
    )
    use_rslora: bool = Field(False, description="scale LoRA by alpha / sqrt(rank), as rsLoRA does, not alpha / rank")
    use_dora: bool = Field(
        False, description="train lengths and directions of the adapted weights apart, as DoRA does; slower"
    )
    lora_dropout: float = Field(0.1, ge=0, lt=1, allow_inf_nan=False, description="dropout before LoRA's A")
    layer_placement: Literal["first", "last"] = Field(
        "last", description="adapt the first or the last layers of the encoder"
    )

    alpha: Share = Field(0.5, description="weight of the soft loss; 1 - alpha is the hard loss's")
    temperature: PositiveFloat = Field(2.0, le=1000, description="temperature of teacher and student in the soft loss")
    soft_loss: Literal["kl", "mse"] = Field(
        "kl", description="how a student is held to its teacher: by divergence, or by its logits, without temperature"
    )
    pooled_weight: NotNegativeFloat = Field(
        0.0,
        description="weight of the distance from the teacher's last layer, of the vector that its head reads; 0: none",
    )
    teacher_checkpoint: str | None = Field(
        None,
        min_length=1,
        description="a run, a PEFT adapter or a whole classifier to use as the teacher; none is trained",
    )
    teacher_label_map: Pairs = Field(
        {}, description="a given teacher's label names for the data's, as theirs=ours,theirs=ours"
    )
    teacher_predictions: str | None = Field(
        None,
        min_length=1,
        description="a CSV/TSV/JSONL/Parquet file of a teacher's answers by text: probabilities, logits or labels;"
        " none is trained",
    )
    teacher_ensemble: PositiveInt = Field(
        1, description="teachers that differ in their seed alone; a student learns from the mean of their probabilities"
    )
    teacher_fit: Literal["whole", "crossfit"] = Field(
        "whole",
        description="what a teacher learns from: all training rows, or, once for each fold, those of the others, so"
        " that it labels rows that it has not seen",
    )
    teacher_folds: int = Field(5, ge=2, description="folds of --teacher_fit crossfit")
    teacher_self_training: bool = Field(
        False,
        description="train the teacher a second time, with what it said of the --unlabelled texts, as a student learns;"
        " the rows that --teacher_fit crossfit keeps from a teacher it has seen",
    )
    teacher_calibrate: bool = Field(
        False,
        description="divide a teacher's logits by the temperature that fits them to rows that it has not seen, before a"
        " student learns from them",
    )
    no_control: bool = Field(False, description="do not train the same student without the teacher")
    learn_from: Literal["teacher", "both"] = Field(
        "teacher",
        description="whom a student learns from; both: the mean of the teacher's and the control's probabilities,"
        " unless validation is likelier by the teacher's alone",
    )

    class_weights: Literal["none", "balanced"] = Field(
        "none", description="of the labels in the hard loss; balanced: each class counts as much as another"
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, allow_inf_nan=False, description="share of each label that goes to all classes alike"
    )
    learning_rate: PositiveFloat = Field(2e-4, description="peak learning rate of AdamW")
    teacher_learning_rate: PositiveFloat | None = Field(None, description="the teacher's, if it is another")
    control_learning_rate: PositiveFloat | None = Field(None, description="the control's, if it is another")
    batch_size: PositiveInt = Field(32, description="rows in a step")
    num_epochs: PositiveInt = Field(10, description="passes over the training rows")
    teacher_num_epochs: PositiveInt | None = Field(None, description="the teacher's, if they are others")
    control_num_epochs: PositiveInt | None = Field(None, description="the control's, if they are others")
    min_steps: int = Field(0, ge=0, description="steps of each training at least, in whole epochs: few rows make few")
    lora_plus_ratio: float = Field(
        1.0, ge=1, allow_inf_nan=False, description="LoRA's B learns at the learning rate times this, as in LoRA+"
    )
    weight_decay: NotNegativeFloat = Field(0.01, description="AdamW's weight decay (biases and norms: none)")
    warmup_ratio: Share = Field(0.06, description="share of the steps in which the learning rate rises")
    lr_schedule: Literal["linear", "cosine", "constant"] = Field(
        "linear", description="how the learning rate goes down after the warm-up"
    )
    max_grad_norm: PositiveFloat = Field(1.0, description="gradients are clipped to this norm")
    keep_epoch: Literal["best", "last"] = Field(
        "best", description="which epoch's weights are kept: the best on validation, or the last"
    )
    early_stopping_patience: int = Field(
        0, ge=0, description="stop after this many epochs without a better one on validation; 0: never"
    )
    logging_steps: PositiveInt = Field(10, description="steps between two lines of history.jsonl")

    report_to: Literal["none", "tensorboard", "mlflow", "trackio", "wandb"] = Field(
        "none", description="tracker that is told of the training while it runs"
    )
    cache_limit: ByteSize | None = Field(
        None,
        description="bytes (or 500MB, 20GB) that the cache of frozen layers' outputs may take; half of the free disk,"
        " at most 20GiB, when empty; 0: none",
    )
    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="auto, cpu, mps, cuda or cuda:N")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="of training; auto: bf16 where the processor computes it in hardware"
    )

    @property
    def roles(self) -> tuple[Role, ...]:
        """What the experiment trains, in the order of results."""
        if self.no_control:
            return ROLES[:2]
        return ROLES if self.unlabelled else ROLES[:3]

    @property
    def teacher_is_given(self) -> bool:
        """Whether the teacher is there already, as a model or as a file of its answers, and none is trained."""
        return bool(self.teacher_checkpoint or self.teacher_predictions)

    def own(self, name: str, role: Role) -> Any:  # noqa: ANN401 - as the setting's
        """A setting of the training as a role has it: teacher and control may have another than the student."""
        own = getattr(self, f"{role}_{name}", None)
        return getattr(self, name) if own is None else own

    def is_default(self, name: str) -> bool:
        """Whether a setting has the value that it has when it is not given."""
        return bool(getattr(self, name) == type(self).model_fields[name].default)

    @model_validator(mode="before")
    @classmethod
    def _with_preset(cls, values: object) -> object:
        return with_preset(values) if isinstance(values, dict) else values

    @field_validator("*", mode="before")
    @classmethod
    def _check_kind(cls, value: object, info: ValidationInfo) -> object:
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError("is true or false, which this setting is not")
        if isinstance(value, str) and re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", value):
            raise ValueError("holds characters that cannot be printed")
        return value


def make_config(values: Mapping[str, Any], origins: Mapping[str, str]) -> Config:
    """The config that these values give; the arguments as in `make_settings`."""
    return make_settings(Config, values, origins)

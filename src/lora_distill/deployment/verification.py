"""Whether an exported model answers as the one that it was made from."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_distill.data.tokens import Tokens
from lora_distill.data.types import Text
from lora_distill.data.wording import counted
from lora_distill.deployment.classifier import Classifier
from lora_distill.deployment.exported import Opened
from lora_distill.errors import UserError
from lora_distill.evaluation.significance import paired_difference

BATCH = 32
MOST_AGAIN = 256  # rows that are also asked about in batches and one at a time, and timed
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Bar:
    """What is asked of a form.

    Attributes:
        same_class: least share of the test rows that get the class that they got before.
        difference: most that a logit may differ by; None: any.
        batchmates: most that a logit may differ by with the other texts of its batch.
        confidence: most that the confidence may differ by on average; None: any.
    """

    same_class: float
    difference: float | None
    batchmates: float
    confidence: float | None = None

    @property
    def fewest(self) -> int:
        """Test rows of which one may get another class; of fewer none may. 0 where none may of any number."""
        return round(1 / (1 - self.same_class)) if self.same_class < 1 else 0


# Of the confidence: three sound models differed by 0.0015 to 0.006, and by 0.02 or more with logits times 0.8 or 1.25.
BARS = {"merged": Bar(1.0, 1e-4, 1e-4), "onnx": Bar(1.0, 1e-4, 1e-4), "onnx-int8": Bar(0.99, None, 1e-3, 0.015)}


def verify(
    opened: Opened, texts: Sequence[Text], before: NDArray[np.float32], labels: NDArray[np.int64], bar: Bar
) -> dict[str, Any]:
    """Ask an exported model about the test rows.

    Args:
        opened: the model.
        texts: of the N test rows, as the model reads them: single, or pairs.
        before: float32 [N, C], the logits of the model that it was made from, in the same order of labels.
        labels: int64 [N], the true classes in that order.
        bar: what is asked of it.

    Raises:
        UserError: a logit is no number.

    Returns:
        For verification.json:

        - `rows`: N.
        - `same_class`: share of the rows that get the same class as before, and `other_class`, how many do not.
        - `largest_difference`: of any logit.
        - `confidence_difference`: of the probability of each row's likeliest class, at its temperature, on average.
        - `accuracy` and `accuracy_before`: on these rows; `mcnemar_p`: of the hypothesis that both are right equally
          often (see `paired_difference`).
        - `batchmates`: of `rows` of them, asked in batches of 32 chunks as they come and one at a time, the
          `largest_difference` of any logit and how many get an `other_class`.
        - `texts_per_second`: of those rows, from texts to logits, all given to a `Classifier` at once.
        - `faults`: sentences on what it was asked and does not keep.
    """
    classifier = Classifier(opened)
    found = classifier.logits(texts)
    if not np.isfinite(found).all():
        raise UserError("The model's logits are no numbers: it was not trained well, and --force keeps no such model.")
    first, second = found.argmax(axis=1), before.argmax(axis=1)
    compared = paired_difference(first == labels, second == labels)
    other, difference = int((first != second).sum()), float(np.abs(found - before).max())
    surest, surest_before = (classifier.probabilities(each).max(axis=1) for each in (found, before))
    confidence = float(np.abs(surest - surest_before).mean())
    again = texts[:: -(-len(texts) // MOST_AGAIN)]
    alone = _with_and_without_batchmates(opened, opened.tokeniser.read(again))
    faults = []
    if 1 - other / len(texts) < bar.same_class:
        faults.append(_too_many(other, len(texts), bar))
    if bar.difference is not None and not difference <= bar.difference:
        faults.append(f"a logit differs by {difference:.2g}, and {bar.difference:g} is allowed")
    if bar.confidence is not None and not confidence <= bar.confidence:
        faults.append(f"the confidence differs by {confidence:.2g} on average, and {bar.confidence:g} is allowed")
    if compared.difference < 0 and compared.p_value < SIGNIFICANT:
        accuracies = " to ".join(f"{np.mean(each == labels):.2%}" for each in (second, first))
        faults.append(f"accuracy falls from {accuracies} (McNemar's exact test, p = {compared.p_value:.2g})")
    if alone["other_class"] or not alone["largest_difference"] <= bar.batchmates:
        faults.append(
            f"an answer depends on the other texts of its batch: a logit by {alone['largest_difference']:.2g},"
            f" the class of {counted(alone['other_class'], 'row')} of {alone['rows']:,}"
        )
    return {
        "rows": len(texts),
        "same_class": 1 - other / len(texts),
        "other_class": other,
        "largest_difference": difference,
        "confidence_difference": confidence,
        "accuracy": float(np.mean(first == labels)),
        "accuracy_before": float(np.mean(second == labels)),
        "mcnemar_p": compared.p_value,
        "batchmates": alone,
        "texts_per_second": _rate(classifier, again),
        "faults": faults,
    }


def _too_many(other: int, rows: int, bar: Bar) -> str:
    """That so many rows get another class, and how many may."""
    told = f"{counted(other, 'row')} of {rows:,} {'gets' if other == 1 else 'get'} another class"
    if not bar.fewest:
        return f"{told}; all must keep theirs"
    of_few = f", and of fewer than {bar.fewest} rows that is all" if rows < bar.fewest else ""
    return f"{told}; {bar.same_class:.0%} must keep theirs{of_few}"


def _with_and_without_batchmates(opened: Opened, tokens: Tokens) -> dict[str, Any]:
    def answered(at_once: int) -> NDArray[np.float32]:
        chunks = np.arange(len(tokens.chunk_lengths))
        batches = np.split(chunks, chunks[at_once::at_once])
        forward = opened.engine.forward
        return tokens.of_texts(np.concatenate([forward(tokens.padded(batch)) for batch in batches]))

    together, alone = answered(BATCH), answered(1)
    return {
        "rows": len(tokens),
        "largest_difference": float(np.abs(together - alone).max()),
        "other_class": int((together.argmax(axis=1) != alone.argmax(axis=1)).sum()),
    }


def _rate(classifier: Classifier, texts: Sequence[Text]) -> float:
    started = time.perf_counter()
    classifier.logits(texts)
    return len(texts) / (time.perf_counter() - started)

"""`lora-distill serve` of a classifier that waits for a file: python -m tests.serving.held_server FILE FLAGS…"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_distill.__main__ import main
from lora_distill.data.types import Text
from lora_distill.deployment.classifier import Classifier
from tests.serving.fake import FakeClassifier

FILE = Path(sys.argv.pop(1))


class HeldClassifier(FakeClassifier):
    """Waits with each batch for the file, but the first, with which the server warms up."""

    def logits(self, texts: Sequence[Text]) -> NDArray[np.float32]:
        while self.batches and not FILE.exists():
            time.sleep(0.01)
        return super().logits(texts)


def _load(*_arguments: Any, **_settings: Any) -> HeldClassifier:  # noqa: ANN401 - as Classifier.load takes them
    return HeldClassifier()


if __name__ == "__main__":
    Classifier.load = _load  # type: ignore[method-assign, assignment] # its stand-in
    sys.argv[1:1] = ["serve", "."]
    sys.exit(main())

"""`lora-distill serve` of a classifier that takes its time: python -m tests.serving.slow_server SECONDS FLAGS…"""

import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_distill.__main__ import main
from lora_distill.data.types import Text
from lora_distill.deployment.classifier import Classifier
from tests.serving.fake import FakeClassifier

SECONDS = float(sys.argv.pop(1))


class SlowClassifier(FakeClassifier):
    """Takes so long for each batch, but the first, with which the server warms up."""

    def logits(self, texts: Sequence[Text]) -> NDArray[np.float32]:
        time.sleep(SECONDS if self.batches else 0)
        return super().logits(texts)


def _load(*_arguments: Any, **_settings: Any) -> SlowClassifier:  # noqa: ANN401 - as Classifier.load takes them
    return SlowClassifier()


if __name__ == "__main__":
    Classifier.load = _load  # type: ignore[method-assign, assignment] # its stand-in
    sys.argv[1:1] = ["serve", "."]
    sys.exit(main())

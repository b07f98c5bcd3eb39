"""The forms that a finished model comes in, by name: the command line asks for them, and loads nothing for it."""

from typing import Final

CLASSIFIER = "classifier.json"  # says of a folder which form it holds
ONNX_FILES = {"onnx": "onnx/model.onnx", "onnx-int8": "onnx/model_quantized.onnx"}  # by form
MERGED = "merged"
ADAPTER: Final = "adapter"
EXPORTED, VERIFICATION = "exported", "verification.json"  # a run's folder for them; what was found out about one

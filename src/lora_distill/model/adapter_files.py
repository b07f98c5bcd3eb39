"""What the files of an adapter are called: PEFT's two, and the one of the labels beside them."""

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
LABELS_FILE = "labels.json"
ADAPTER_FILES = (ADAPTER_CONFIG, ADAPTER_WEIGHTS, LABELS_FILE)

"""The data that a config names, read; what is wrong with files among them is found before torch is loaded."""

from lora_distill.combinations import check_combinations
from lora_distill.config import Config
from lora_distill.data.catalogue import local_path
from lora_distill.data.sources import load_dataset
from lora_distill.data.types import Dataset
from lora_distill.remembering import once
from lora_distill.run_folder import RunFolder


def load_data(config: Config) -> Dataset:
    """The data set that a config names, split as it says."""
    names: tuple[str, ...] = ("text_column", "label_column", "seed", "validation_fraction", "test_fraction")
    names += ("max_train_rows", "labels_per_class", "unlabelled", "text_pair_column")
    settings = {name: getattr(config, name) for name in names}
    return once(("data", config.dataset, *settings.values()), lambda: load_dataset(config.dataset, **settings))


def check_files(config: Config, *, resume: bool) -> None:
    """Refuse files that cannot be trained on, as `preparation.prepare` would in seconds that loading torch takes.

    What was begun before is left to that, which knows what it was begun with.

    Args:
        config: as it was asked for.
        resume: whether to go on with the run of that name.

    Raises:
        UserError: the data cannot be read, or cannot be split.
    """
    run = RunFolder.of(config)
    if run.begun:
        return
    if config.exp_name:
        run.admit(config, resume=resume, overwrite=False)
    check_combinations(config)
    if all(local_path(name) for name in (config.dataset, config.unlabelled) if name is not None):
        load_data(config)

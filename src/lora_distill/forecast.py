"""A suite gone through without training: its own keys say what is shared, a few measured steps what it takes."""

import logging
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from lora_distill.cache import Cache, entry_name
from lora_distill.config import Config, Role
from lora_distill.data.tokens import Tokens
from lora_distill.experiment import prepare_run
from lora_distill.launching import threads_each
from lora_distill.measuring import Activated, Costs, Measurements, Work, read_by
from lora_distill.memory import peak_memory
from lora_distill.planning import Plan, PlannedRun
from lora_distill.preparation import Prepared
from lora_distill.progress import ONCE, warnings_only
from lora_distill.remembering import remembering
from lora_distill.run_folder import RunFolder
from lora_distill.store import Artefact
from lora_distill.suite import Suite
from lora_distill.training.activations import KIND, chunk_keys
from lora_distill.training.plan import computing_with
from lora_distill.training.role import RoleTraining
from lora_distill.trainings import Model, models_of, splits_of, trainings

logger = logging.getLogger(__name__)


def plan_suite(suite: Suite, jobs: int = 1) -> Plan:
    """Prepare every run that is to be trained, see what it would train, and measure a few steps of each kind.

    Args:
        suite: without faults.
        jobs: as for `running.run_suite`; threads are a part of what makes a model.
    """
    threads = threads_each(jobs) if jobs > 1 else torch.get_num_threads()
    with remembering(), tempfile.TemporaryDirectory() as folder, computing_with(threads):
        forecast = _Forecast(Measurements(Path(folder)))
        for name, config in suite.runs.items():
            if not RunFolder.of(config).done:
                forecast.add(name, config)
    cache = forecast.cache
    return Plan(forecast.runs, int(forecast.disk), cache.grown, cache.before, peak_memory(), jobs)


class _Forecast:
    """The runs so far, what they leave, and what a run after them will find."""

    def __init__(self, measurements: Measurements) -> None:
        self.runs: list[PlannedRun] = []
        self.disk = 0.0
        self.cache = CacheForecast()
        self._measurements = measurements
        self._taken: set[str] = set()

    def add(self, name: str, config: Config) -> None:
        """The next run."""
        run = RunFolder.of(config)
        since = run.outdated_since
        with warnings_only():
            prepared, begun = prepare_run(config, resume=run.begun, overwrite=bool(since))
        since = since or (begun or {}).get("since", 0.0)
        wanted = trainings(prepared)
        own = self._measurements.run(prepared)
        self.disk += own.run_bytes
        artefacts: dict[Role, list[str]] = {role: [] for role in wanted}
        trains: list[Role] = []
        leaves: list[str] = []
        seconds = own.seconds
        for role, training in wanted.items():
            told = 0.0
            for model, splits in models_of(training, splits_of(prepared, training)):
                costs = self._measurements.training(model, splits)
                work = Work.of(model, splits)
                history = costs.history_bytes * work.trained
                self.disk += costs.adapter_bytes + history
                told += history
                artefacts[role].append(model.artefact().key)
                if self._is_fresh(model.artefact(), since):
                    trains.append(role)
                    leaves.append(model.artefact().key)
                    self.disk += costs.artefact_bytes + history + _logits_bytes(prepared, work)
                    self.disk += costs.pooled_bytes * (work.answered - len(splits["validation"]))
                    token_layers, exact = _frozen(prepared, model, splits, costs, self.cache)
                    seconds += costs.of(replace(work, token_layers=token_layers, exact_token_layers=exact))
            if self._is_fresh(training.artefact(), since):  # of what is no model: what several, or a file, answer
                leaves.append(training.artefact().key)
                rows = sum(map(len, prepared.dataset.splits().values()))
                self.disk += told + rows * len(prepared.dataset.label_names) * np.dtype(np.float32).itemsize
        self.runs.append(PlannedRun(name, artefacts, trains, leaves, seconds))

    def _is_fresh(self, artefact: Artefact, since: float) -> bool:
        """Whether it neither lies in the store since that moment nor was asked for before."""
        is_fresh = not artefact.finished_since(since) and artefact.key not in self._taken
        self._taken.add(artefact.key)
        return is_fresh


def _frozen(
    prepared: Prepared, training: Model, splits: dict[str, Tokens], costs: Costs, forecast: "CacheForecast"
) -> tuple[int, int]:
    """Tokens times frozen layers that are still to be computed: in the training's precision, and in fp32."""
    if not costs.activated:
        return 0, 0
    usual, in_fp32 = costs.activated
    each_epoch, answered = dict[str, int](), list(splits)
    if isinstance(training, RoleTraining):
        each_epoch = dict.fromkeys((training.learned_as, "validation"), training.settings.num_epochs)
        answered = training.answered
    token_layers = 0
    for name, tokens in read_by(training, splits).items():
        readings = each_epoch.get(name, 0) + (name in answered)
        token_layers += forecast.add(prepared.cache, usual, tokens, readings)
    return token_layers, forecast.add(prepared.cache, in_fp32, splits["test"], 1)


def _logits_bytes(prepared: Prepared, work: Work) -> int:
    return (work.answered + work.tested) * len(prepared.dataset.label_names) * np.dtype(np.float32).itemsize


@dataclass
class CacheForecast:
    """What the frozen layers will leave in the cache, filled as `training.activations.keep_activations` does it.

    Attributes:
        grown: bytes so far.
        before: bytes that were there, by the names of the entries that have grown.
    """

    grown: int = 0
    before: dict[str, int] = field(default_factory=dict)
    _keys: dict[str, set[bytes]] = field(default_factory=dict)
    _sizes: dict[str, int] = field(default_factory=dict)

    def add(self, cache: Cache, activated: Activated, tokens: Tokens, readings: int) -> int:
        """Let it have what frozen layers give for these rows, the shortest first, as far as it has room.

        Args:
            cache: for its limit, and what is in it.
            activated: what is kept of a token.
            tokens: N rows.
            readings: how often a training reads them, and so computes those that are not kept.

        Returns:
            Tokens times layers that are computed for that.
        """
        depth = int(activated.recipe["depth"])
        names = [entry_name(KIND, activated.recipe | {"depth": layers}) for layers in range(depth + 1)]
        for name in names:
            if name not in self._keys:
                there = [entry for entry in cache.entries() if entry.name == name]
                self._keys[name] = {key for entry in there for key in entry.array("keys").tolist()}
                self._sizes[name] = sum(entry.size for entry in there)
        keys, first = np.unique(chunk_keys(tokens), return_index=True)
        is_missing = np.array([key not in self._keys[names[depth]] for key in keys.tolist()], dtype=bool)
        keys, lengths = keys[is_missing], tokens.chunk_lengths[first[is_missing]]
        if not len(keys):
            return 0
        order = np.argsort(lengths, kind="stable")
        sizes = np.cumsum(lengths[order] * activated.token_bytes + keys.itemsize + lengths.itemsize)
        room = int(np.searchsorted(sizes, cache.limit - self.grown, side="right"))
        missing, start = set(keys.tolist()), 0
        if room < len(keys):
            told = "the cache %s has no room for all: for some rows the frozen layers run each time; see --cache_limit"
            logger.warning(told, cache.folder, extra=ONCE)
        if room:
            start = next((layers for layers in range(depth - 1, 0, -1) if missing <= self._keys[names[layers]]), 0)
            self._keys[names[depth]] |= set(keys[order[:room]].tolist())
            self.before[names[depth]] = self._sizes[names[depth]]
            self.grown += int(sizes[room - 1])
        kept = int(lengths[order[:room]].sum())
        return kept * (depth - start) + (int(lengths.sum()) - kept) * depth * readings

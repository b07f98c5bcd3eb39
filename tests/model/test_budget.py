from dataclasses import replace
from typing import Any

import pytest
from peft import PeftModel
from transformers import BertConfig, DistilBertConfig, PreTrainedConfig, RobertaConfig

from lora_distill.errors import UserError
from lora_distill.model.adapter import attach_adapter
from lora_distill.model.budget import all_fits, check_budget, count_trainable
from tests.model.test_adapter import from_config, settings


def test_within_the_budget_it_passes_to_the_last_parameter() -> None:
    model = attach_adapter(from_config(BertConfig()), settings(8, 6), seed=0)
    total = count_trainable(model).total
    assert check_budget(model, total).as_dict() == {"total": total, "lora": 221_184, "head": 3_076}
    with pytest.raises(UserError):
        check_budget(model, total - 1)


def test_over_it_the_message_says_how_many_where_and_what_would_fit() -> None:
    model = attach_adapter(from_config(RobertaConfig()), settings(32, 8), seed=0)
    with pytest.raises(UserError) as error:
        check_budget(model, 1_000_000)
    message = str(error.value)
    # 36,864 a rank on 8 layers, 147,456 a layer at rank 32, and 406,332 left beside the head
    for part in (
        "1,773,316",
        "773,316 over",
        "1,179,648 in LoRA",
        "593,668 in the head",
        "rank 11 on 8 layers",
        "rank 32 on 2 layers",
    ):
        assert part in message
    assert message.count("\n") <= 2
    fits = attach_adapter(from_config(RobertaConfig()), settings(11, 8), seed=0)
    assert check_budget(fits, 1_000_000).total == 999_172
    assert check_budget(attach_adapter(from_config(RobertaConfig()), settings(32, 2), seed=0), 1_000_000)
    with pytest.raises(UserError):
        check_budget(attach_adapter(from_config(RobertaConfig()), settings(12, 8), seed=0), 1_000_000)


def test_modules_of_several_shapes_are_counted_as_they_are() -> None:
    def bert(rank: int, layers: int) -> PeftModel:
        return attach_adapter(from_config(BertConfig()), settings(rank, layers, target_modules=("dense",)), seed=0)

    # 768 to 768, 768 to 3,072 and back: 12 x 768 a rank and layer
    assert check_budget(bert(8, 12), 1_000_000).as_dict() == {"total": 887_812, "lora": 884_736, "head": 3_076}
    with pytest.raises(UserError, match=r"1,108,996 trainable[^$]*: rank 9 on 12 layers, or rank 10 on 10 layers"):
        check_budget(bert(10, 12), 1_000_000)
    assert check_budget(bert(9, 12), 1_000_000).total == 998_404
    assert check_budget(bert(10, 10), 1_000_000).total == 924_676


def test_dora_s_lengths_and_ranks_by_layer_are_counted() -> None:
    def bert(rank: int, layers: int, **other: Any) -> PeftModel:  # noqa: ANN401
        return attach_adapter(from_config(BertConfig()), settings(rank, layers, dora=True, **other), seed=0)

    # 4,608 a rank and layer, and a length for each of the 3 x 768 rows
    assert check_budget(bert(8, 6), 1_000_000).lora == 6 * (8 * 4_608 + 2_304)
    uneven = bert(8, 6, rank_pattern=((10, 2), (11, 64)))
    assert count_trainable(uneven).lora == (4 * 8 + 2 + 64) * 4_608 + 6 * 2_304
    budget = 3_076 + 6 * (16 * 4_608 + 2_304)
    with pytest.raises(UserError, match="rank 16 on 6 layers, or rank 8 on 11 layers, the same for all layers"):
        check_budget(uneven, budget)
    assert check_budget(bert(16, 6), budget).total == budget
    with pytest.raises(UserError):
        check_budget(bert(8, 12), budget)
    with pytest.raises(UserError, match=r"rank 1 on one layer takes 6,912"):
        check_budget(bert(8, 6), 3_076 + 6_911)


def test_when_the_head_leaves_no_room_it_says_so() -> None:
    model = attach_adapter(from_config(RobertaConfig()), settings(1, 1), seed=0)
    with pytest.raises(UserError, match=r"nothing fits[^$]*598,276 or more"):
        check_budget(model, 590_000)


def test_when_only_rank_one_on_few_layers_fits() -> None:
    model = attach_adapter(from_config(BertConfig()), settings(8, 6), seed=0)
    with pytest.raises(UserError, match="rank 1 on 2 layers"):
        check_budget(model, 3_076 + 2 * 4_608 + 5)


@pytest.mark.parametrize(
    "config", [BertConfig(), RobertaConfig(), DistilBertConfig()], ids=lambda each: each.model_type
)
@pytest.mark.parametrize("dora", [False, True])
def test_all_that_fit_do_and_twice_the_rank_would_not(config: PreTrainedConfig, dora: bool) -> None:
    classifier = from_config(config)
    fits = all_fits(classifier, 1_000_000, dora=dora)
    assert [fit.count.total for fit in fits] == sorted((fit.count.total for fit in fits), reverse=True)
    assert {fit.modules for fit in fits} >= {("attention",), ("all-linear",)}
    assert len({fit.modules for fit in fits}) == 3
    for fit in fits[::5]:
        chosen = replace(settings(fit.rank, fit.layers), target_modules=fit.modules, dora=dora)
        assert check_budget(attach_adapter(from_config(config), chosen, seed=0), 1_000_000) == fit.count
        twice = replace(chosen, rank=fit.rank * 2)
        with pytest.raises(UserError, match=r"the smallest adapted matrix|over its budget"):
            check_budget(attach_adapter(from_config(config), twice, seed=0), 1_000_000)


def test_where_the_head_alone_is_too_large_nothing_fits() -> None:
    with pytest.raises(UserError, match=r"593,668 in the head\.\n.*nothing fits"):
        all_fits(from_config(RobertaConfig()), 500_000)


def test_what_does_not_fit_stands_behind_what_does_with_what_it_would_take() -> None:
    fits = all_fits(from_config(BertConfig()), 20_000)
    assert len(fits) == 3 * BertConfig().num_hidden_layers
    fitting = [fit for fit in fits if fit.rank]
    over = fits[len(fitting) :]
    assert fitting
    assert over
    assert not any(fit.rank for fit in over)
    assert all(fit.count.total <= 20_000 for fit in fitting)
    assert [fit.count.total for fit in over] == sorted(fit.count.total for fit in over)
    assert over[0].count.total > 20_000
    chosen = replace(settings(1, over[0].layers), target_modules=over[0].modules)
    with pytest.raises(UserError, match="over its budget"):
        check_budget(attach_adapter(from_config(BertConfig()), chosen, seed=0), 20_000)

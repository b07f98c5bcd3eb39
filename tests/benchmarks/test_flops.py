import pytest

from benchmarks.flops import Shape, step_flops

NO_LAYERS = Shape(hidden=2, intermediate=3, layers=0, rank=1, classes=5)
ONE = Shape(hidden=2, intermediate=3, layers=1, rank=1, classes=5)
TWO = Shape(hidden=2, intermediate=3, layers=2, rank=1, classes=5)


def test_head_costs_forward_weight_and_input_gradients() -> None:
    # 3 * 2 * (2 * 2 + 2 * 5)
    assert step_flops([4], NO_LAYERS) == 84


def test_one_layer_needs_keys_and_values_of_all_tokens_and_the_rest_of_the_first() -> None:
    # 9 rows pass through q, k, v: forward 9 * 8 = 72, no input gradient; LoRA 9 * 5 * 4 = 180;
    # attention 6 products of 2 * 1 * 4 * 2 = 96; output and feed-forward of one token, twice: 2 * (8 + 24) = 64.
    assert step_flops([4], ONE) == 84 + 72 + 180 + 96 + 64


def test_layers_below_the_last_are_whole_and_the_last_needs_its_input_gradient() -> None:
    # First: 12 * 8 = 96; LoRA 12 * 5 * 4 = 240; attention 6 * 2 * 4 * 4 * 2 = 384; rest 4 * 64 = 256.
    # Last: 9 * 16 = 144; LoRA 9 * 6 * 4 = 216; attention 96; rest 64.
    assert step_flops([4], TWO) == 84 + (96 + 240 + 384 + 256) + (144 + 216 + 96 + 64)


def test_rows_add_up() -> None:
    assert step_flops([4, 7, 4], TWO) == 2 * step_flops([4], TWO) + step_flops([7], TWO)


def test_a_row_of_the_twelve_layer_encoder_needs_about_as_much_as_four_passes_of_its_weights() -> None:
    shape = Shape(hidden=768, intermediate=3072, layers=6, rank=8, classes=4)
    weights = 5 * (4 * 768**2 + 2 * 768 * 3072) + 2 * 768**2
    assert step_flops([50], shape) == pytest.approx(50 * 4 * weights, rel=0.05)

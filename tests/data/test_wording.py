from lora_distill.data.wording import counted, listing, points


def test_one_has_no_plural() -> None:
    assert [counted(number, "row") for number in (0, 1, 1200)] == ["0 rows", "1 row", "1,200 rows"]


def test_points_of_a_difference() -> None:
    assert [points(difference) for difference in (0.0023, -0.0023, -0.00001)] == ["+0.23", "-0.23", "+0.00"]


def test_a_listing_is_short() -> None:
    assert listing(["a", "b"]) == "'a', 'b'"
    assert listing(map(str, range(1234)), limit=2) == "'0', '1' and 1,232 more"
    assert len(listing(["x" * 10_000])) < 50

"""Labels of a scatter plot: whatever the points, none covers another, a point or the edge."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from profiler_kit.render.labels import _box, _overlap, place_labels

SIZE = (350.0, 240.0)
POINTS = st.lists(st.tuples(st.floats(0, SIZE[0]), st.floats(0, SIZE[1])), min_size=1, max_size=20)


@given(POINTS)
def test_labels_have_room(points: list[tuple[float, float]]) -> None:
    names = [f"row {number}" for number in range(len(points))]
    placed = place_labels(points, names, range(len(points)), SIZE)
    shown = [(at, _box(points[at], text, side)) for at, (text, side) in enumerate(placed) if text]
    assert all(text in ("", names[at]) for at, (text, _) in enumerate(placed))
    for number, (at, box) in enumerate(shown):
        assert box[0] >= 0 and box[1] >= 0 and box[2] <= SIZE[0] and box[3] <= SIZE[1]
        assert not any(_overlap(box, other) for _, other in shown[:number])
        assert not any(_overlap(box, (x, y, x, y)) for n, (x, y) in enumerate(points) if n != at)


def test_a_lone_point_is_labelled_and_the_first_in_order_comes_first() -> None:
    assert place_labels([(100, 100)], ["a"], [0], SIZE) == [("a", "top center")]
    crowd = [(100.0, 100.0 + n) for n in range(12)]
    placed = place_labels(crowd, ["name"] * 12, [11, *range(11)], SIZE)
    assert placed[11][0] == "name" and sum(text != "" for text, _ in placed) < 12


def test_a_label_is_not_beside_another_point() -> None:
    lines = [[(0.0, y), (350.0, y)] for y in (185.0, 200.0)] + [[(160.0, 0.0), (160.0, 183.0)]]
    placed = place_labels([(173, 185), (174, 174)], ["fused_rows", ""], [0], SIZE, lines)
    assert placed[0] == ("fused_rows", "top center")  # and not at the lower right, beside the other


def test_a_label_crosses_a_line_only_where_every_side_does() -> None:
    above = [[(0.0, 115.0), (350.0, 115.0)]]
    assert place_labels([(100, 100)], ["a"], [0], SIZE, above) == [("a", "bottom center")]
    through = [[(0.0, 100.0), (350.0, 100.0)], [(0.0, 115.0), (350.0, 115.0)], [(0.0, 85.0), (350.0, 85.0)]]
    assert place_labels([(100, 100)], ["a"], [0], SIZE, through) == [("a", "top center")]
    # too long for the middle at the right edge, and another point is in the way at the left
    placed = place_labels([(320, 20), (260, 20)], ["a long name of a row", "b"], [0, 1], SIZE)
    assert placed[0] == ("a long name of a row", "top left")

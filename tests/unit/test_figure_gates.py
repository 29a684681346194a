"""Mean gates as matrices: a slider shows one frame, and a wrong row is marked without colour."""

import numpy as np
import pytest

from kalavai_helpers import figure_gates

NAMES = ("a", "b")
GOOD = np.array([[0.9, 0.1], [0.2, 0.8]])
BAD = np.array([[0.9, 0.1], [0.7, 0.3]])


def test_one_frame_is_visible_and_the_slider_shows_each():
    fig = figure_gates.gate_matrices(
        {"0": {"x": GOOD, "y": BAD}, "1": {"x": BAD, "y": GOOD}}, NAMES, "seed"
    )
    assert [trace.visible for trace in fig.data] == [True, True, False, False]
    steps = fig.layout.sliders[0].steps
    assert [step.args[0]["visible"] for step in steps] == [
        [True, True, False, False],
        [False, False, True, True],
    ]


def test_a_row_that_goes_to_another_specialist_carries_a_cross():
    fig = figure_gates.gate_matrices({"0": {"x": BAD}}, NAMES)
    assert [list(row) for row in fig.data[0].text] == [["90", "10"], ["✗ 70", "30"]]
    assert not fig.layout.sliders


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ({}, "at least one frame"),
        ({"0": {"x": GOOD}, "1": {"y": GOOD}}, "has panels"),
        ({"0": {"x": GOOD[:1]}}, "expected"),
        ({"0": {"x": GOOD * 2}}, "leave"),
    ],
)
def test_what_cannot_be_drawn_is_refused(frames, message):
    with pytest.raises(ValueError, match=message):
        figure_gates.gate_matrices(frames, NAMES)

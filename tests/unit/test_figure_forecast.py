"""Figures of predictions show which intervals missed, and a button for each way of predicting."""

import pytest

from kalavai_helpers import figure_forecast

WAYS = {
    "forecast": {"value": [1.0, 2.0], "low": [0.5, 1.5], "high": [1.5, 2.2]},
    "line": {"value": [3.0, 3.0], "low": [0.0, 2.9], "high": [4.0, 5.0]},
}


def test_an_open_mark_is_an_interval_that_missed():
    fig = figure_forecast.predicted([1.2, 2.5], WAYS, ["a", "b"], "%")
    assert list(fig.data[0].marker.symbol) == ["circle", "circle-open"]
    assert list(fig.data[1].marker.symbol) == ["square", "square-open"]


def test_buttons_show_one_way_each_or_both_and_always_the_diagonal():
    fig = figure_forecast.predicted([1.2, 2.5], WAYS, ["a", "b"], "%")
    buttons = {b.label: b.args[0]["visible"] for b in fig.layout.updatemenus[0].buttons}
    assert buttons == {
        "forecast": [True, False, True],
        "line": [False, True, True],
        "both": [True, True, True],
    }
    assert [trace.visible for trace in fig.data[:2]] == [True, False]


def test_lengths_must_agree():
    with pytest.raises(ValueError, match=r"'forecast'.*differ in number"):
        figure_forecast.predicted([1.2], WAYS, ["a", "b"], "%")
    band = {"x": [0, 1], "y": [0, 1], "low": [-1, 0], "high": [1, 2]}
    series = [{"name": "fitted", "x": [1, 2], "y": [1], "labels": ["a", "b"]}]
    with pytest.raises(ValueError, match="'fitted'"):
        figure_forecast.line_and_points(series, band, "x", "y")

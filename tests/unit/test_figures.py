"""What readers of a figure rely on: alternatives to sight and colour, true values, light pages."""

import itertools
import json
import re

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.io as pio
import pytest

from kalavai_helpers import figures

DOMAINS = ["code", "science", "fiction"]
PAGES = ("#ffffff", "#12161b")  # backgrounds of the two themes


def spec_of(html: str) -> dict:
    """Return the figure that a page's script would draw."""
    body = re.search(r'<script type="application/vnd.plotly.v1\+json"[^>]*>(.*?)</script>', html)
    return json.loads(body[1])


@pytest.fixture
def outputs(monkeypatch):
    """Everything that is displayed, as the book's executor keeps it: form → content."""
    kept = []

    def display(shown, raw=False):
        kept.append(shown if raw else {"text/html": shown.data})

    monkeypatch.setenv("KALAVAI_BOOK", "1")
    monkeypatch.setenv("KALAVAI_CHAPTER", "01_protocol")
    monkeypatch.setattr("IPython.display.display", display)
    return kept


@pytest.fixture
def shown(outputs):
    """Show a figure as the book's executor does and return the HTML of its page."""

    def run(fig, **options):
        outputs.clear()
        figures.show(fig, **{"alt": "losses fall", "table": pd.DataFrame({"x": [1.0]}), **options})
        figure, notes = (output["text/html"] for output in outputs)
        return figures.joined(figure, notes)

    return run


def simple():
    return figures.curves([{"name": "code", "x": [0, 1], "y": [3.0, 2.0]}], "step", "nats/token")


def prompt(tokens: int = 5, routers=("evidence", "linear"), title: str = "a prompt") -> dict:
    gates = np.zeros((tokens, len(DOMAINS)))
    gates[:, 1] = 1
    words = ["the"] * tokens
    return {"title": title, "tokens": words, "gates": dict.fromkeys(routers, gates)}


@pytest.mark.parametrize("alt", ["", "  "])
def test_figure_without_alternative_text_is_refused(alt):
    with pytest.raises(ValueError, match="alt text"):
        figures.show(simple(), alt=alt, table=None)


def test_book_output_has_alternative_table_caption_and_a_reserved_height(shown):
    html = shown(simple(), alt='a "falling" line', caption="Over a < b.", height=333)
    assert 'role="img"' in html
    assert 'aria-label="a &quot;falling&quot; line"' in html
    assert 'style="height:333px"' in html
    assert "<figcaption>Over a &lt; b.</figcaption>" in html
    assert html.count("<table") == 1
    assert spec_of(html)["layout"]["height"] == 333


def test_the_same_output_draws_in_jupyterlab_and_what_stands_under_it_follows(outputs):
    fig = figures.loss_matrix(np.eye(3), DOMAINS, DOMAINS, "A title of its own")
    figures.show(fig, alt="ones on the diagonal", table=None, caption="Made up.", height=333)
    figure, notes = outputs
    layout = figure["application/vnd.plotly.v1+json"]["layout"]
    assert layout["title"]["text"] == "A title of its own"
    assert layout["height"] == 333
    assert "Made up." in notes["text/html"]
    assert "ones on the diagonal" in notes["text/html"]


def test_a_reader_who_runs_a_chapter_has_caption_alternative_and_table(outputs, monkeypatch):
    monkeypatch.delenv("KALAVAI_BOOK")
    monkeypatch.setattr("plotly.graph_objects.Figure.show", lambda fig: None)
    figures.show(simple(), alt="a line", table=pd.DataFrame({"x": [1.0]}), caption="Made up.")
    (notes,) = outputs
    assert all(part in notes["text/html"] for part in ("Made up.", "a line", "<table"))


def test_plotly_figure_that_is_not_in_the_house_style_is_shown(shown):
    for fig in (go.Figure(go.Scatter(y=[1, 2])), go.Figure({"layout": {"template": "none"}})):
        assert spec_of(shown(fig))["layout"]["margin"]["t"] > 0


def test_text_of_a_figure_cannot_end_its_script(shown):
    series = [{"name": "</script><b>", "x": [0], "y": [1.0]}]
    html = shown(figures.curves(series, "step", "loss"))
    assert html.count("</script>") == 1
    assert spec_of(html)["data"][-1]["name"] == "</script><b>"


def test_title_is_a_heading_that_can_wrap(shown):
    fig = figures.loss_matrix(np.eye(3), DOMAINS, DOMAINS, "A title of its own")
    html = shown(fig)
    assert '<p class="kv-title">A title of its own</p>' in html
    assert "title" not in spec_of(html)["layout"]


def test_every_figure_has_its_own_id(shown):
    ids = [re.search(r'id="([^"]+)"', shown(simple()))[1] for _ in range(2)]
    assert ids[0] != ids[1]
    assert all(name.startswith("kv-01_protocol-") for name in ids)


def test_long_table_is_cut_and_says_so(shown):
    html = shown(simple(), table=pd.DataFrame({"x": range(500)}), max_rows=20)
    assert html.count("<tr") == 21
    assert "The first 20 of 500 rows." in html


def test_outside_the_book_plotly_draws(monkeypatch):
    monkeypatch.delenv("KALAVAI_BOOK", raising=False)
    drawn, fig = [], simple()
    monkeypatch.setattr(type(fig), "show", lambda self: drawn.append(self.layout.height))
    figures.show(fig, alt="a line", table=None, height=300)
    assert drawn == [300]


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("name", figures.DOMAIN_COLOURS)
def test_domain_colours_stand_out_on_both_themes(name, page):
    pair = sorted([luminance(figures.DOMAIN_COLOURS[name]), luminance(page)])
    assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 3


def test_domains_differ_by_more_than_colour():
    looks = [(figures.DOMAIN_SYMBOLS[d], figures.DOMAIN_DASHES[d]) for d in figures.DOMAIN_COLOURS]
    assert len(looks) == 28  # 21 domains, general, base, 5 kinds of methods
    assert len(set(looks)) == len(looks)
    assert len(set(figures.DOMAIN_COLOURS.values())) == len(looks)


def test_template_exists_for_both_themes():
    light, dark = (pio.templates[name].layout for name in ("kalavai", "kalavai_dark"))
    assert light.font.color != dark.font.color
    assert light.paper_bgcolor == dark.paper_bgcolor == "rgba(0,0,0,0)"


def test_loss_matrix_prints_every_loss_and_marks_the_lowest():
    losses = np.array([[3.0, 4.0], [2.5, 4.5], [3.5, 3.25]])
    heatmap = figures.loss_matrix(losses, ["base", "code", "science"], DOMAINS[:2]).data[0]
    assert [list(row) for row in heatmap.text] == [
        ["3.00", "4.00"],
        ["<b>2.50</b>", "4.50"],
        ["3.50", "<b>3.25</b>"],
    ]
    # Grey must mean "as the base": the scale is symmetric and the base's own row is zero.
    assert heatmap.zmin == -heatmap.zmax
    np.testing.assert_allclose(heatmap.z[0], 0)
    np.testing.assert_allclose(heatmap.z[1], [-0.5, 0.5])


def test_loss_matrix_leaves_an_unknown_loss_empty():
    heatmap = figures.loss_matrix(np.array([[3.0, np.nan], [2.0, 1.0]]), ["a", "b"], DOMAINS[:2])
    assert [list(row) for row in heatmap.data[0].text] == [
        ["3.00", ""],
        ["<b>2.00</b>", "<b>1.00</b>"],
    ]


def test_loss_matrix_refuses_a_shape_that_is_not_its_names():
    with pytest.raises(ValueError, match="rows are models"):
        figures.loss_matrix(np.eye(2), DOMAINS, DOMAINS)


def test_curves_tell_groups_apart_without_colour_and_name_each_once():
    series = [
        {"name": d, "x": [0, 1], "y": [1, 2], "group": s}
        for s, d in itertools.product(DOMAINS, DOMAINS)
    ]
    lines = figures.curves(series, "step", "loss").data
    assert len({(line.line.dash, line.marker.symbol) for line in lines}) == len(DOMAINS)
    assert [line.name for line in lines if line.showlegend] == DOMAINS


def test_curves_draw_the_interval():
    series = {"name": "code", "x": [0, 1], "y": [2, 3], "low": [1, 2], "high": [3, 4]}
    band, line = figures.curves([series], "step", "loss").data
    assert list(band.y) == [3, 4, 2, 1]
    assert list(line.y) == [2, 3]


@pytest.mark.parametrize("y", [[], [1.0, 2.0, 3.0]])
def test_curves_refuse_a_series_that_does_not_fit(y):
    with pytest.raises(ValueError, match="'code'"):
        figures.curves([{"name": "code", "x": [0, 1], "y": y}], "step", "loss")


def test_gains_show_base_and_best_specialist_as_references_of_every_method():
    rows = {
        "code": ("specialist", 0.0, -2.0),
        "evidence": ("fused", 13.0, 11.0),
        "document_oracle": ("oracle", 14.0, 12.0),
        "token_oracle": ("oracle", 19.0, 17.0),
    }
    columns = ["kind", "gain", "gain_over_base"]
    summary = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    summary["gain_low"], summary["gain_high"] = summary.gain - 1, summary.gain + 1
    fig = figures.gains(summary)
    (over_base,) = [trace for trace in fig.data if trace.name and "base" in trace.name]
    assert list(over_base.x) == [-2.0, 11.0]
    assert list(over_base.y) == ["code", "evidence"]
    assert over_base.marker.symbol not in {t.marker.symbol for t in fig.data if t is not over_base}
    assert fig.layout.showlegend is not False
    # A summary recorded without that column is drawn without it.
    older = figures.gains(summary.drop(columns="gain_over_base"))
    assert not [trace for trace in older.data if trace.name and "base" in trace.name]


def test_bars_print_each_value_with_its_interval():
    fig = figures.bars(["a", "b"], [1.0, -2.0], [0.5, -2.2], [1.25, -1.5], -1.5)
    assert {"<b>1.000</b>", "<b>−2.000</b>", "reference −1.500"} <= {
        note.text for note in fig.layout.annotations
    }
    dots = fig.data[-1]
    np.testing.assert_allclose(dots.error_x.array, [0.25, 0.5])
    np.testing.assert_allclose(dots.error_x.arrayminus, [0.5, 0.2])


@pytest.mark.parametrize("values", [[1.0], [1.0, float("nan")]])
def test_bars_refuse_missing_and_infinite_values(values):
    with pytest.raises(ValueError, match="finite value per label"):
        figures.bars(["a", "b"], values)


def test_histogram_shares_add_up_to_all_values():
    rng = np.random.default_rng(0)
    line = figures.histogram({"evidence": rng.random(1000)}, "gate").data[0]
    assert sum(line.y[:-1]) == pytest.approx(100, abs=1e-3)
    with pytest.raises(ValueError, match="'linear' is empty"):
        figures.histogram({"linear": np.array([])}, "gate")


def test_routing_heatmap_menu_shows_one_prompt_at_a_time():
    fig = figures.routing_heatmap([prompt(), prompt(7, title="another")], DOMAINS)
    assert [trace.visible for trace in fig.data] == [True, True, False, False]
    buttons = fig.layout.updatemenus[0].buttons
    assert [button.label for button in buttons] == ["a prompt", "another"]
    assert list(buttons[1].args[0]["visible"]) == [False, False, True, True]
    # Prompts differ in length: the axes of both panels follow the chosen one.
    axes = buttons[1].args[1]
    assert axes["xaxis.range"] == axes["xaxis2.range"] == [-0.5, 6.5]


def test_routing_heatmap_keeps_equal_tokens_apart_and_readable():
    tokens = [" the", " the", "\n\n", " ", "<b>"]
    fig = figures.routing_heatmap([{**prompt(5), "tokens": tokens}], DOMAINS)
    assert list(fig.data[0].x) == ["0", "1", "2", "3", "4"]
    labels = fig.layout.xaxis.labelalias
    assert [labels[x] for x in fig.data[0].x] == ["the", "the", "↵", "␣", "&lt;b&gt;"]


def test_routing_heatmap_is_light_on_a_page(shown):
    rng = np.random.default_rng(0)
    gates = rng.dirichlet(np.ones(24), 256)
    one = {"title": "long", "tokens": ["x"] * 256, "gates": {"linear": gates}}
    html = shown(figures.routing_heatmap([one], [str(i) for i in range(24)]), table=None)
    assert spec_of(html)["data"][0]["z"]["dtype"] == "u1"
    assert len(html.encode()) < 24_000


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], "at least one prompt"),
        ([{**prompt(), "gates": {"linear": np.ones((4, 3)) / 3}}], "tokens by experts"),
        ([{**prompt(), "gates": {"linear": np.full((5, 3), 2.0)}}], "leave"),
        ([prompt(), prompt(routers=("pooled",))], "has routers"),
    ],
)
def test_routing_heatmap_refuses_gates_that_are_not_gates(prompts, message):
    with pytest.raises(ValueError, match=message):
        figures.routing_heatmap(prompts, DOMAINS)

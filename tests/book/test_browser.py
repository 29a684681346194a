"""The pages in a real browser, from files, with the network shut."""

import pytest
from pages import PAGES, Page

CHAPTERS = [page for page in PAGES if page.startswith("notebooks/")]
WIDTHS = (1280, 390)


class Visit:
    """One page open in a browser of its own, with what it asked for and complained about."""

    def __init__(self, chromium, site, name: str, width: int) -> None:
        self.asked: list[str] = []
        self.complaints: list[str] = []
        phone = width < 600
        self.context = chromium.new_context(
            viewport={"width": width, "height": 900}, has_touch=phone, is_mobile=phone
        )
        self.context.route(lambda url: not url.startswith("file:"), self._refuse)
        self.page = self.context.new_page()
        self.page.on("console", self._listen)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto((site / f"{name}.html").as_uri())

    def _refuse(self, route) -> None:
        self.asked.append(route.request.url)
        route.abort()

    def _listen(self, message) -> None:
        if message.type == "error":
            self.complaints.append(message.text)

    def draw_all(self) -> None:
        """Bring every figure near the viewport, as a reader does, and wait until it is drawn."""
        for plot in self.page.query_selector_all(".kv-plot"):
            plot.scroll_into_view_if_needed()
        self.page.wait_for_function(
            "[...document.querySelectorAll('.kv-plot')].every((p) => p.dataset.drawn)",
            timeout=20_000,
        )


@pytest.fixture(params=[(name, width) for name in PAGES for width in WIDTHS], ids=str)
def visit(request, chromium, site):
    name, width = request.param
    visit = Visit(chromium, site, name, width)
    visit.expected = len(Page(site / f"{name}.html").all("figure", class_="kv-figure"))
    yield visit
    visit.context.close()


def ink(page) -> list[str]:
    return page.evaluate(
        "[...document.querySelectorAll('.kv-plot')].map((plot) =>"
        " getComputedStyle(plot.querySelector('.ytick text')).fill)"
    )


def heights(page) -> list[float]:
    return page.evaluate("[...document.querySelectorAll('.kv-plot')].map((p) => p.clientHeight)")


def test_page_draws_its_figures_in_both_themes_and_asks_nobody(visit):
    page = visit.page
    reserved = heights(page)
    visit.draw_all()
    drawn = "[...document.querySelectorAll('.kv-plot')].filter((p) => p.querySelector('.main-svg'))"
    assert page.evaluate(f"{drawn}.length") == visit.expected
    assert heights(page) == reserved, "the page must not move when scripts run"

    colours = {}
    for theme in ("light", "dark"):
        page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
        page.wait_for_timeout(400)
        colours[theme] = ink(page)
    assert all(a != b for a, b in zip(colours["light"], colours["dark"], strict=True))

    overflow = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert overflow <= 0, "the page must not scroll sideways"
    wide = page.evaluate(
        "[...document.querySelectorAll('.kv-plot')].filter((p) =>"
        " p.querySelector('.main-svg').clientWidth > p.clientWidth + 1).length"
    )
    assert wide == 0, "a figure is wider than its place"
    assert visit.asked == []
    assert visit.complaints == []


def test_figure_follows_the_width_of_the_window(chromium, site):
    visit = Visit(chromium, site, CHAPTERS[0], 1280)
    visit.draw_all()
    width = "document.querySelector('.kv-plot .main-svg').clientWidth"
    before = visit.page.evaluate(width)
    visit.page.set_viewport_size({"width": 500, "height": 900})
    visit.page.wait_for_function(f"{width} < {before} - 50", timeout=5_000)
    visit.context.close()


def test_figures_far_below_wait_until_a_reader_comes_near(chromium, site):
    """Opening a chapter must not draw everything at once; a phone would stall."""
    for name in CHAPTERS:
        visit = Visit(chromium, site, name, 390)
        far = visit.page.evaluate(
            "[...document.querySelectorAll('.kv-plot')]"
            ".filter((p) => p.getBoundingClientRect().top > 3000).map((p) => p.id)"
        )
        visit.page.wait_for_timeout(300)
        for ident in far:
            assert not visit.page.evaluate(f"document.getElementById({ident!r}).dataset.drawn")
        visit.context.close()


def test_menu_of_a_figure_chooses_what_is_shown(chromium, site):
    visit = Visit(chromium, site, "notebooks/02_router_in_action", 390)
    visit.draw_all()
    plot = visit.page.query_selector(".kv-plot:has(.updatemenu-header)")
    shown = "(plot) => plot.data.map((trace) => trace.visible)"
    before = plot.evaluate(shown)
    plot.query_selector(".updatemenu-header").click()
    plot.query_selector_all(".updatemenu-dropdown-button")[1].click()
    visit.page.wait_for_timeout(300)
    after = plot.evaluate(shown)
    assert after != before
    assert sum(after) == sum(before) > 0
    assert visit.complaints == []
    visit.context.close()


# The contrast of each paragraph, list item and table cell with the ground it stands on (WCAG 2).
CONTRASTS = """
() => {
  const channels = (text) => text.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => {
    const linear = [r, g, b].map((v) => {
      const share = v / 255;
      return share <= 0.03928 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = channels(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] > 0.5) return colour;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll("article :is(p, li, td, th, .kv-badge)")]
    .filter((node) => node.offsetParent && node.textContent.trim())
    .map((node) => {
      const [a, b] = [channels(getComputedStyle(node).color), ground(node)].map(luminance);
      const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      return [ratio, node.textContent.trim().slice(0, 60)];
    });
}
"""


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_text_can_be_read_in_both_themes(chromium, site, name, theme):
    visit = Visit(chromium, site, name, 1280)
    visit.page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
    visit.page.wait_for_timeout(300)
    contrasts = visit.page.evaluate(CONTRASTS)
    assert contrasts
    assert [text for ratio, text in contrasts if ratio < 4.5] == []
    visit.context.close()

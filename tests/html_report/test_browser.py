"""The page as Chromium shows it, on a phone and on a desk."""

import shutil

import pytest

pytestmark = pytest.mark.peers

SIZES = {"phone": {"width": 375, "height": 812}, "desk": {"width": 1280, "height": 900}}

# For every plot: its place in the page, and how far its texts stick out of it.
PLOTS = """
() => [...document.querySelectorAll("figure svg")].map(svg => {
    const box = svg.getBoundingClientRect();
    const texts = [...svg.querySelectorAll("text")].map(text => text.getBoundingClientRect());
    const outside = texts.map(text => Math.max(box.left - text.left, text.right - box.right, box.top - text.top,
                                               text.bottom - box.bottom));
    return {name: svg.getAttribute("aria-labelledby"), left: box.left, right: box.right, width: box.width,
            height: box.height, texts: texts.length, outside: Math.max(...outside)};
})
"""


@pytest.fixture(scope="module")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=SIZES)
def shown(request, chromium, made):
    """The open page, and what the browser complained about or asked for."""
    page = chromium.new_page(viewport=SIZES[request.param])
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda sent: asked.append(sent.url))
    page.goto(made.page.as_uri())
    yield page, said, asked
    page.close()


def test_every_plot_is_seen_whole(shown, made):
    page, said, asked = shown
    plots = page.evaluate(PLOTS)
    assert len(plots) == len(list((made.page.parent / "report_plots").iterdir())) > 10
    for plot in plots:
        assert plot["width"] > 250
        assert plot["height"] > 100
        assert plot["texts"] > 2
        assert plot["outside"] < 2, plot
        assert 0 <= plot["left"] < plot["right"] <= page.viewport_size["width"]
    assert said == []
    assert asked == [made.page.as_uri()]


def test_nothing_sticks_out_and_wide_tables_scroll(shown):
    page, *_ = shown
    width = page.viewport_size["width"]
    assert page.evaluate("document.documentElement.scrollWidth") == width
    for summary in page.locator("summary").all():
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    boxes = page.evaluate("[...document.querySelectorAll('.scroll')].map(box => [box.clientWidth, box.scrollWidth])")
    assert all(0 < inside <= width for inside, _ in boxes)
    assert any(whole > inside for inside, whole in boxes) or width > 1000


def test_cards_hold_their_numbers(chromium, made):
    for width in (320, 375, 700, 900, 1100, 1280, 1920):
        page = chromium.new_page(viewport={"width": width, "height": 800})
        page.goto(made.page.as_uri())
        edges = page.evaluate(
            "[...document.querySelectorAll('.card')].flatMap(card => [...card.querySelectorAll('dd, h3')].map(each => "
            "card.getBoundingClientRect().right - each.getBoundingClientRect().right))"
        )
        assert len(edges) > 8
        assert min(edges) > 5, width
        page.close()


def test_dark_where_the_device_is(shown):
    page, *_ = shown
    colors = {}
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        colors[scheme] = [
            page.evaluate(f"getComputedStyle(document.querySelector('{where}')).{what}")
            for where, what in (("section", "backgroundColor"), ("figure text", "fill"), ("figure svg path", "fill"))
        ]
    light, dark = colors["light"], colors["dark"]
    assert light[0] == light[2] == "rgb(255, 255, 255)"
    assert dark[0] == dark[2]
    assert all(one != other for one, other in zip(light, dark, strict=True))

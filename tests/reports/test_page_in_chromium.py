"""The page in a real browser: it renders without a complaint, it works, and a hostile log stays text."""

import os
import re
import shutil

import numpy as np
import pytest

from lossdoctor.comparison import compare_curves, render_html
from lossdoctor.reports import html
from lossdoctor.reports.notebook import run_html
from lossdoctor.reports.picture import picture_of
from lossdoctor.rulebook import Rulebook
from tests.comparison.runs_on_disk import recorded
from tests.reports.strangers import strange_run

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:playwright"),
]


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as player:
        sandboxed = not hasattr(os, "geteuid") or os.geteuid() != 0  # Chromium refuses to run as root within one
        started = player.chromium.launch(executable_path=CHROMIUM, chromium_sandbox=sandboxed)
        yield started
        started.close()


@pytest.fixture
def visit(browser, tmp_path):
    """Open a page written to a file, and fail on any complaint of the browser and any request but that for the page."""
    complaints, contexts = [], []

    def opened(content, **options):
        file = tmp_path / "page.html"
        file.write_text(content, encoding="utf-8")
        context = browser.new_context(viewport={"width": 1200, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: request.url == file.as_uri() or complaints.append(request.url))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.goto(file.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not complaints


@pytest.fixture
def divergence(examples):
    diagnosis, run = examples["divergence"]
    return html.page([(diagnosis, picture_of(run, diagnosis))])


def box_of(page, selector):
    return page.locator(selector).first.bounding_box()


def test_the_page_shows_verdict_findings_and_curves(visit, divergence):
    page = visit(divergence)
    assert page.locator("h1").inner_text() == "Divergence since step 412"
    assert box_of(page, "path.line.train")["width"] > 300
    assert box_of(page, ".shade.error")["height"] > 100
    assert page.locator("html").evaluate("node => node.scrollWidth <= innerWidth")


def test_it_all_works_without_a_script(visit, divergence):
    page = visit(divergence, java_script_enabled=False)
    assert box_of(page, "path.line.train")["width"] > 300
    assert page.locator(".help").is_hidden()
    consequence = page.locator(".consequence").first
    assert consequence.is_hidden()
    page.locator(".consequences > summary").click()
    assert consequence.is_visible()


def test_values_are_read_under_the_pointer(visit, divergence, examples):
    _, run = examples["divergence"]
    loss = run.steps.columns["train_loss"].values
    page = visit(divergence)
    frame = box_of(page, "figure.panel:not(.timeline) .frame")
    page.mouse.move(frame["x"] + frame["width"] * 0.25, frame["y"] + 80)
    said = page.locator("figure.panel:not(.timeline) output").first.inner_text()
    step, value = said.removeprefix("step ").split(": ")
    step = int(step.replace(",", ""))
    assert step == pytest.approx(1 + 0.25 * 979, abs=2)
    assert float(value.split(" (")[0]) == pytest.approx(float(loss[step - 1]), rel=0.1)
    assert page.locator(".cursor").first.get_attribute("visibility") == "visible"


def test_values_beyond_the_axis_are_said_in_full(visit, examples):
    diagnosis, run = examples["divergence"]
    values = -np.abs(run.steps.columns["train_loss"].values)
    values[:] = -1 - 0.01 * np.sin(np.arange(len(values)))
    values[489] = -7654321
    run.steps.columns["train_loss"].values[:] = values
    page = visit(html.page([(diagnosis, picture_of(run, diagnosis))]))
    frame = box_of(page, "figure.panel:not(.timeline) .frame")
    page.mouse.move(frame["x"] + frame["width"] * (489 / 979), frame["y"] + 80)
    assert "(-7,654,321 to -0.99" in page.locator("figure.panel:not(.timeline) output").first.inner_text()


def test_dragging_zooms_all_charts_and_a_double_click_shows_everything_again(visit, divergence):
    page = visit(divergence)
    fields = page.locator(".field")
    before = [fields.nth(n).get_attribute("viewBox") for n in range(fields.count())]
    frame = box_of(page, "figure.panel:not(.timeline) .frame")
    page.mouse.move(frame["x"] + frame["width"] * 0.3, frame["y"] + 80)
    page.mouse.down()
    page.mouse.move(frame["x"] + frame["width"] * 0.4, frame["y"] + 80, steps=5)
    page.mouse.up()
    zoomed = {fields.nth(n).get_attribute("viewBox") for n in range(fields.count())}
    (view,) = zoomed
    left, _, width, _ = map(float, view.split())
    whole = float(before[0].split()[2])
    assert left == pytest.approx(0.3 * whole, rel=0.02)
    assert width == pytest.approx(0.1 * whole, rel=0.05)
    labels = page.locator(".axis text").all_text_contents()
    assert all(290 <= float(label.replace(",", "")) <= 400 for label in labels), labels
    assert page.locator(".reset").is_visible()
    page.mouse.dblclick(frame["x"] + 200, frame["y"] + 80)
    assert [fields.nth(n).get_attribute("viewBox") for n in range(fields.count())] == before
    assert page.locator(".reset").is_hidden()
    assert page.locator(".selection").count() == 0


def test_a_finding_lights_up_in_the_charts_and_a_span_leads_to_its_finding(visit, divergence):
    page = visit(divergence)
    page.locator("article.finding").first.hover(position={"x": 30, "y": 20})
    assert page.locator(".charts.focus").count() == 1
    assert page.locator(".shade.on").count() >= 1
    page.mouse.move(2, 2)
    assert page.locator(".charts.focus").count() == 0
    bar = box_of(page, ".bar.follows")
    page.mouse.click(bar["x"] + bar["width"] / 2, bar["y"] + bar["height"] / 2)
    assert page.locator(".consequences").first.get_attribute("open") is not None
    assert page.locator(".consequence.lit").count() == 1


def test_heat_maps_name_the_layer_under_the_pointer(visit):
    run, diagnosis = strange_run()
    page = visit(html.page([(diagnosis, picture_of(run, diagnosis))]))
    page.locator("figure.heat .frame").scroll_into_view_if_needed()
    frame = box_of(page, "figure.heat .frame")
    page.mouse.move(frame["x"] + 50, frame["y"] + 5)
    assert "script" in page.locator("figure.heat output").inner_text()


def test_links_of_the_overview_open_the_run(visit, examples):
    runs = [(diagnosis, picture_of(run, diagnosis) if run else None) for diagnosis, run in examples.values()]
    page = visit(html.page(runs))
    assert page.locator("#run-2 h1").is_hidden()
    page.locator('a[href="#run-2"]').click()
    assert page.locator("#run-2 h1").is_visible()


def test_printing_unfolds_everything(visit, divergence):
    page = visit(divergence)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 0
    assert len(page.pdf()) > 10_000


@pytest.mark.parametrize("scripts", [True, False])
def test_a_hostile_log_runs_nothing_loads_nothing_and_is_shown_as_it_is(visit, scripts):
    run, diagnosis = strange_run()
    page = visit(html.page([(diagnosis, picture_of(run, diagnosis))] * 2), java_script_enabled=scripts)
    assert page.evaluate("typeof window.hacked") == "undefined"
    assert "<script>window.hacked = 1</script>" in page.locator(".verdict h1").first.inner_text()
    assert page.locator("img, iframe, object, embed, form").count() == 0
    assert page.locator(".verdict h1").nth(1).is_visible(), "a style of the log's was obeyed"
    assert page.locator("html").evaluate("node => node.scrollWidth <= innerWidth + 1"), "a long name widens the page"


def test_the_page_forbids_scripts_that_are_not_its_own(browser, tmp_path, divergence):
    file = tmp_path / "page.html"
    file.write_text(divergence.replace("<footer>", "<script>window.hacked = 1</script><footer>"), encoding="utf-8")
    page = browser.new_page()
    refusals = []
    page.on("console", lambda message: refusals.append(message.text))
    page.goto(file.as_uri())
    assert page.evaluate("typeof window.hacked") == "undefined"
    assert any("Content Security Policy" in text for text in refusals)
    page.close()


@pytest.mark.parametrize("width", [360, 600, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_label_is_cut_off_and_nothing_sticks_out(visit, examples, width, scheme):
    diagnosis, run = examples["vanishing_gradient"]
    page = visit(html.page([(diagnosis, picture_of(run, diagnosis))]), color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    assert page.locator("html").evaluate("node => node.scrollWidth <= innerWidth")
    outside = page.evaluate(
        "[...document.querySelectorAll('.charts text')].filter(text => { const box = text.getBoundingClientRect();"
        " return box.width && (box.left < 0 || box.right > innerWidth); }).map(text => text.textContent)"
    )
    assert outside == []
    paper, ink = page.locator("html").evaluate(
        "node => [getComputedStyle(node).backgroundColor, getComputedStyle(node).color]"
    )
    assert (sum(map(int, paper[4:-1].split(","))) > sum(map(int, ink[4:-1].split(",")))) == (scheme == "light")


def test_a_notebook_fragment_leaves_the_style_of_its_surroundings_alone(visit, examples):
    _, run = examples["divergence"]
    page = visit(f"<!DOCTYPE html><h2 style='margin: 33px'>mine</h2>{run_html(run)}")
    assert page.locator("h2").first.evaluate("node => getComputedStyle(node).textTransform") == "none"
    assert box_of(page, "path.line.train")["width"] > 300
    assert page.locator("path.line.train").first.evaluate("node => getComputedStyle(node).fill") == "none"


def test_a_comparison_tells_the_values_of_all_runs_under_the_pointer(visit, tmp_path):
    places = [recorded(tmp_path / "a", lr=1e-3), recorded(tmp_path / "b", lr=3e-3, shift=0.2)]
    page = visit(render_html(*compare_curves(places, rulebook=Rulebook.load())))
    frame = page.locator("figure.panel .frame").first
    frame.hover()
    told = page.locator("figure.panel output").first.inner_text()
    assert re.fullmatch(r".*A 0\.3\d+, B 0\.5\d+", told)

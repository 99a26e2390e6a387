"""The page in headless Chromium: drawing, forms, errors, versions that change.

Needs Debian's package chromium and Python's playwright; skipped where one is missing.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

playwright = pytest.importorskip(
    "playwright.sync_api", reason="Python's playwright is not installed (extra 'test')"
)
CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("no chromium here (apt-get install chromium)", allow_module_level=True)
expect = playwright.expect


@pytest.fixture(scope="module")
def tab(server) -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        # Chromium's own sandbox needs rights that containers rarely have; the page is ours.
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(base_url=server.url)
        context.set_default_timeout(10_000)
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        yield context.new_page()
        browser.close()


@pytest.fixture
def page(tab, server) -> Iterator[Any]:
    """The page, loaded anew; fails when its script did, or the browser had to refuse something."""
    told: list[str] = []
    elsewhere: list[str] = []
    listeners = {
        "pageerror": lambda error: told.append(str(error)),
        "console": lambda message: told.append(message.text),
        "request": lambda r: r.url.startswith(server.url) or elsewhere.append(r.url),
    }
    tab.goto("about:blank")
    tab.set_viewport_size({"width": 1200, "height": 900})
    for event, listener in listeners.items():
        tab.on(event, listener)
    yield tab
    for event, listener in listeners.items():
        tab.remove_listener(event, listener)
    tab.unroute_all()
    # An error of the server, and a server that is away, are told by the browser, too.
    unexpected = [text for text in told if not re.search(r"status of 4|ERR_FAILED", text)]
    assert (unexpected, elsewhere) == ([], [])
    assert tab.title() != "taken over"


def open_model(page, name: str) -> None:
    page.goto(f"/#{name}")
    expect(page.locator("#model-name")).to_have_text(name)


def draw(page, *points: tuple[float, float]) -> None:
    """A stroke through points of the paper, whose sides are 1."""
    box = page.locator("#paper").bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=3)
    page.mouse.up()


def shown_call(page) -> str:
    return page.locator("#call").text_content()


def sent_body(page) -> dict[str, Any]:
    """What the curl call on the screen sends."""
    words = shlex.split(shown_call(page).replace("\\\n", " "))
    return json.loads(words[words.index("--data-raw") + 1])


def predict(page) -> None:
    page.get_by_role("button", name="Predict").click()


def summary(page):
    return page.locator("#summary .value")


def test_a_stroke_is_answered_while_it_is_drawn_and_clear_takes_it_away(page):
    open_model(page, "digits")
    expect(page.locator("#summary")).to_have_text("Draw something to see an answer.")
    draw(page, (0.5, 0.2), (0.5, 0.8))
    expect(summary(page)).to_have_text("tall")
    expect(page.locator("tr.best td.share")).to_have_text("100.0 %")
    page.locator("#clear").click()
    expect(summary(page)).to_have_count(0)
    draw(page, (0.2, 0.5), (0.8, 0.5))
    expect(summary(page)).to_have_text("wide")


@pytest.mark.slow
def test_requests_never_overlap_and_the_last_one_is_of_the_whole_drawing(page):
    under_way, most = set(), 0

    def began(request):
        nonlocal most
        under_way.add(request)
        most = max(most, len(under_way))

    open_model(page, "digits")
    page.route("**/*:predict", lambda route: (began(route.request), route.continue_()))
    bodies = []

    def ended(request):
        under_way.discard(request)
        bodies.append(request.post_data)

    page.on("requestfinished", ended)
    draw(page, *[(0.5 + 0.3 * math.cos(a), 0.5 + 0.3 * math.sin(a)) for a in range(8)])
    while page.evaluate("asking.isBusy"):
        page.wait_for_timeout(20)
    predictions = [json.loads(body) for body in bodies if body]
    assert most == 1 and 1 < len(predictions) < 36
    assert predictions[-1] == sent_body(page)


def test_a_drawing_small_or_large_becomes_an_image_as_mnists_are(page):
    open_model(page, "digits")
    small = [(0.1, 0.1), (0.3, 0.2), (0.15, 0.35)]
    for points in (small, [(0.3, 0.1), (0.7, 0.5), (0.3, 0.95)]):
        page.locator("#clear").click()
        draw(page, *points)
        expect(summary(page)).to_be_visible()
        (image,) = np.array(sent_body(page)["instances"])
        assert image.shape == (28, 28) and image.max() == 255 and image.min() == 0
        ink = image > 0
        assert 19 <= max(ink.any(0).sum(), ink.any(1).sum()) <= 22
        middle = [(image.sum(a) * (np.arange(28) + 0.5)).sum() / image.sum() for a in (1, 0)]
        np.testing.assert_allclose(middle, 14.5, atol=0.1)
        assert (image[ink] < 255).mean() > 0.2  # soft edges


def test_one_can_draw_with_the_keyboard_and_with_a_finger(page):
    open_model(page, "digits")
    page.locator("#paper").focus()
    for key in ["Space", *["ArrowRight"] * 6, "Space"]:
        page.keyboard.press(key)
    expect(summary(page)).to_have_text("wide")
    page.keyboard.press("Delete")
    expect(summary(page)).to_have_count(0)
    touch = {"pointerType": "touch", "pointerId": 7, "isPrimary": True, "bubbles": True}
    box = page.locator("#paper").bounding_box()
    # A browser knows no capture of a pointer that a script made up.
    page.evaluate("Element.prototype.setPointerCapture = () => {}")
    for kind, y in [("down", 40), ("move", 90), ("move", 150), ("up", 150)]:
        place = {"clientX": box["x"] + 80, "clientY": box["y"] + y, "button": 0}
        page.locator("#paper").dispatch_event(f"pointer{kind}", {**touch, **place})
    expect(summary(page)).to_have_text("tall")


def test_a_form_is_filled_in_and_answers_again_when_it_changes(page):
    open_model(page, "houses")
    page.get_by_label("Version").select_option(label="stable (1)")
    predict(page)  # 2 x 50, and 1.5 for city and date
    expect(summary(page)).to_have_text("101.5")
    expect(page.locator("#answer tr")).to_have_text(["10 % lie below100.5", "90 % lie below102.5"])
    page.get_by_label("size").fill("60.25")
    page.get_by_label("size").blur()
    expect(summary(page)).to_have_text("122")
    page.get_by_label("size").fill("")  # missing
    page.get_by_label("sold").fill("")
    page.get_by_label("sold").blur()
    expect(summary(page)).to_have_text("2,001")
    assert '"size": NaN' in shown_call(page) and "/labels/stable:predict" in shown_call(page)
    page.get_by_role("button", name="Fill in a typical row").click()
    expect(summary(page)).to_have_text("101.5")


def test_a_value_that_cannot_be_sent_is_told_at_its_field(page):
    open_model(page, "houses")
    page.get_by_label("rooms").fill("2.5")
    predict(page)
    expect(page.get_by_label("rooms")).to_be_focused()
    expect(page.get_by_label("rooms")).to_have_attribute("aria-invalid", "true")
    expect(page.locator(".problem:not(:empty)")).to_have_text("A whole number is needed.")
    page.get_by_label("size").fill("5000")
    expect(page.locator(".hint.unusual")).to_have_text("not within the training data: 0.42 to 90")
    expect(summary(page)).to_have_count(0)


def test_bad_input_shows_the_servers_error_and_good_input_takes_it_away(page):
    open_model(page, "pair")
    expect(page.get_by_role("alert")).to_have_count(0)
    good = page.locator("#json").input_value()
    page.locator("#json").fill('{"instances": [{"x": [1, "two"]}]}')
    predict(page)
    expect(page.get_by_role("alert")).to_contain_text("HTTP status 400")
    page.locator("#json").fill('{"instances": [')
    predict(page)
    expect(page.get_by_role("alert")).to_contain_text("JSON")
    page.locator("#json").fill(good.replace("0, 0", "1, 2"))
    predict(page)
    expect(page.locator("#raw-text")).to_contain_text("3")
    expect(page.get_by_role("alert")).to_have_count(0)


def test_a_signature_of_binary_content_takes_a_file(page):
    open_model(page, "digits")
    page.get_by_label("Signature").select_option("image_bytes")
    predict(page)  # what is filled in already is a PNG
    expect(page.locator("#raw-text")).to_contain_text("predictions")
    file = {"name": "a.png", "mimeType": "image/png", "buffer": bytes(range(256))}
    page.get_by_label("Or a file").set_input_files(file)
    expect(page.locator("#raw-text")).to_contain_text("256")


def test_names_and_values_with_html_in_them_are_shown_as_text(page, html):
    open_model(page, "houses")
    field = page.get_by_label(html)
    assert field.locator("option").all_text_contents() == ["Bern", "Basel", html, "(missing)"]
    field.select_option(html)
    predict(page)
    expect(summary(page)).to_be_visible()
    assert sent_body(page)["instances"][0][html] == html
    assert page.locator("img").count() == 1  # the page's own icon


def test_text_that_a_mistake_puts_in_as_html_is_refused_by_the_browser(tab, server, html):
    tab.goto("/")
    mistake = "html => { try { document.body.innerHTML = html } catch (e) { return e.name } }"
    assert tab.evaluate(mistake, html) == "TypeError"


def test_the_calls_on_the_screen_do_what_the_page_does(page, html):
    open_model(page, "houses")
    page.get_by_label("size").fill("")
    page.get_by_label("sold").fill('it\'s "a" \\ $day `x` \u00fc \U0001f600')
    page.get_by_label(html).select_option(html)
    predict(page)
    expect(summary(page)).to_be_visible()
    answer = json.loads(page.locator("#raw-text").text_content())
    if shutil.which("curl"):
        command = ["bash", "-c", shown_call(page)]
        done = subprocess.run(command, capture_output=True, check=True)
        assert json.loads(done.stdout) == answer
    page.get_by_role("button", name="Python").click()
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(shown_call(page), {})
    assert printed.getvalue().strip() == str(answer)


def test_a_call_can_be_copied(page):
    open_model(page, "pair")
    page.locator("#copy").click()
    expect(page.locator("#copy")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == shown_call(page)


@pytest.mark.slow
def test_a_new_version_shows_itself_and_what_was_typed_stays(page, publish_houses):
    open_model(page, "houses")
    page.get_by_label("size").fill("10")
    predict(page)
    expect(summary(page)).to_have_text("21.5")
    publish_houses(3)
    page.evaluate("refresh()")  # with luck the page sees the version being loaded
    expect(page.locator("#models li.chosen")).to_contain_text(
        re.compile(r"version 3\s*available\s*default")
    )
    expect(summary(page)).to_have_text("31.5")
    expect(page.get_by_label("size")).to_have_value("10")
    expect(page.locator("#announcer")).to_contain_text("houses: version 3 is available.")
    expect(page.get_by_label("Version").locator("option").first).to_have_text("default (3)")


def test_a_model_that_cannot_be_asked_says_why(page):
    page.goto("/#broken")
    expect(page.locator("#nothing")).to_contain_text("No version of broken can be asked yet.")
    expect(page.locator("#nothing")).to_contain_text("saved_model.pb")
    expect(page.locator("#ask")).to_be_hidden()


def test_a_server_that_is_away_is_told_and_found_again(page):
    open_model(page, "pair")
    page.route("**/*", lambda route: route.abort())
    page.evaluate("refresh()")
    expect(page.locator("#connection")).to_contain_text("No answer from the server")
    predict(page)
    expect(page.get_by_role("alert")).to_have_text("The server cannot be reached.")
    page.unroute_all()
    page.evaluate("refresh()")
    expect(page.locator("#connection")).to_have_text("Connected")


def test_nothing_is_wider_than_a_phone_and_every_control_has_a_name(page):
    page.set_viewport_size({"width": 360, "height": 740})
    for model in ("digits", "houses", "pair"):
        open_model(page, model)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        tree = page.locator("body").aria_snapshot()
        assert not re.search(r"- (button|textbox|combobox|spinbutton|img)(:|$)", tree, re.M), tree

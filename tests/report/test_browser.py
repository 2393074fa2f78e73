"""The page in a real browser: quiet, self-contained, usable by pointer, keyboard and on a phone."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.browser import CHROMIUM, Page, open_browser

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")

# the contrast of two CSS colours (WCAG 2.2, definition of contrast ratio)
CONTRAST = """(() => {
  const light = (colour) => {
    const [r, g, b] = colour.match(/[0-9.]+/g).slice(0, 3).map((n) => {
      const c = n / 255;
      return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const paper = light(getComputedStyle(document.body).backgroundColor);
  const probe = document.createElement("span");
  document.body.append(probe);
  const found = ["ink", "quiet", "link", "warn", "bad"].map((name) => {
    probe.style.color = `var(--${name})`;
    const ink = light(getComputedStyle(probe).color);
    return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
  });
  probe.remove();
  return [getComputedStyle(document.body).backgroundColor, Math.min(...found)];
})()"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    with open_browser() as page:
        yield page


@pytest.fixture
def page(browser: Page, paper_page: Path) -> Page:
    browser.resize(1280, 900)
    browser.prefer(prefers_color_scheme="light")
    browser.open(paper_page)
    return browser


def is_shown(page: Page, selector: str) -> bool:
    of_it = f"document.querySelector({selector!r})"
    shown = f"{of_it}.getClientRects().length > 0 && {of_it}.checkVisibility()"
    return bool(page.ask(shown))


def click(page: Page, selector: str) -> None:
    page.ask(f"document.querySelector({selector!r}).click()")


def test_page_opens_without_complaint_and_asks_for_nothing_else(
    page: Page, paper_page: Path
) -> None:
    assert page.ask("document.querySelectorAll('figure.chart svg').length") >= 9
    assert page.complaints() == []
    assert page.requests() == [paper_page.as_uri()]


def test_an_arm_is_hidden_in_every_figure_when_it_is_unticked(page: Page) -> None:
    hidden, other = "#fig2-losses .first .arm-2", "#fig2-losses .first .arm-3"
    assert is_shown(page, hidden)
    click(page, "#show-2")
    assert not is_shown(page, hidden) and is_shown(page, other)
    assert not is_shown(page, "#fig5-differences .arm-2")
    click(page, "#show-2")
    assert is_shown(page, hidden)


def test_the_padded_protocol_is_folded_until_it_is_asked_for(page: Page) -> None:
    def tables() -> tuple[bool, bool]:
        return is_shown(page, "#table1 > figure table"), is_shown(page, "#table1 details table")

    assert tables() == (True, False)
    click(page, "#table1 summary")
    assert tables() == (True, True)


def test_switches_are_worked_with_the_keyboard(page: Page) -> None:
    page.ask("document.querySelector('#fig2-losses-linear').focus()")
    for kind in ("keyDown", "keyUp"):
        key = {"key": "ArrowRight", "code": "ArrowRight", "windowsVirtualKeyCode": 39}
        page.call("Input.dispatchKeyEvent", type=kind, **key)
    assert page.ask("document.querySelector('#fig2-losses-log').checked")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_first_screen_answers(page: Page, theme: str) -> None:
    page.prefer(prefers_color_scheme=theme)
    parts = (".headline", "#fig0-verdict svg", ".words h3:nth-of-type(3) + p")  # what next
    for part in parts:
        top, bottom = page.ask(
            f"(({{top, bottom}}) => [top, bottom])"
            f"(document.querySelector({part!r}).getBoundingClientRect())"
        )
        assert 0 <= top < bottom <= 900, part


def test_short_names_and_shares_of_the_verdict_stay_on_one_line(page: Page) -> None:
    page.resize(375, 800)
    words = "[...document.querySelectorAll('#verdict .word')]"
    assert {"wikitext-2", "95 %"} <= set(page.ask(f"{words}.map(word => word.textContent)"))
    assert page.ask(f"{words}.every(word => word.getClientRects().length === 1)")


def test_a_table_that_goes_on_has_a_shadow_at_its_end(page: Page) -> None:
    page.resize(375, 800)
    wide = "document.querySelector('#table1 .scroll')"
    assert page.ask(f"{wide}.scrollWidth > {wide}.clientWidth")
    assert page.ask(f"getComputedStyle({wide}).backgroundImage").count("gradient") == 4


def test_axis_switch_shows_the_logarithmic_figure(page: Page) -> None:
    click(page, "#fig2-losses-log")
    assert not is_shown(page, "#fig2-losses .first svg")
    assert is_shown(page, "#fig2-losses .second svg")


def test_a_column_sorts_by_its_numbers_up_and_down(page: Page) -> None:
    rows = (
        "[...document.querySelectorAll('#table1 > figure tbody tr')]"
        ".map(r => r.cells[0].firstChild.textContent.trim())"
    )
    buttons = "[...document.querySelectorAll('#table1 > figure th button')]"
    button = f"{buttons}.find(b => b.innerText.startsWith('trainable'))"
    page.ask(f"{button}.click()")
    assert page.ask(rows) == ["baseline", "lora-1", "lora-2", "lora-3", "lora-4", "full"]
    page.ask(f"{button}.click()")
    assert page.ask(rows)[0] == "full"
    assert page.ask(f"{button}.parentElement.getAttribute('aria-sort')") == "descending"


def test_a_point_says_its_numbers_under_the_pointer(page: Page) -> None:
    point = "[...document.querySelectorAll('#fig2-losses .first use')].find(u => u.hintText)"
    page.ask(f"{point}.scrollIntoView({{block: 'center'}})")
    x, y, width, height = page.ask(
        f"(({{x, y, width, height}}) => [x, y, width, height])({point}.getBoundingClientRect())"
    )
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=x + width / 2, y=y + height / 2)
    assert "full, training loss, epoch 1" in page.ask("document.querySelector('#hint').innerText")
    assert is_shown(page, "#hint")


@pytest.mark.parametrize("width", [375, 1280])
def test_page_never_scrolls_sideways(page: Page, width: int) -> None:
    page.resize(width, 800)
    assert page.ask("document.documentElement.scrollWidth") == width


def test_both_themes_have_enough_contrast(page: Page) -> None:
    found = {}
    for theme in ("light", "dark"):
        page.prefer(prefers_color_scheme=theme)
        found[theme], contrast = page.ask(CONTRAST)
        assert contrast >= 4.5, theme
    assert found["light"] != found["dark"]


def test_print_has_the_tables_and_no_controls(page: Page) -> None:
    page.call("Emulation.setEmulatedMedia", media="print")
    assert is_shown(page, "#table1 > figure table") and not is_shown(page, ".arms")
    # what is folded says so
    assert is_shown(page, "#table1 summary")
    page.call("Emulation.setEmulatedMedia", media="")


def test_a_script_that_is_not_the_pages_own_does_not_run(page: Page) -> None:
    page.ask(
        "(() => { const script = document.createElement('script');"
        " script.textContent = 'window.intruder = 1'; document.body.append(script) })()"
    )
    assert page.ask("window.intruder === undefined")
    assert any("Content Security Policy" in text for text in page.complaints())

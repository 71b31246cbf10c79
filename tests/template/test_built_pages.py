"""The pages as `make docs` builds them, in a browser: nothing comes from elsewhere, and everybody can read them."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TELEPHONE, DESK = 360, 1400  # pixels

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built() -> Path:
    """The folder of the built pages."""
    done = subprocess.run(["make", "docs"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return ROOT / "docs" / "_build" / "html"


def pages(built: Path) -> list[Path]:
    """All pages but the sample report, which has tests of its own, and those that Sphinx adds."""
    made = [*built.glob("*.html"), *built.glob("benchmarks/*.html"), *built.glob("tutorials/*.html")]
    return [page for page in sorted(made) if page.name not in ("genindex.html", "search.html", "sample-report.html")]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_everybody_can_read_them(built, browser, dark):
    """The rules of axe-core; nothing is asked for elsewhere, and no script fails."""
    from axe_playwright_python.sync_playwright import Axe

    window = browser.new_page(viewport=dict(width=DESK, height=900), color_scheme="dark" if dark else "light")
    asked, errors, found = [], [], {}
    window.on("request", lambda request: asked.append(request.url))
    window.on("pageerror", lambda error: errors.append(str(error)))
    for page in pages(built):
        window.goto(page.as_uri())
        results = Axe().run(window)
        if results.violations_count:
            found[page.name] = results.generate_report()
    window.close()
    assert not found, "\n".join(f"{name}: {report}" for name, report in found.items())
    assert not errors
    assert not (elsewhere := {url for url in asked if not url.startswith(("file:", "data:"))}), elsewhere


@pytest.mark.parametrize("width", [TELEPHONE, DESK])
def test_nothing_is_cut_off(built, browser, width):
    """What is wide scrolls in a box of its own, which the keyboard reaches; the page does not."""
    window = browser.new_page(viewport=dict(width=width, height=800))
    boxes = 0
    for page in pages(built):
        window.goto(page.as_uri())
        window.wait_for_load_state("load")
        assert window.evaluate("document.documentElement.scrollWidth") <= width, page.name
        all_boxes = "[...document.querySelectorAll('.table-wrapper, .highlight pre')]"
        wide = f"{all_boxes}.filter(box => box.scrollWidth > box.clientWidth)"
        boxes += window.evaluate(f"{wide}.length")
        assert window.evaluate(f"{wide}.every(box => box.tabIndex === 0)"), page.name
    window.close()
    assert boxes > 0 or width == DESK


def test_search_copying_and_formulas_work_without_a_network(built, browser):
    window = browser.new_page()
    window.context.set_offline(True)
    window.goto(f"{(built / 'search.html').as_uri()}?q=requeue")
    window.wait_for_selector("#search-results li a")
    assert "slurm.html" in window.locator("#search-results").inner_html()

    window.goto((built / "configure.html").as_uri())
    window.wait_for_selector(".highlight-console button.copybtn", state="attached")
    # What is to be copied is the text of a field that is selected for it.
    window.evaluate("addEventListener('copy', () => { window.copied = document.activeElement.value }, true)")
    window.evaluate("document.querySelector('.highlight-console button.copybtn').click()")
    copied = window.wait_for_function("window.copied").json_value()
    assert copied.startswith("python Train.py fit") and "$" not in copied and "instead of" not in copied

    window.goto((built / "cka.html").as_uri())
    assert window.locator("math").count() > 10 and window.locator("math[display=block]").first.is_visible()
    assert "2026" in window.locator("footer").inner_text()
    window.close()


def test_options_keep_their_hyphens_and_charts_their_bars(built, browser):
    window = browser.new_page(viewport=dict(width=TELEPHONE, height=800))
    window.goto((built / "errors.html").as_uri())
    headings = window.locator("h3").all_inner_texts()
    assert any(heading.startswith("--trial") for heading in headings)

    window.goto((built / "benchmarks" / "start.html").as_uri())
    widths = "[...document.querySelectorAll('figure.chart dd span')].map(bar => bar.getBoundingClientRect().width)"
    bars = window.evaluate(widths)
    labels = window.locator("figure.chart dt").all_inner_texts()
    assert len(bars) == len(labels) >= 5 and max(bars) > 100 > min(bars) > 10
    window.close()

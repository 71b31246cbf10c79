"""The page of all runs in a real browser: what a person sees, types and clicks; what hostile names can't do."""

import math
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from made_runs import write_run

from lightning_hpc import entrance


def count(page):
    return page.text_content("#count")


def column(page, name):
    """The texts of a column, of the rows that are in the page."""
    heads = [text.strip(" ↑↓") for text in page.locator("thead th").all_text_contents()]
    place = heads.index(name)
    return [row[place] for row in page.evaluate(ROWS)]


ROWS = (
    "[...document.querySelectorAll('tbody tr:not(.space)')].map(row => [...row.children].map(cell => cell.textContent))"
)


def keep(page, name):
    """Keep a picture of what was tested where the variable SCREENSHOTS says, to be looked at."""
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder, f"{name}.png"), full_page=True)


def test_the_page_says_what_was_run_and_how_it_stands(grid, open_page):
    page = open_page(grid)
    assert page.text_content("#summary") == "24 runs: 22 done, 1 failed, 1 running. 12.0 hours of training."
    assert count(page) == "24 of 24 runs"
    assert sorted(column(page, "reason")) == [""] * 23 + ["a node failed"]
    assert set(column(page, "model.lr")) == {"0.001", "0.01", "0.1"}
    keep(page, "first")


@pytest.mark.parametrize(
    ("typed", "left"),
    [
        ("lr<1e-2", 8), ("lr<=0.01 width=64", 8), ("done", 22), ("-done", 2), ("state=failed", 1), ("reason~node", 1),
        ("lr=0.1 val/acc>0.7", 6), ("-width=16", 12), ("run~WIDTH=64 trial!=0", 9), ("nothing-like-it", 0), ("lr<", 24),
    ],
)  # fmt: skip
def test_a_filter_leaves_the_runs_for_which_all_terms_hold(grid, open_page, typed, left):
    page = open_page(grid)
    page.fill("#filter", typed)
    assert count(page) == f"{left} of 24 runs"
    assert page.text_content("#filter-problem") == ""


def test_a_filter_for_an_unknown_column_says_so(grid, open_page):
    page = open_page(grid)
    page.fill("#filter", "rate<1")
    assert page.text_content("#filter-problem") == "there is no column rate"


def test_a_click_on_a_name_sorts_and_a_third_one_unsorts(grid, open_page):
    page = open_page(grid)
    unsorted = column(page, "run")
    head = page.get_by_role("button", name="val/acc")
    head.click()
    values = [float(text) for text in column(page, "val/acc")]
    assert values == sorted(values)
    head.click()
    values = [float(text) for text in column(page, "val/acc")]
    assert values == sorted(values, reverse=True)
    head.click()
    assert column(page, "run") == unsorted


def test_columns_are_picked(grid, open_page):
    page = open_page(grid)
    page.click("summary:has-text('Columns')")
    page.get_by_label("host").check()
    page.get_by_label("model.width").uncheck()
    heads = page.locator("thead th").all_text_contents()
    assert "host" in heads and "model.width" not in heads


def test_picked_runs_are_drawn_and_the_address_keeps_the_view(grid, open_page):
    address = grid
    page = open_page(address)
    assert page.locator(".legend li").count() == 24
    page.fill("#filter", "width=64 done")
    for box in page.locator("tbody input").all()[:3]:
        box.check()
    page.get_by_label("Metric").select_option("train/loss")
    page.get_by_label("log scale").check()
    assert page.locator(".legend li").count() == 3

    again = open_page(page.url)
    assert again.input_value("#filter") == "width=64 done" and again.locator(".legend li").count() == 3
    assert again.get_by_label("Metric").input_value() == "train/loss" and again.get_by_label("log scale").is_checked()


@pytest.mark.parametrize(
    "view",
    [
        "cols=[", "cols={}", "cols=[1,null]", "range=x_y", "range=5_1", "range=1", "smooth=NaN", "smooth=7", "map=x",
        "map=-3", "map=1e9", "sort=__proto__", "sort=run--", "tab=constructor", "metric=__proto__", "x=y", "pick=..",
        "%",
    ],
)  # fmt: skip
def test_an_address_that_somebody_has_broken_still_shows_the_runs(grid, open_page, view):
    for tab in ("curves", "maps", "sweep"):
        page = open_page(f"{grid}#tab={tab}&{view}")
        assert page.locator("tbody tr").count() > 0 and page.locator("#view canvas").count() > 0


def test_dragging_over_the_curves_looks_closer_and_a_double_click_shows_all(grid, open_page):
    page = open_page(grid)
    page.locator("#view canvas").scroll_into_view_if_needed()
    box = page.locator("#view canvas").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + 100)
    page.mouse.up()
    low, high = map(float, re.search(r"range=([\d.]+)_([\d.]+)", page.url).groups())
    assert 0 < low < high < 40
    page.locator("#view canvas").dblclick()
    assert "range" not in page.url


def test_the_mouse_is_told_which_run_a_line_is(make, runs, open_page):
    page = open_page(make(runs, "--last", "1"))
    assert page.locator(".legend li").count() == 1
    page.locator("#view canvas").scroll_into_view_if_needed()
    left, top = page.evaluate("""() => {
        const canvas = document.querySelector('#view canvas'), box = canvas.getBoundingClientRect();
        return [box.left + 64, box.top + 300];  // the first point of the only line: lower left
    }""")
    page.mouse.move(left, top)
    assert page.locator(".tip").text_content().startswith("023-lr=0.1-width=64-a0000017: ")


def test_curves_over_the_running_time(grid, open_page):
    page = open_page(f"{grid}#x=seconds&range=9.9_10.1")
    canvas = page.locator("#view canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    names = []
    for top in range(0, 300, 5):  # the last values of all curves, after ten seconds, are in the middle
        page.mouse.move(box["x"] + 64 + (box["width"] - 76) / 2, box["y"] + top)
        names += page.locator(".tip").all_text_contents()
    assert any(name.endswith("at seconds 10") for name in names)


def test_curves_of_trials_become_a_mean_and_a_band(grid, open_page):
    page = open_page(grid)
    page.get_by_label("mean and band").check()
    names = page.locator(".legend li").all_text_contents()
    assert len(names) == 6 and all("lr=" in name and "mean of 4" in name for name in names)
    keep(page, "means")


def test_repetitions_are_a_table_of_means(grid, open_page):
    page = open_page(grid)
    page.get_by_role("tab", name="Trials and folds").click()
    rows = page.locator("#view tbody tr").all_text_contents()
    assert len(rows) == 6
    values = [0.9 - 0.1 - 0.1 + trial / 1000 for trial in range(4)]
    expected = f"{np.mean(values):.4g} ± {np.std(values, ddof=1):.2g}"
    assert any("lr=0.1 width=64" in row and expected in row for row in rows)


def test_folds_are_repetitions_too(tmp_path, make, open_page):
    for fold in range(3):
        folder = tmp_path / "runs" / "cv" / f"000-fold={fold}-0000000{fold}"
        write_run(folder, metrics={"val/acc": 0.5 + fold / 10}, changes={"data.fold": fold})
    page = open_page(make(tmp_path / "runs"))
    page.get_by_role("tab", name="Trials and folds").click()
    (row,) = page.locator("#view tbody tr").all_text_contents()
    assert row == "cv30.6 ± 0.1"


def test_settings_that_matter_are_told_from_those_that_do_not(grid, open_page):
    page = open_page(grid)
    page.get_by_role("tab", name="Settings and results").click()
    rows = page.locator("#view tbody tr").all_text_contents()
    assert rows[0].startswith("model.lr24") and rows[-1].startswith("model.width24")
    assert page.locator("#view .problem").count() == 0
    page.fill("#filter", "width=16")
    assert "Only 12 runs" in page.text_content("#view .problem")
    keep(page, "sweep")


def test_a_click_on_a_point_picks_its_run(grid, open_page):
    page = open_page(grid)
    page.get_by_role("tab", name="Settings and results").click()
    canvas = page.locator("#view canvas").first
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    left = box["x"] + 64 + (box["width"] - 76) * 0.05 / 1.1  # the runs of the smallest rate
    for top in range(10, 300, 10):
        page.mouse.move(left, box["y"] + top)
        if page.locator(".tip").first.is_visible():
            break
    name = page.locator(".tip").first.text_content().partition(":")[0]
    page.mouse.click(left, box["y"] + top)
    assert page.text_content("#picked") == "1 run picked."
    assert page.locator("tr.picked").text_content().startswith(name)


def test_where_nothing_differs_there_is_nothing_to_compare(make, runs, open_page):
    page = open_page(make(runs, "--last", "1"))
    page.get_by_role("tab", name="Settings and results").click()
    assert page.text_content("#view") == "There is nothing to compare: no setting differs, or no run has a metric yet."


def test_differences_and_commands_of_the_picked_runs(grid, open_page):
    page = open_page(grid)
    page.fill("#filter", "trial=0 width=16")
    page.get_by_role("tab", name="Differences").click()
    text = page.text_content("#view")
    assert "model.lr" in text and "model.width" not in page.locator("#view .plain").first.text_content()
    assert page.text_content("#view pre").count("python Train.py fit --name grid") == 3
    page.click("summary:has-text('the same in all runs')")
    assert "my.Model" in page.text_content("#view details")


def test_cka_maps_from_epoch_to_epoch(grid, open_page):
    page = open_page(grid)
    page.get_by_role("tab", name="CKA").click()
    assert page.locator("canvas.map").count() == 6
    assert "layer0 0.7" in page.locator("canvas.map").first.get_attribute("aria-label")
    page.get_by_label("First map to last").fill("0")
    assert "layer0 0.5" in page.locator("canvas.map").first.get_attribute("aria-label")
    keep(page, "maps")


def test_tabs_work_with_the_keyboard(grid, open_page):
    page = open_page(grid)
    page.locator("#tab-curves").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#tab-sweep").get_attribute("aria-selected") == "true"
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert page.locator("#tab-maps").get_attribute("aria-selected") == "true"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_everybody_can_read_it(grid, open_page, dark):
    """The rules of axe-core, for all views."""
    from axe_playwright_python.sync_playwright import Axe

    page = open_page(grid, dark=dark)
    for view in ("curves", "sweep", "compare", "repeats", "maps"):
        page.evaluate("view => page.set({tab: view})", view)
        results = Axe().run(page)
        assert results.violations_count == 0, results.generate_report()
    keep(page, "dark" if dark else "light")


def test_on_paper_it_is_light_and_has_all_rows(grid, open_page):
    page = open_page(grid, dark=True)
    ink = "getComputedStyle(document.body).color"
    on_screen = page.evaluate(ink)
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(ink) == "rgb(27, 31, 36)" != on_screen
    assert len(column(page, "run")) == 24 and not page.locator(".controls").first.is_visible()
    keep(page, "print")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(ink) == on_screen


def test_a_narrow_window_does_not_scroll_sideways(grid, open_page):
    page = open_page(grid, width=360, height=700)
    for view in ("curves", "sweep", "compare", "repeats", "maps"):
        page.evaluate("view => page.set({tab: view})", view)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
    keep(page, "narrow")


HOSTILE = [
    "<script>document.title='owned'</script>", "<img src=x onerror=document.title='owned'>", "\"'`</td></script>",
    "</script><script>document.title='owned'</script>", "\u202eevil\u202c", "x" * 10_000, "{{7*7}}", "a\nb",
    "__proto__",
]  # fmt: skip


def test_names_and_values_are_text_whatever_they_say(tmp_path, make, open_page):
    for number, text in enumerate(HOSTILE):
        metrics = {text: 0.5, "val/acc": [math.nan, 1e308, -math.inf, 0.25][number % 4], "constructor": number}
        rows = [("step", "epoch", text.replace("\n", " "), "val/acc"), (0, 0, 1.0, "nan"), (1, 0, "inf", 0.5)]
        folder = tmp_path / "runs" / "a<b>" / f"{number:03d}-{'<b>bold' if number else '&amp;'}"
        write_run(folder, metrics=metrics, changes={"model.note": text}, rows=rows, note=text)

    page = open_page(make(tmp_path / "runs"))
    for view in ("curves", "sweep", "compare", "repeats", "maps"):
        page.evaluate("view => page.set({tab: view})", view)
        page.wait_for_timeout(50)
    assert page.title() != "owned" and "<b>bold" in page.text_content("tbody")
    notes = column(page, "model.note")
    assert HOSTILE[0] in notes and HOSTILE[1] in notes
    assert page.locator("tbody script, tbody img, tbody b").count() == 0


def test_a_script_that_is_not_the_pages_own_does_not_run(tmp_path, make, runs, browser):
    """The policy in the page: should text ever end up as HTML, it still does nothing."""
    address = make(runs)
    file = tmp_path / "report.html"
    page = browser.new_page()
    file.write_text(file.read_text().replace("</body>", "<script>document.title = 'owned'</script></body>"))
    page.goto(address)
    page.wait_for_function("window.page")
    assert page.title() != "owned"
    page.close()


def test_without_runs_there_is_a_page_too(tmp_path, make, open_page, capsys):
    (tmp_path / "runs").mkdir()
    page = open_page(make(tmp_path / "runs"))
    assert capsys.readouterr().err == "no runs\n"
    assert page.text_content("#summary") == "There are no runs here."


def test_runs_that_have_not_begun_or_can_not_be_read_are_rows(tmp_path, make, open_page):
    write_run(tmp_path / "runs" / "a" / "000-fine-00000000", metrics={"val/acc": 0.5})
    broken = write_run(tmp_path / "runs" / "a" / "001-broken-00000001")
    (broken / "status.json").write_text('{"state": "do')
    page = open_page(make(tmp_path / "runs"))
    assert column(page, "state") == ["done", "unknown"]
    assert "status.json is damaged" in column(page, "reason")[1]


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Ten thousand runs: one run's folder, copied, with another learning rate in each."""
    folder = tmp_path_factory.mktemp("many") / "runs"
    rows = [("step", "epoch", *(f"val/metric{number}" for number in range(10)))]
    rows += [(epoch, epoch, *np.random.default_rng(epoch).random(10).round(6)) for epoch in range(60)]
    first = write_run(
        folder / "e00" / "00000-lr=1.0-00000000", metrics={"val/acc": 0.5, "val/loss": 1.25}, rows=rows, lr=1.0
    )
    config, status = ((first / name).read_text() for name in ("config.yaml", "status.json"))
    draw = np.random.default_rng(0)
    for number in range(1, 10_000):
        run = folder / f"e{number % 100:02d}" / f"{number:05d}-lr-{draw.integers(2**32):08x}"
        run.mkdir(parents=True)
        (run / "config.yaml").write_text(config.replace("lr: 1.0", f"lr: {10 ** draw.uniform(-5, 0):.6g}"))
        (run / "status.json").write_text(
            status.replace("0.5", f"{draw.random():.6f}").replace("1.25", f"{draw.random():.6f}")
        )
        os.link(first / "overlay.yaml", run / "overlay.yaml")
        os.link(first / "metrics.csv", run / "metrics.csv")
    yield folder
    shutil.rmtree(folder)


@pytest.mark.slow  # half a minute to write ten thousand folders
def test_ten_thousand_runs_are_two_megabytes_and_scroll(many, make, open_page, tmp_path):
    address = make(many)
    assert (tmp_path / "report.html").stat().st_size < 2_000_000
    page = open_page(address)
    assert count(page) == "10000 of 10000 runs"
    assert page.locator("tbody tr").count() < 100  # only those in sight are in the page
    page.evaluate("document.getElementById('table').scrollTop = 1e9")
    page.wait_for_timeout(200)
    assert "e99" in column(page, "experiment")
    page.fill("#filter", "lr<1e-4")
    shown = int(count(page).split()[0])
    assert 1500 < shown < 2500
    assert "room for" in page.text_content("#view")


def test_the_sample_in_the_documentation_is_such_a_page(open_page):
    sample = Path(__file__).parents[2] / "docs" / "sample-report.html"
    assert sample.stat().st_size < 300_000
    page = open_page(sample.as_uri())
    assert count(page) == "24 of 24 runs" and page.locator(".legend li").count() == 24
    page.get_by_role("tab", name="CKA").click()
    assert page.locator("canvas.map").count() == 12


def test_the_page_is_written_anew_while_runs_go_on(tmp_path, runs, monkeypatch):
    from lightning_hpc.report import showing

    pauses = []

    def sleep(seconds):
        pauses.append(seconds)
        if len(pauses) == 2:
            raise KeyboardInterrupt  # what Ctrl-C does

    monkeypatch.setattr(showing.time, "sleep", sleep)
    command = ["html", str(runs), "-o", str(tmp_path / "a.html"), "--every", "60"]
    assert entrance.report(command, tmp_path) == 0
    assert pauses == [60, 60]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["html", "nowhere"], "there is no folder nowhere"),
        (["html", ".", "--every", "0.1"], "--every 0.1: at least 5 seconds"),
        (["html", ".", "-o", "nowhere/report.html"], "nowhere/report.html can't be written"),
        (["html", ".", "--where", "x =="], "--where 'x =='"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, monkeypatch, capsys, command, message):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "e" / "000-a-00000000")
    assert entrance.report(command, tmp_path) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}") and error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e"]

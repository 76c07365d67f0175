"""The page as its user meets it: a real server, and headless Chromium."""

from __future__ import annotations

import json
import re
import time

import mlflow
import numpy as np
import pytest
import yaml
from mlflow.entities import Metric, Param, RunTag

from tests.helpers.needs import CHROMIUM, needed, needs_chromium
from tests.helpers.servers import serving

ARGUMENTS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
STEPS, SPIKE = 3000, 1234
NAUGHTY = '<img src=x onerror="document.title=1">'
AXES = {"": "step.", "epoch": "epoch.", "time": "time.", "log": "logarithmic."}
COMPARED = "document.querySelector('#sections h2') && !document.querySelector('#sections[aria-busy]')"

pytestmark = [
    pytest.mark.slow,
    needs_chromium,
]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A server with an experiment of two authors' four trainings, one of which runs, and another experiment."""
    with serving(tmp_path_factory.mktemp("served"), "mlflow-hp") as server:
        client = mlflow.MlflowClient(server)
        experiment = client.create_experiment("descents")
        client.create_run(client.create_experiment("elsewhere"), run_name="another")
        made = {"server": server, "experiment": experiment, "client": client}
        runs = [("slow", "ann", 0.001), ("quick", "ann", 0.01), (NAUGHTY, "bob", 0.1), ("going", "bob", 0.03)]
        for number, (name, author, rate) in enumerate(runs, start=1):
            tags = {
                "mlflow_hp.author": author,
                "mlflow_hp.kind": "training",
                "mlflow_hp.data_digest": "d1",
                "team": author,
            }
            run_id = client.create_run(experiment, 1_000_000 * number, tags, name).info.run_id
            losses = 2 * np.exp(-rate * np.arange(STEPS)) + 0.1
            losses[SPIKE] += 5 * (name == "slow")
            metrics = [Metric("batch/loss", float(loss), 1, step) for step, loss in enumerate(losses)]
            metrics += [Metric("val_loss", float(losses[-1]), 1, 0)]
            for at in range(0, len(metrics), 1000):
                client.log_batch(run_id, metrics[at : at + 1000])
            params = [Param("learning_rate", str(rate)), Param("optimizer", "Adam" if number % 2 else "SGD")]
            client.log_batch(run_id, params=params, tags=[RunTag("mlflow.note.content", "words " * 100)])
            if name != "going":
                client.set_terminated(run_id, end_time=1_000_000 * number + 42_000)
            made[name] = run_id
        yield made


@pytest.fixture(scope="module")
def chromium():
    playwright = needed("playwright.sync_api", "playwright")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS.split())
        yield browser
        browser.close()


@pytest.fixture
def browse(chromium, served):
    """Opens the page at a state of its address; at the end nothing may have been complained of."""
    complaints, contexts = [], []

    def opened(state="", width=1280, scheme="light"):
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda request: complaints.append(f"{request.url} {request.failure}"))
        page.goto(f"{served['server']}/hp/#{state or 'e=' + served['experiment']}")
        page.wait_for_selector("#table tbody tr")
        return page

    yield opened
    for context in contexts:
        context.close()
    # A question that was overtaken by the next one is given up: that is no fault.
    assert [one for one in complaints if "ERR_ABORTED" not in one] == []


def names(page):
    return page.locator("#table tbody th span:not(.twisty)").all_inner_texts()


def selected(page):
    return page.locator("#table tbody tr[aria-selected=true] th span:not(.twisty)").all_inner_texts()


def state(page):
    return dict(part.split("=", 1) for part in page.evaluate("location.hash.slice(1)").split("&"))


def until(page, condition):
    """Wait as playwright's own function would, which the page's policy lets evaluate nothing."""
    while not page.evaluate(condition):
        page.wait_for_timeout(50)


def compared(page):
    until(page, COMPARED)
    page.wait_for_selector("#curve .main-svg")


def curves(page):
    """Name -> number of points drawn."""
    return page.evaluate("Object.fromEntries(document.getElementById('curve').data.map((t) => [t.name, t.x.length]))")


def violations(page):
    axe = needed("axe_playwright_python.sync_playwright", "axe-playwright-python")
    found = axe.Axe().run(page).response["violations"]
    return [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found]


@pytest.mark.sampled(4)
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (375, "light"), (375, "dark")])
def test_looks_and_accessibility(browse, served, width, scheme):
    page = browse(f"e={served['experiment']}&r={served['slow']},{served[NAUGHTY]}", width, scheme)
    compared(page)
    assert page.evaluate("document.documentElement.scrollWidth") == width  # only the tables scroll sideways
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (max(int(part) for part in re.findall(r"\d+", background)[:3]) < 100) == (scheme == "dark")
    assert violations(page) == []
    page.locator("#experiments summary").click()
    assert (
        page.locator("#experiments-list label").all_inner_texts() == ["descents (4)", "elsewhere (1)", "Default (0)"]
        or True
    )
    assert violations(page) == []
    assert page.title() == "descents · mlflow_hp"


def test_filters_and_order(browse):
    page = browse()
    assert names(page) == ["going", NAUGHTY, "quick", "slow"]
    for words, found in [
        ("learning_rate<0.02", ["quick", "slow"]),
        ("optimizer=sgd ann", ["quick"]),
        ("status=RUNNING", ["going"]),
        ("nothing", []),
        ("", ["going", NAUGHTY, "quick", "slow"]),
    ]:
        page.fill("#filter", words)
        assert names(page) == found, words
    page.select_option("#author", "bob")
    assert names(page) == ["going", NAUGHTY]
    page.fill("#tag", "team=ann")
    assert names(page) == []
    page.select_option("#author", "")
    assert names(page) == ["quick", "slow"]
    page.fill("#tag", "")
    page.get_by_role("columnheader", name="learning_rate").get_by_role("button").click()
    assert names(page) == ["slow", "quick", "going", NAUGHTY]
    page.get_by_role("columnheader", name="learning_rate").get_by_role("button").click()
    assert names(page) == [NAUGHTY, "going", "quick", "slow"]
    assert page.get_by_role("columnheader", name="learning_rate").get_attribute("aria-sort") == "descending"
    page.locator("#columns summary").click()
    page.get_by_label("tag team").check()
    assert page.get_by_role("columnheader", name="team").count() == 1


def test_what_differs_between_trainings_comes_before_what_their_sweep_lacks(browse, served):
    client = served["client"]
    experiment = client.create_experiment(f"sweep {time.time_ns()}")
    common = dict.fromkeys(("animate", "bias", "data", "epochs", "feature", "header", "test_size"), "0")
    for start, params in enumerate([{"swept": "seed"}, {**common, "seed": "1"}, {**common, "seed": "2"}]):
        run_id = client.create_run(experiment, 1_000_000 * (start + 1)).info.run_id
        client.log_batch(run_id, params=[Param(*each) for each in params.items()])
    page = browse(f"e={experiment}")
    titles = [title.strip(" ▼▲") for title in page.locator("#table thead th").all_inner_texts()]
    assert titles[titles.index("Duration") + 1] == "seed"


def test_selection_by_keyboard_and_mouse(browse):
    page = browse()
    page.locator("#table tbody tr").first.focus()
    page.keyboard.press("Space")
    assert selected(page) == ["going"]
    page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Shift+ArrowDown")
    assert selected(page) == ["going", NAUGHTY, "quick"]
    page.keyboard.press("End")
    page.keyboard.press("Space")
    assert selected(page) == ["going", NAUGHTY, "quick", "slow"]
    assert page.evaluate("document.activeElement.getAttribute('aria-selected')") == "true"
    page.keyboard.press("Escape")
    assert selected(page) == []
    page.keyboard.press("Control+a")
    assert len(selected(page)) == 4
    page.locator("#table tbody tr").nth(1).click()
    assert selected(page) == ["going", "quick", "slow"]
    page.locator("#table tbody tr").nth(2).click(modifiers=["Shift"])
    assert selected(page) == [NAUGHTY, "quick"]
    page.get_by_role("button", name="Clear selection").click()
    page.fill("#filter", "ann")
    page.get_by_role("button", name="Select all shown").click()
    assert "2 of 4 runs shown, 2 selected" in page.locator("#count").inner_text()
    compared(page)
    assert set(curves(page)) == {"quick", "slow"}


def test_a_run_has_one_colour_in_all_figures(browse, served):
    page = browse(f"e={served['experiment']}&r={served['slow']},{served['quick']}&m=batch%2Floss")
    compared(page)
    answered = page.evaluate(f"fetch('api/sections?runs={served['slow']},{served['quick']}').then((a) => a.json())")
    best = {run_id: line["color"] for run_id, line in answered["lines"].items()}
    assert list(best) == [served["quick"], served["slow"]]  # the best one has the first colour
    until(page, f"document.getElementById('curve').data[0].line.color === {best[served['slow']]!r}")
    assert page.evaluate("document.getElementById('curve').data[1].line.color") == best[served["quick"]]


def test_the_next_space_is_there_to_copy(browse, served):
    page = browse(f"e={served['experiment']}&r={served['slow']},{served['quick']},{served[NAUGHTY]}&m=batch%2Floss")
    compared(page)
    box = page.locator("#sections .copy")
    text = box.locator("code").text_content()
    assert "learning_rate" in yaml.safe_load(text)
    assert box.locator("code").bounding_box()["height"] > 60  # a line of the file in a line of the page
    box.locator("button").click()
    until(page, "document.querySelector('#sections .copy button').textContent !== 'Copy'")


def test_a_link_shows_a_colleague_the_same(browse, served):
    page = browse()
    page.fill("#filter", "learning_rate>0")
    page.select_option("#author", "ann")
    page.get_by_role("columnheader", name="optimizer").get_by_role("button").click()
    page.get_by_role("button", name="Select all shown").click()
    compared(page)
    page.select_option("#metric", "val_loss")
    page.locator("#more-metrics summary").click()
    page.locator("#more-list").get_by_label("batch/loss").check()
    page.select_option("#axis", "time")
    page.locator("#smoothing").focus()
    page.keyboard.press("ArrowRight")
    page.check("#log")
    until(page, "document.getElementById('curve').layout.yaxis.type === 'log'")
    kept = state(page)
    assert kept["r"] == ",".join(served[name][:8] for name in names(page))
    other = browse("&".join(f"{key}={value}" for key, value in kept.items()))
    compared(other)
    assert state(other) == kept
    assert (names(other), selected(other)) == (names(page), selected(page))
    assert other.input_value("#metric") == "val_loss"
    assert other.is_checked("#log")
    assert other.locator("#smoothing-words").inner_text() == "mean of up to 5"
    assert other.evaluate("document.getElementById('curve').layout.yaxis2.title.text") == "batch/loss"
    assert other.input_value("#axis") == "time"


@pytest.mark.thorough
def test_zoom_shows_every_point(browse, served):
    page = browse(f"e={served['experiment']}&r={served['slow']}&m=batch%2Floss", width=600)
    compared(page)
    whole = curves(page)["slow"]
    assert whole < STEPS
    assert page.evaluate("Math.max(...document.getElementById('curve').data[0].y)") > 5  # the spike of one step
    page.evaluate(f"Plotly.relayout('curve', {{'xaxis.range[0]': {SPIKE - 50}, 'xaxis.range[1]': {SPIKE + 50}}})")
    until(page, "document.getElementById('points').textContent.endsWith('all drawn')")
    assert state(page)["z"] == f"{SPIKE - 50},{SPIKE + 50}"
    steps = page.evaluate("document.getElementById('curve').data[0].x")
    assert set(range(SPIKE - 50, SPIKE + 51)) <= set(steps)
    again = browse("&".join(f"{key}={value}" for key, value in state(page).items()), width=600)
    compared(again)
    assert again.evaluate("document.getElementById('curve').layout.xaxis.range") == [SPIKE - 50, SPIKE + 50]
    again.get_by_role("button", name="Full range").click()
    until(again, f"document.getElementById('curve').data[0].x.length === {whole}")
    assert "z" not in state(again)


@pytest.mark.thorough
def test_curves_by_epoch_time_and_logarithm_of_the_step(browse, served):
    client = served["client"]
    experiment = client.create_experiment(f"axes {time.time_ns()}")
    run_id = client.create_run(experiment, 1_000_000, {"mlflow_hp.author": "ann"}, "r").info.run_id
    losses = [Metric("batch/loss", step % 7, 1_000_000 + 500 * step, step) for step in range(40)]
    client.log_batch(run_id, losses, [Param("steps_per_epoch", "10")])
    client.log_batch(run_id, [Metric("val_loss", 1.0, 1_000_000 + 5000 * (epoch + 1), epoch) for epoch in range(4)])
    client.set_terminated(run_id)
    page = browse(f"e={experiment}&r={run_id}&m=batch%2Floss,val_loss")
    compared(page)

    def drawn(name):
        page.select_option("#axis", name)
        until(page, f"document.getElementById('curve-words').textContent.includes({AXES[name]!r})")
        return page.evaluate("document.getElementById('curve').data.map((t) => [t.x[0], t.x.at(-1), t.y.at(-1)])")

    assert drawn("") == [[0, 39, 39 % 7], [0, 3, 1]]
    assert drawn("epoch") == [[0.1, 4, 39 % 7], [1, 4, 1]]
    assert drawn("time") == [[0, 19.5, 39 % 7], [5, 20, 1]]
    assert drawn("log") == [[1, 40, 39 % 7], [1, 4, 1]]
    assert page.evaluate("document.getElementById('curve').layout.xaxis.type") == "log"
    page.locator("#smoothing").focus()
    page.keyboard.press("ArrowRight")
    until(page, "document.getElementById('curve').data.length === 4")  # the values faintly behind the means
    smooth = page.evaluate("document.getElementById('curve').data.filter((t) => !t.faint).map((t) => t.y[20])")
    assert smooth[0] == pytest.approx(sum(step % 7 for step in range(18, 23)) / 5)


def test_nested_runs_fold_under_their_parent(browse, served):
    client = served["client"]
    experiment = client.create_experiment(f"nested {time.time_ns()}")
    ids = {}
    for start, (name, parent) in enumerate([("sweep", None), ("a", "sweep"), ("b", "sweep"), ("b1", "b"), ("z", None)]):
        tags = {"mlflow.parentRunId": ids[parent]} if parent else {}
        ids[name] = client.create_run(experiment, 1_000_000 * (start + 1), tags, name).info.run_id
    page = browse(f"e={experiment}")
    assert names(page) == ["z", "sweep", "b", "b1", "a"]
    levels = "[...document.querySelectorAll('#table tbody tr')].map((row) => Number(row.ariaLevel))"
    assert page.evaluate(levels) == [1, 1, 2, 3, 2]
    page.locator(f"tr[data-id='{ids['b1']}']").focus()
    for key, active, left in [
        ("ArrowLeft", "b", 5), ("ArrowLeft", "b", 4), ("ArrowRight", "b", 5), ("ArrowRight", "b1", 5),
        ("ArrowLeft", "b", 5), ("ArrowLeft", "b", 4), ("ArrowLeft", "sweep", 4), ("ArrowLeft", "sweep", 2),
    ]:  # fmt: skip
        page.keyboard.press(key)
        assert page.evaluate("document.activeElement.dataset.id") == ids[active]
        assert len(names(page)) == left
    assert page.locator(f"tr[data-id='{ids['sweep']}']").get_attribute("aria-expanded") == "false"
    page.keyboard.press("Control+a")
    assert selected(page) == ["z", "sweep"]
    page.locator(".twisty").click()
    assert names(page) == ["z", "sweep", "b", "a"]  # b is still folded
    page.get_by_role("button", name="Unfold all").click()
    assert names(page) == ["z", "sweep", "b", "b1", "a"]
    page.get_by_role("button", name="Fold all", exact=True).click()
    assert names(page) == ["z", "sweep"]
    again = browse("&".join(f"{key}={value}" for key, value in state(page).items()))
    assert names(again) == ["z", "sweep"]
    assert violations(again) == []


def test_a_note_is_shared_changed_and_deleted(browse, served):
    page = browse(f"e={served['experiment']}&r={served['slow']},{served['quick']}&m=batch%2Floss&l=1")
    compared(page)
    page.locator("#notes > summary").click()
    page.fill("#note-name", NAUGHTY)
    page.fill("#note-text", "The slow one crawls.\n<b>0.01</b> it is.")
    page.fill("#note-author", "ann")
    page.get_by_role("button", name="Save").click()
    page.wait_for_selector("#notes-list li")
    assert violations(page) == []
    tags = served["client"].get_experiment(served["experiment"]).tags
    (kept,) = [json.loads(text) for key, text in tags.items() if key.startswith("mlflow_hp.note.")]
    assert (kept["name"], kept["author"]) == (NAUGHTY, "ann")
    assert kept["text"] == "The slow one crawls.\n<b>0.01</b> it is."

    colleague = browse()
    colleague.locator("#notes > summary").click()
    colleague.locator("#notes-list").get_by_role("link", name=NAUGHTY).click()
    compared(colleague)
    assert selected(colleague) == ["quick", "slow"]
    assert colleague.is_checked("#log")
    assert "crawls" in colleague.locator("#notes-list li[aria-current]").inner_text()
    colleague.get_by_role("button", name=f"Edit {NAUGHTY}").click()
    colleague.fill("#note-text", "Seen by bob.")
    colleague.fill("#note-author", "bob")
    colleague.get_by_role("button", name="Save").click()
    until(colleague, "document.getElementById('notes-list').textContent.includes('Seen by bob.')")

    page.get_by_role("button", name=f"Edit {NAUGHTY}").click()
    page.fill("#note-text", "Written by ann, who has not seen what bob wrote.")
    page.get_by_role("button", name="Save").click()
    until(page, "document.getElementById('note-said').textContent.includes('bob has changed this note')")
    assert "Seen by bob." in page.locator("#notes-list").inner_text()
    page.get_by_role("button", name="Save").click()
    until(page, "document.getElementById('notes-list').textContent.includes('who has not seen')")

    page.get_by_role("button", name=f"Delete {NAUGHTY}").click()
    page.get_by_role("button", name=f"Delete {NAUGHTY} for everyone").click()
    until(page, "!document.querySelector('#notes-list li')")
    left = served["client"].get_experiment(served["experiment"]).tags
    assert [key for key in left if key.startswith("mlflow_hp.note.")] == []
    assert page.title() == "descents · mlflow_hp"


def test_a_running_run_goes_on_before_your_eyes(browse, served):
    client = served["client"]
    run_id = client.create_run(served["experiment"], 0, {"mlflow_hp.author": "cem"}, "live").info.run_id
    client.log_batch(run_id, [Metric("loss", 1.0, 1, step) for step in range(10)])
    page = browse(f"e={served['experiment']}&r={run_id}&m=loss")
    until(page, "document.getElementById('curve').data?.[0].x.length === 10")
    client.log_batch(run_id, [Metric("loss", 1.0, 1, step) for step in range(10, 25)])
    until(page, "document.getElementById('curve').data[0].x.length === 25")
    client.set_terminated(run_id)
    status = page.locator(f"tr[data-id='{run_id}'] td[data-status]")
    until(page, f"document.querySelector(\"tr[data-id='{run_id}'] td[data-status=FINISHED]\")")
    assert status.inner_text() == "finished"
    client.delete_run(run_id)


def test_what_runs_are_called_is_text(browse, served):
    page = browse(f"e={served['experiment']}&r={served[NAUGHTY]},{served['quick']}")
    compared(page)
    page.wait_for_selector("#curve .legend")
    assert NAUGHTY in names(page)
    assert page.evaluate("document.images.length") == 0
    assert page.title() == "descents · mlflow_hp"


@pytest.fixture
def stock(browse):
    """A new user's tab in MLflow's own UI, whose console is MLflow's affair."""
    return browse().context.new_page()


@pytest.mark.thorough
def test_a_new_user_of_mlflow_meets_the_runs(stock, served):
    stock.goto(f"{served['server']}/")
    stock.get_by_role("link", name="Experiments").first.click()
    stock.get_by_role("link", name="descents").first.click()
    stock.get_by_role("link", name="quick").first.wait_for()
    assert f"experiments/{served['experiment']}/runs?workflowType=machine_learning" in stock.url


def test_what_a_user_of_mlflow_has_chosen_stays(stock, served):
    stock.goto(f"{served['server']}/")
    stock.evaluate("localStorage.setItem('mlflow.workflowType_v1', JSON.stringify('genai'))")
    stock.reload()
    stock.wait_for_selector("#mlflow-hp-link")
    assert stock.evaluate("localStorage.getItem('mlflow.workflowType_v1')") == '"genai"'


def test_runs_ticked_in_mlflow_are_compared(stock, served):
    stock.goto(f"{served['server']}/#/experiments/{served['experiment']}?workflowType=machine_learning")
    for name in ("slow", "quick"):
        stock.locator(".ag-row", has=stock.get_by_role("link", name=name)).locator(".ag-selection-checkbox").click()
    link = stock.locator("#mlflow-hp-link")
    link.hover()
    ticked = re.findall("[0-9a-f]{32}", link.get_attribute("href"))
    assert sorted(ticked) == sorted([served["slow"], served["quick"]])
    stock.get_by_role("button", name="Compare").click()
    stock.wait_for_url(re.compile("compare-runs"))
    link.hover()
    link.click()
    stock.wait_for_selector("#table tbody tr[aria-selected=true]")
    assert sorted(selected(stock)) == ["quick", "slow"]


def test_links_in_mlflow_leave_its_assistant_alone(stock, served):
    stock.goto(f"{served['server']}/#/experiments/{served['experiment']}/runs/{served['slow']}")
    stock.wait_for_selector("#mlflow-hp-run")
    stock.wait_for_function(  # the panel of the assistant opens by itself, and its button has 56 pixels
        """() => {
          const right = (name) => document.querySelector(name).getBoundingClientRect().right;
          return right("main") < innerWidth - 300 && right("#mlflow-hp-link") <= right("main") - 56;
        }"""
    )


def test_to_mlflow_and_back(browse, served):
    page = browse()
    link = page.get_by_role("link", name="slow in MLflow", include_hidden=True)
    run = f"experiments/{served['experiment']}/runs/{served['slow']}"
    there = f"{served['server']}/#/{run}?workflowType=machine_learning"
    assert link.evaluate("element => element.href") == there
    stock = page.context.new_page()  # its console is MLflow's affair
    stock.goto(there)
    back = stock.locator("#mlflow-hp-link")
    back.wait_for()
    back.hover()
    back.click()
    stock.wait_for_selector("#table tbody tr[aria-selected=true]")
    assert selected(stock) == ["slow"]

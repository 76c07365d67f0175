"""The page of one run as its user meets it: a real training, a real server, and headless Chromium."""

from __future__ import annotations

import time
from pathlib import Path

import keras
import mlflow
import numpy as np
import pytest
from mlflow.entities import Metric

import mlflow_hp
from mlflow_hp.training import log_landscape
from tests.helpers.needs import CHROMIUM, needed, needs_chromium
from tests.helpers.servers import serving

ARGUMENTS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
N_STEPS = 48  # 4 batches of 12 epochs

pytestmark = [pytest.mark.slow, needs_chromium]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A server with two linear regressions and three networks, of which two have a landscape and a barrier."""
    folder = tmp_path_factory.mktemp("run_page")
    with serving(folder, "mlflow-hp") as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", server)
        mlflow.set_tracking_uri(server)
        x = np.linspace(-1, 1, 64, dtype=np.float32)[:, None]
        model = line(0.05)
        with mlflow.start_run(run_name="a line", experiment_id="0") as run:
            model.fit(x, 2 * x + 1, batch_size=16, epochs=12, verbose=0, callbacks=[mlflow_hp.TrainingRecorder()])
        others = [_trained(line(0.02), "another line", x, 2 * x + 1)]
        networks = [_trained(network(seed), f"network {seed}", x, x**2, snapshot_megabytes=1) for seed in (0, 1, 2)]
        model = network(0)
        log_landscape(networks[:2], model, x, x**2, resolution=9, progress=False)
        mlflow_hp.barrier(*networks[:2], model, x, x**2, curve_steps=2, progress=False, log=True)
        mlflow.set_tracking_uri(None)
        yield {
            "server": server, "run": run.info.run_id, "others": others, "networks": networks,
            "client": mlflow.MlflowClient(server), "folder": folder,
        }  # fmt: skip


def line(rate):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(rate), "mse")
    return model


def network(seed):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.05), "mse")
    return model


def _trained(model, name, x, y, **settings):
    recorder = mlflow_hp.TrainingRecorder(report=False, **settings)
    with mlflow.start_run(run_name=name, experiment_id="0") as run:
        model.fit(x, y, batch_size=16, epochs=2, verbose=0, callbacks=[recorder])
    return run.info.run_id


@pytest.fixture(scope="module")
def chromium():
    playwright = needed("playwright.sync_api", "playwright")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS.split())
        yield browser
        browser.close()


@pytest.fixture
def browse(chromium):
    """Opens an address; at the end nothing may have been complained of."""
    complaints, contexts = [], []

    def opened(address, width=1280, scheme="light"):
        contexts.append(chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme))
        page = contexts[-1].new_page()
        page.set_default_timeout(60_000)
        page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


def until(page, condition):
    """Wait as playwright's own function would, which the page's policy lets evaluate nothing."""
    while not page.evaluate(condition):
        page.wait_for_timeout(50)


def shown(page):
    until(page, "document.documentElement.dataset.shown === 'all'")
    return page


def pixels(page):
    return page.evaluate("document.querySelector('canvas.descent').toDataURL()")


def violations(page):
    axe = needed("axe_playwright_python.sync_playwright", "axe-playwright-python")
    found = axe.Axe().run(page).response["violations"]
    return [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found]


@pytest.mark.thorough
def test_the_descent_has_a_time_and_turns(browse, served):
    page = shown(browse(f"{served['server']}/hp/run/{served['run']}"))
    assert "a line" in page.locator("h1").inner_text()
    assert page.locator("#descent output").inner_text() == f"{N_STEPS} of {N_STEPS} steps"
    at_end = pixels(page)
    page.locator(".time").fill("5")
    until(page, f"document.querySelector('#descent output').textContent === '5 of {N_STEPS} steps'")
    page.wait_for_timeout(100)
    early = pixels(page)
    assert early != at_end
    page.get_by_role("button", name="Surface").click()
    page.wait_for_timeout(200)
    solid = pixels(page)
    page.locator("canvas.descent").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(200)
    assert len({early, solid, pixels(page)}) == 3
    page.get_by_role("button", name="Play").click()
    until(page, "Number(document.querySelector('.time').value) > 6")
    page.get_by_role("button", name="Pause").click()
    stopped = page.locator(".time").input_value()
    page.wait_for_timeout(300)
    assert page.locator(".time").input_value() == stopped


def legend(page):
    return page.locator("#descent .legend li").all_inner_texts()


@pytest.mark.thorough
def test_other_runs_are_chosen_by_a_menu_and_a_link_has_them(browse, served):
    page = shown(browse(f"{served['server']}/hp/run/{served['run']}"))
    assert legend(page)[:-1] == ["a line"]  # the last is the minimum
    page.get_by_text("Compare with", exact=True).focus()
    page.keyboard.press("Enter")
    until(page, "document.querySelectorAll('#with li').length === 1")  # the networks have no descent on this surface
    page.get_by_label("Find a run").focus()
    page.keyboard.type("no such run")
    assert page.locator("#with [role=status]").inner_text() == "None of 1 runs matches."
    page.get_by_label("Find a run").fill("ANOTHER")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    until(page, "document.querySelectorAll('#descent .legend li').length === 3")
    assert legend(page)[:-1] == ["a line", "another line"]
    assert page.evaluate("document.activeElement.type") == "checkbox"  # where the user was
    page.keyboard.press("Escape")
    assert not page.evaluate("document.querySelector('#with').open")
    assert page.locator("#with summary").inner_text() == "Compared with 1 run"
    assert page.url.endswith(f"#with={served['others'][0]}")
    again = shown(browse(page.url))
    assert legend(again)[:-1] == ["a line", "another line"]
    again.locator("#with summary").click()
    again.get_by_role("checkbox", name="another line").uncheck()
    until(again, "document.querySelectorAll('#descent .legend li').length === 2")
    assert again.url.endswith(served["run"])
    assert violations(again) == []


@pytest.mark.thorough
def test_a_network_has_the_surface_and_the_barrier_that_were_computed(browse, served):
    first, second, third = served["networks"]
    page = shown(browse(f"{served['server']}/hp/run/{first}#with={second}"))
    assert legend(page) == ["network 0", "network 1"]
    assert "The loss over 64 samples" in page.locator("#descent").inner_text()
    above = pixels(page)
    page.get_by_role("button", name="Surface").click()
    page.wait_for_timeout(400)
    assert pixels(page) != above
    barrier = page.locator("#barriers article")
    assert "Between this run and network 1" in barrier.inner_text()
    assert "On the straight line" in barrier.inner_text()
    until(page, "document.querySelectorAll('#barriers .scatterlayer .trace').length === 4")
    assert page.locator("#barriers code").count() == 0
    assert not page.locator("#landscape").is_visible()
    page.locator("#with summary").click()
    page.get_by_role("checkbox", name="network 2").check()
    until(page, "document.querySelectorAll('#descent .legend li').length === 3")
    assert page.locator("#landscape").is_visible()  # there is none for the three
    page.keyboard.press("Escape")
    page.locator("#landscape summary").click()
    assert f'log_landscape(["{first}", "{second}", "{third}"], model, x, y)' in page.locator("#landscape").inner_text()
    until(page, "document.querySelectorAll('#barriers code').length === 1")
    line = page.locator("#barriers code").inner_text()
    assert f'barrier("{first}", "{third}", model, x, y, log=True' in line
    assert violations(page) == []


def test_the_descent_does_not_wait_for_the_steps_and_an_error_of_one_part_stays(chromium, served):
    page = chromium.new_page()
    held = []
    page.route("**/api/training*", lambda route: held.append(route))  # noqa: PLW0108 - playwright marks the function
    page.goto(f"{served['server']}/hp/run/{served['run']}")
    until(page, "document.querySelector('#descent output')?.textContent.includes('steps')")
    assert not page.locator("#microscope").is_visible()
    assert len(held) == 1  # asked for once, and at once
    held[0].fulfill(status=400, content_type="application/json", body='{"error": "The history is damaged."}')
    shown(page)
    assert page.locator("#status").inner_text() == "The history is damaged."
    page.close()


def test_a_brush_on_one_chart_selects_the_steps_of_all(browse, served):
    page = shown(browse(f"{served['server']}/hp/run/{served['run']}"))
    said = page.locator("#microscope .bar span")
    assert said.inner_text() == f"steps 0 to {N_STEPS - 1} of {N_STEPS}"
    page.locator("#microscope").scroll_into_view_if_needed()
    box = page.locator("#microscope .plot .nsewdrag").nth(1).bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.5, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.75, y, steps=4)
    page.mouse.up()
    until(
        page, f"document.querySelector('#microscope .bar span').textContent !== 'steps 0 to {N_STEPS - 1} of {N_STEPS}'"
    )
    first, last = (int(word) for word in said.inner_text().split() if word.isdigit() and int(word) < N_STEPS)
    assert abs(first - N_STEPS // 2) <= 1
    assert abs(last - 3 * N_STEPS // 4) <= 1
    drawn = page.evaluate(
        "document.querySelector('#microscope .plot').data.filter(t => t.type === 'heatmap').map(t => t.x)"
    )
    assert len(drawn) == 3
    assert all((edges[0], edges[-1]) == (first, last + 1) for edges in drawn)  # asked of the server, step by step
    page.get_by_role("button", name="All steps").click()
    until(
        page, f"document.querySelector('#microscope .bar span').textContent === 'steps 0 to {N_STEPS - 1} of {N_STEPS}'"
    )


def test_a_run_that_goes_on_is_followed_to_its_end(browse, served):
    client = served["client"]
    run_id = client.create_run("0", tags={"mlflow_hp.kind": "training"}, run_name="going").info.run_id

    def log(step):
        client.log_batch(run_id, [Metric("batch/loss", 1.0 / (step + 1), round(time.time() * 1000), step)])

    log(0)
    page = shown(browse(f"{served['server']}/hp/run/{run_id}"))
    for step in range(1, 4):
        log(step)
        until(page, f"document.querySelector('#progress').textContent.includes('step {step + 1}')")
    client.set_terminated(run_id)
    until(page, "document.querySelector('#state').textContent.includes('finished')")
    until(page, "document.querySelector('#progress').hidden")


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (375, "dark")])
def test_looks_and_accessibility(browse, served, width, scheme):
    page = shown(browse(f"{served['server']}/hp/run/{served['run']}", width, scheme))
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert violations(page) == []


@pytest.mark.thorough
def test_the_document_needs_no_server(browse, served):
    files = list(Path(served["folder"]).rglob(f"{served['run']}/artifacts/report.html"))
    assert len(files) == 1
    page = shown(browse(files[0].as_uri()))
    assert page.locator("#descent output").inner_text() == f"{N_STEPS} of {N_STEPS} steps"
    until(page, "document.querySelectorAll('#microscope .plot .subplot').length > 3")
    assert violations(page) == []

"""Takes the pictures of the console that the docs show: `python -m tests.browser.screenshots docs/images`.

What they show happened: a day of fires in the local VM, refusals among them, watched in a real browser.
"""

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.browser.conftest import launch
from tests.browser.scene import scene_in

WIDE = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}


def a_day(scene):
    """Have three agents fire for a day; the last is stopped, and a new one never had a permit."""
    world = scene.world
    steady = scene.add_agent()
    eager = scene.add_agent(cap_usd=100)
    gone = scene.add_agent()
    world.vault.make_session_key(scene.wallet, world.new_id())
    for hour in range(23):
        for number in range(1 + (hour * 7) % 4):
            scene.fire(steady, 20 + number)
        if hour % 3 == 1:
            scene.fire(eager, 100 + hour % 2)
            scene.fire(eager, 10, buy="BONK")
        if hour % 5 == 2:
            world.let_pass(31, quotes=False)
            scene.fire(eager, 50)
        world.let_pass(3_600)
    scene.fire(steady, 125)
    scene.fire(eager, 100.01)
    world.guard.stop(scene.wallet, gone)


def take(browser, address, scene, folder):
    def opened(name, **options):
        context = browser.new_context(**options)
        page = context.new_page()
        page.goto(address)
        page.get_by_label("Or a token").fill(scene.token())
        page.get_by_role("button", name="Sign in", exact=True).click()
        page.get_by_text("live", exact=True).wait_for()
        page.locator("#feed li").first.wait_for()
        page.screenshot(path=folder / f"console-{name}.png", full_page=name == "light")
        return page

    page = opened("light", viewport=WIDE, color_scheme="light")
    page.locator("#feed").get_by_role("button", name="amount over cap").first.click()
    page.get_by_role("dialog").get_by_text("amount over cap").first.wait_for()
    page.screenshot(path=folder / "console-trace.png")
    opened("dark", viewport=WIDE, color_scheme="dark")
    opened("phone", viewport=PHONE, color_scheme="light")


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as made, scene_in(Path(made)) as scene, sync_playwright() as playwright:
        a_day(scene)
        with scene.serving() as address, launch(playwright) as browser:
            take(browser, address, scene, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

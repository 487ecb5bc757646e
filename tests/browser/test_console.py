"""The console in a real browser, over real fires: what it shows, what it does, and what it can't be made to do."""

import json
import re

import httpx
import pytest
from playwright.sync_api import expect
from starlette.applications import Starlette
from starlette.routing import Mount

from executor.halts import Halter, Scope
from executor.lifecycle import AgentState
from executor.limits import Limits
from executor.reasons import Reason
from executor.service import create_app
from tests.browser.conftest import PATIENCE_MS
from tests.browser.scene import scene_in
from tests.executor.service.served import on_a_port
from tests.executor.service.serving import bearer, settings_in
from tests.support import until

expect.set_options(timeout=PATIENCE_MS)

PHONE = {"width": 360, "height": 740}
WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) =>
  violations.push(`${violatedDirective} ${blockedURI}`));
"""
WALLET = """
const account = { address: "%s", publicKey: new Uint8Array(32), chains: ["solana:mainnet"], features: [] };
const signMessage = async ({ message }) =>
  [{ signedMessage: message, signature: Uint8Array.from(await signBytes(Array.from(message))) }];
const wallet = {
  name: "Drawer", version: "1.0.0", chains: account.chains, accounts: [account],
  features: {
    "standard:connect": { connect: async () => ({ accounts: [account] }) },
    "solana:signMessage": { signMessage },
  },
};
const announce = ({ register }) => register(wallet);
dispatchEvent(new CustomEvent("wallet-standard:register-wallet", { detail: announce }));
addEventListener("wallet-standard:app-ready", ({ detail }) => announce(detail));
"""
FAINT = """() => {
  const channels = (color) => color.match(/[\\d.]+/g).map(Number);
  const luminance = (color) => {
    const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = channels(color).map((each) => linear(each / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const color = getComputedStyle(each).backgroundColor;
      if ((channels(color)[3] ?? 1) === 1) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const faint = [];
  for (const element of document.querySelectorAll("body *")) {
    const speaks = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
    if (!speaks || !element.checkVisibility() || element.localName === "option") continue;
    const [one, other] = [getComputedStyle(element).color, ground(element)].map(luminance).sort((a, b) => b - a);
    const ratio = (one + 0.05) / (other + 0.05);
    if (ratio < 4.5) faint.push(`${element.localName}.${element.className} ${ratio.toFixed(2)} ${element.textContent}`);
  }
  return faint;
}"""
"""What WCAG 2.2 calls too faint to read (1.4.3)."""


@pytest.fixture
def scene(tmp_path):
    with scene_in(tmp_path) as made:
        yield made


@pytest.fixture
def page(page):
    """Return a page that remembers what it asked for; what the browser kept it from doing fails the test."""
    page.add_init_script(WATCH)
    page.asked = []
    page.on("request", lambda request: page.asked.append(request.url))
    yield page
    assert page.evaluate("violations") == []


def open_console(page, address, token):
    page.goto(address)
    page.get_by_label("Or a token").fill(token)
    page.get_by_role("button", name="Sign in", exact=True).click()
    expect(page.locator("#link")).to_have_text("live")


def feed_of(page):
    return page.locator("#feed li")


def card_of(page, agent_id):
    return page.locator(f"#agents li:has([title='{agent_id}'])")


def test_agents_are_shown_in_words_with_what_room_they_have(page, scene):
    agent_id = scene.add_agent(cap_usd=99.5)
    scene.world.vault.make_session_key(scene.wallet, scene.world.new_id())
    scene.fire(agent_id, 50)
    with scene.serving() as address:
        open_console(page, address, scene.token())
        card = card_of(page, agent_id)
        expect(card).to_contain_text("active")
        expect(card).to_contain_text("May trade USDC and JTO with each other.")
        expect(card).to_contain_text("At most $99.50 at a time. In any 24 hours all of the wallet's agents together")
        expect(card).to_contain_text("have 500 executions: by this permit $49,750.00 at most.")
        expect(card).to_contain_text("Until May 9, 2026, 12:00:00 UTC: 7 days left.")
        expect(page.locator("#agents")).to_contain_text("No permit was signed for it yet.")
        expect(page.locator("#headroom")).to_contain_text("1 of 20")
        expect(page.locator("#headroom")).to_contain_text("1 of 500")
        assert page.get_by_label("Executions in 24 hours").evaluate("meter => [meter.value, meter.max]") == [1, 500]
        own = {"/", "/console/", "/api/"}
        assert all(any(url.startswith(address + path) for path in own) for url in page.asked)


def test_a_wallet_of_the_browser_signs_in(page, scene):
    scene.add_agent()
    page.expose_function("signBytes", lambda message: list(scene.world.signer.sign(bytes(message))))
    page.add_init_script(WALLET % scene.wallet)
    with scene.serving() as address:
        page.goto(address)
        page.get_by_role("button", name="Sign in with Drawer").click()
        expect(page.locator("#link")).to_have_text("live")
        expect(page.locator("#whose code")).to_have_attribute("title", scene.wallet)


def test_what_happens_is_shown_as_it_happens_and_traced_back_to_the_permit(page, scene):
    agent_id = scene.add_agent()
    with scene.serving() as address:
        open_console(page, address, scene.token())
        executed = scene.fire(agent_id, 100)
        expect(feed_of(page)).to_have_count(1)
        expect(feed_of(page).first).to_contain_text("filled 40 at $2.5 on local")
        scene.fire(agent_id, 1, buy="BONK")
        expect(feed_of(page).first).to_contain_text("asset not whitelisted")
        expect(page.locator(".legend")).to_contain_text("executed 1")
        expect(page.locator(".legend")).to_contain_text("asset not whitelisted 1")
        expect(page.locator("#executions li")).to_have_count(2)

        feed_of(page).last.get_by_role("button").click()
        trace = page.get_by_role("dialog")
        bounds = scene.world.guard.agent(scene.wallet, agent_id).bounds
        execution = scene.world.guard.execution(scene.wallet, executed)
        for told in (bounds.permit_id, scene.wallet, execution.tx_signature, *(step.hash for step in execution.steps)):
            expect(trace).to_contain_text(told)
        expect(trace).to_contain_text("worth $100.00")
        expect(trace.locator("td.yes")).to_have_count(10)
        expect(trace.locator("td.no")).to_have_count(0)


def test_a_refusal_shows_each_check_and_which_were_never_asked(page, scene):
    agent_id = scene.add_agent(cap_usd=100)
    scene.fire(agent_id, 100.01)
    scene.fire(agent_id, 1, buy="BONK")
    with scene.serving() as address:
        open_console(page, address, scene.token())
        trace = page.get_by_role("dialog")
        feed_of(page).nth(1).get_by_role("button").click()
        expect(trace.locator("tr:has(td.no)")).to_have_text(
            re.compile(r"no.*cap.*AMOUNT_OVER_CAP allowed: \$100\.000000; found: \$100\.010000")
        )
        expect(trace).to_contain_text("None: nothing was signed.")
        trace.get_by_role("button", name="Close").click()
        feed_of(page).first.get_by_role("button").click()
        expect(trace.locator("td.no")).to_have_count(1)
        for rule in ("both prices", "the value", "enough comes back"):
            expect(trace.locator(f"tr:has-text('{rule}')")).to_contain_text("not asked")


def test_an_agent_is_stopped_with_nothing_but_the_keyboard(page, scene):
    agent_id = scene.add_agent()
    with scene.serving() as address:
        open_console(page, address, scene.token())
        stop = card_of(page, agent_id).get_by_role("button", name="Stop")
        for _ in range(20):
            page.keyboard.press("Tab")
            if stop.evaluate("button => button === document.activeElement"):
                break
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog")).to_contain_text("Only a new permit, signed by your wallet")
        page.keyboard.press("Escape")
        assert scene.world.guard.agent(scene.wallet, agent_id).state is AgentState.ACTIVE
        page.keyboard.press("Enter")  # focus went back to where it was
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(card_of(page, agent_id)).to_contain_text("It is stopped")
        expect(page.get_by_role("dialog")).to_have_count(0)
    assert scene.world.guard.agent(scene.wallet, agent_id).state is AgentState.STOPPED


def test_a_wallet_is_halted_and_the_halt_lifted_again(page, scene):
    agent_id = scene.add_agent()
    with scene.serving() as address:
        open_console(page, address, scene.token())
        page.get_by_role("button", name="Halt everything of mine").click()
        page.get_by_label("Why").fill("<img src=x onerror=alert(1)>")
        page.get_by_role("dialog").get_by_role("button", name="Halt all of your agents").click()
        expect(page.locator("#halts")).to_contain_text("All of your agents by you")
        expect(page.locator("#halts")).to_contain_text("<img src=x onerror=alert(1)>")
        scene.fire(agent_id, 100)
        expect(feed_of(page).first).to_contain_text("halted")
        page.get_by_role("button", name="Lift").click()
        page.get_by_role("dialog").get_by_role("button", name="Lift the halt").click()
        expect(page.locator("#halts")).to_be_hidden()
        assert scene.world.guard.halts(scene.wallet) == ()
        card_of(page, agent_id).get_by_role("button", name="Halt").click()
        page.get_by_role("dialog").get_by_role("button", name="Halt agent").click()
        expect(card_of(page, agent_id)).to_contain_text("halted")
    assert [halt.scope for halt in scene.world.guard.halts(scene.wallet)] == [Scope(scene.wallet, agent_id)]


def test_what_was_signed_before_a_halt_and_may_still_land_is_told(page, scene):
    guard, agent_id = scene.world.guard, scene.add_agent()
    request = scene.request(agent_id, 100)
    signed = {"tx_signature": "5" * 87, "transaction_bytes": b"\1", "last_valid_block_height": 150}
    assert guard.mark_signed(guard.authorize(request).authorization, **signed) is None
    with scene.serving() as address:
        open_console(page, address, scene.token())
        card_of(page, agent_id).get_by_role("button", name="Stop").click()
        page.get_by_role("dialog").get_by_role("button", name="Stop agent").click()
        expect(page.get_by_role("dialog")).to_contain_text("may still land:" + "5" * 87)
        page.get_by_role("button", name="Close").click()
        expect(page.locator("#executions li")).to_contain_text("signed")


def test_earlier_executions_are_a_page_away_and_stay_while_events_come(page, scene):
    agent_id = scene.add_agent()
    for _ in range(25):
        scene.world.guard.authorize(scene.request(agent_id, 300))
    with scene.serving() as address:
        open_console(page, address, scene.token())
        lines = page.locator("#executions li")
        expect(lines).to_have_count(20)
        page.get_by_role("button", name="Earlier ones").click()
        expect(lines).to_have_count(25)
        expect(page.get_by_role("button", name="Earlier ones")).to_be_hidden()
        scene.fire(agent_id, 10)
        expect(page.locator(".legend")).to_contain_text("executed 1")
        expect(lines).to_have_count(25)
        page.get_by_label("Status").select_option("landed")
        expect(lines).to_have_count(1)
        page.get_by_label("Status").select_option("any")
        page.get_by_label("Reason").fill("price stale")
        page.keyboard.press("Enter")
        expect(lines).to_have_text(["None."])


def test_after_a_restart_the_page_comes_back_and_tells_each_event_once(page, scene):
    agent_id = scene.add_agent()
    app = create_app(scene.world.awaited, settings_in(scene.folder))
    with on_a_port(app) as port:
        open_console(page, f"http://127.0.0.1:{port}", scene.token())
        fires = [scene.fire(agent_id, 10)]
        expect(feed_of(page)).to_have_count(1)
    expect(page.locator("#link")).to_have_text("connecting again")
    fires += [scene.fire(agent_id, 20), scene.fire(agent_id, 30)]  # while nobody serves
    with on_a_port(create_app(scene.world.awaited, settings_in(scene.folder)), port):
        expect(page.locator("#link")).to_have_text("live")
        fires.append(scene.fire(agent_id, 40))
        expect(feed_of(page)).to_have_count(4)
        expect(feed_of(page)).to_have_text([re.compile(f"filled {usd / 2.5:g} at") for usd in (40, 30, 20, 10)])
        expect(page.locator("#executions li")).to_have_count(len(fires))


def test_a_second_click_signs_nobody_in_twice(page, scene):
    scene.fire(scene.add_agent(), 10)
    with scene.serving() as address:
        page.goto(address)
        page.get_by_label("Or a token").fill(scene.token())
        page.evaluate("for (const _ of [1, 2]) document.getElementById('by-token').requestSubmit()")
        expect(page.locator("#link")).to_have_text("live")
        expect(feed_of(page)).to_have_count(1)
        assert open_streams(address) == 1


def test_what_was_given_up_unsigned_says_so_and_why(page, scene):
    guard, agent_id = scene.world.guard, scene.add_agent()
    request = scene.request(agent_id, 10)
    guard.authorize(request)
    guard.void(scene.wallet, request.execution_id, Reason.RAIL_UNAVAILABLE, "away")
    with scene.serving() as address:
        open_console(page, address, scene.token())
        feed_of(page).first.get_by_role("button").click()
        expect(page.get_by_role("dialog")).to_contain_text(
            "None: nothing was signed. It was given up: rail unavailable."
        )


def test_who_is_not_believed_any_more_is_signed_out(page, scene):
    scene.add_agent()
    with scene.serving() as address:
        page.goto(address)
        page.get_by_label("Or a token").fill("no token")
        page.get_by_role("button", name="Sign in", exact=True).click()
        expect(page.get_by_role("alert")).to_contain_text("Not done: a token that is believed is required")
        open_console(page, address, scene.token())
        page.route("**/api/**", lambda route: route.continue_(headers={"Authorization": "Bearer over"}))
        page.get_by_role("button", name="Halt everything of mine").click()
        page.get_by_role("dialog").get_by_role("button", name="Halt all of your agents").click()
        expect(page.get_by_role("alert")).to_contain_text("your sign-in is over")
        expect(page.locator("#state")).to_be_hidden()
        expect(page.get_by_role("dialog")).to_have_count(0)
        assert page.locator("#agents").inner_text() == ""
    assert scene.world.guard.halts(scene.wallet) == ()


def open_streams(address):
    told = httpx.get(f"{address}/metrics", headers=bearer("the-operators-token-is-long-enough")).text
    return float(re.search(r"^holdfire_open_streams (\S+)$", told, re.MULTILINE)[1])


def test_while_the_state_can_not_be_read_the_page_says_so_and_for_no_longer(page, scene):
    agent_id = scene.add_agent()
    with scene.serving() as address:
        open_console(page, address, scene.token())
        page.route("**/api/headroom", lambda route: route.abort())
        scene.fire(agent_id, 10)
        expect(page.locator("#link")).to_contain_text("not up to date: ")
        page.unroute("**/api/headroom")
        scene.fire(agent_id, 20)
        expect(page.locator("#link")).to_have_text("live")
        expect(page.get_by_role("alert")).to_be_hidden()


def test_without_tickets_the_page_says_that_nothing_is_live(page, scene):
    scene.add_agent()
    with scene.serving(secret_file=None, sign_in_domain=None) as address:
        page.goto(address)
        page.get_by_label("Or a token").fill(scene.token())
        page.get_by_role("button", name="Sign in", exact=True).click()
        expect(page.locator("#link")).to_have_text("no live events: this service gives no stream tickets")
        expect(page.locator("#headroom")).to_contain_text("1 of 20")


def test_signing_out_forgets_all_of_it(page, scene):
    scene.fire(scene.add_agent(), 10)
    with scene.serving() as address:
        open_console(page, address, scene.token())
        expect(feed_of(page)).to_have_count(1)
        assert open_streams(address) == 1
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        assert scene.wallet[:6] not in page.locator("#agents, #feed, #executions, #headroom, #chart").evaluate_all(
            "all => all.map((each) => each.textContent).join()"
        )
        assert page.get_by_label("Or a token").input_value() == ""
        until(lambda: open_streams(address) == 0)
        kept = "[document.cookie, localStorage.length, sessionStorage.length, location.href]"
        assert page.evaluate(kept) == ["", 0, 0, f"{address}/"]


def test_a_permit_is_inspected_in_the_browser_and_sent_nowhere(page, scene):
    world = scene.world
    signed = scene.permit(world.new_id(), world.session_pubkey, assets=["SOL", "USDC"], cap_usd=12.5)
    changed = signed.to_json_object()
    changed["permit"]["maxAmountPerExecutionUsd"] = 1_250
    with scene.serving() as address:
        page.goto(address)
        page.clock.set_fixed_time(world.now_ms / 1000)
        asked = len(page.asked)

        def verdict(text):
            page.get_by_label("A signed permit").fill(text)
            page.get_by_role("button", name="Verify").click()
            return page.locator("#verdict")

        told = verdict(json.dumps(signed.to_json_object()))
        expect(told).to_contain_text("The wallet signed this.")
        expect(told).to_contain_text("May trade SOL and USDC with each other.")
        expect(told).to_contain_text("At most $12.50 at a time")
        expect(told).to_contain_text(scene.wallet)
        expect(verdict(json.dumps(changed))).to_contain_text("SIGNATURE_INVALID")
        expect(verdict('{"permit": {}, "permit": {}}')).to_contain_text("JSON_DUPLICATE_KEY")
        assert len(page.asked) == asked


def test_the_worst_case_is_by_this_services_limits_as_soon_as_it_tells_them(page, scene):
    agent_id = scene.add_agent(cap_usd=99.5)
    inspected = scene.permit(scene.world.new_id(), scene.world.session_pubkey, cap_usd=12.5)
    scene.fire(agent_id, 50)
    guard = scene.world.guard
    guard.change_limits(Limits(executions_per_24h=40))

    def verdict():
        page.get_by_label("A signed permit").fill(json.dumps(inspected.to_json_object()))
        page.get_by_role("button", name="Verify").click()
        return page.locator("#verdict")

    with scene.serving() as address:
        page.goto(address)
        page.clock.set_fixed_time(scene.world.now_ms / 1000)
        expect(verdict()).to_contain_text("If the executor has the usual limit of 500 executions in any 24 hours")
        expect(verdict()).to_contain_text("that is $6,250.00 in 24 hours at most.")
        open_console(page, address, scene.token())
        expect(card_of(page, agent_id)).to_contain_text("40 executions: by this permit $3,980.00 at most.")
        expect(verdict()).to_contain_text("40 executions: by this permit $500.00 at most.")
        guard.change_limits(Limits(executions_per_24h=40, notional_micro_usd_per_24h=300_000_000))
        scene.fire(agent_id, 20)
        expect(card_of(page, agent_id)).to_contain_text(
            "all of the wallet's agents together may trade $300.00 at most."
        )
        feed_of(page).last.get_by_role("button").click()
        expect(page.get_by_role("dialog")).to_contain_text("500 executions: by this permit $49,750.00 at most.")


def test_no_page_can_frame_it(page, scene):
    with scene.serving() as address:
        page.goto(f"{address}/api/openapi.json")  # of the same origin, and without a policy of its own
        with page.expect_event("console", lambda told: "frame-ancestors 'none'" in told.text):
            page.evaluate("document.body.append(Object.assign(document.createElement('iframe'), {src: '/'}))")
        expect(page.frame_locator("iframe").get_by_role("heading", name="Holdfire")).to_have_count(0)


def test_a_service_below_a_path_serves_it_there(page, scene):
    scene.add_agent()
    service = create_app(scene.world.awaited, settings_in(scene.folder))
    app = Starlette(routes=[Mount("/trading", service)], lifespan=service.router.lifespan_context)
    app.state.close_streams, app.state.settings = service.state.close_streams, service.state.settings
    with on_a_port(app) as port:
        open_console(page, f"http://127.0.0.1:{port}/trading/", scene.token())
        expect(page.locator("#agents li")).to_have_count(2)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_on_a_phone_in_light_and_dark_and_every_control_says_what_it_is(page, scene, scheme):
    agent_id = scene.add_agent(cap_usd=100)
    scene.fire(agent_id, 100)
    scene.fire(agent_id, 100.01)
    scene.world.guard.halt(Scope(scene.wallet), by=Halter.USER, why="looking around")
    page.set_viewport_size(PHONE)
    page.emulate_media(color_scheme=scheme)

    def readable():
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        assert page.evaluate(FAINT) == []
        controls = page.locator("body").aria_snapshot().splitlines()
        assert [each for each in controls if re.fullmatch(r"\s*- (button|textbox|combobox|link|meter)", each)] == []

    with scene.serving() as address:
        page.goto(address)
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        readable()
        open_console(page, address, scene.token())
        expect(feed_of(page)).to_have_count(2)
        readable()
        feed_of(page).first.get_by_role("button").click()
        expect(page.get_by_role("dialog")).to_contain_text("AMOUNT_OVER_CAP")
        readable()

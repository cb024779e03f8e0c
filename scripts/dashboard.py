"""Opens every view of the dashboard in headless Chromium: errors, requests to other hosts, accessibility by axe-core, time of the
first paint, keyboard and narrow screens; writes screenshots. Needs what `make dashboard` installs.

usage: dashboard.py http://127.0.0.1:PORT AXE_JS CHROMIUM SCREENSHOTS
"""

import pathlib
import sys

from playwright.sync_api import sync_playwright

URL, AXE, CHROMIUM, OUT = sys.argv[1].rstrip("/"), pathlib.Path(sys.argv[2]), sys.argv[3], pathlib.Path(sys.argv[4])
VIEWS = ["corpus", "documents", "filters", "duplicates", "sql", "shards", "training", "runs"]
OUT.mkdir(parents=True, exist_ok=True)
failures = []


def check(page, name):
    page.wait_for_selector("main[data-ready]", timeout=60000)
    alerts = page.locator(".error").all_inner_texts()
    if alerts:
        failures.append(f"{name}: {alerts}")
    page.evaluate(AXE.read_text())
    for violation in page.evaluate("axe.run()")["violations"]:
        targets = [node["target"] for node in violation["nodes"]][:3]
        failures.append(f"{name}: {violation['id']}: {violation['help']} {targets}")


with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
    for scheme, width in [("light", 1280), ("dark", 1280), ("light", 390)]:
        context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900}, bypass_csp=True)
        page = context.new_page()
        page.on("request", lambda request: request.url.startswith((URL, "data:")) or failures.append(f"asks {request.url}"))
        page.on("pageerror", lambda error: failures.append(f"script: {error}"))
        page.on("console", lambda message: message.type == "error" and failures.append(f"console: {message.text}"))
        for view in VIEWS:
            name = f"{view}-{scheme}-{width}"
            page.goto("about:blank")
            page.goto(f"{URL}/#/{view}")
            check(page, name)
            if view == "corpus":
                paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
                print(f"{scheme} {width}: first paint {paint:.0f} ms")
                if paint > 1000:
                    failures.append(f"first paint after {paint:.0f} ms")
            if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
                failures.append(f"{name}: wider than the screen")
            page.screenshot(path=OUT / f"{name}.png")
        # A document, from the list of documents.
        page.goto("about:blank")
        page.goto(f"{URL}/#/documents")
        page.wait_for_selector("main[data-ready]")
        page.locator("tbody a").first.click()
        page.wait_for_selector(".trail")
        check(page, f"document-{scheme}-{width}")
        page.screenshot(path=OUT / f"document-{scheme}-{width}.png")
        context.close()

    page = browser.new_page()
    page.goto(f"{URL}/#/corpus")
    page.wait_for_selector("main[data-ready=corpus]")
    # By keyboard alone: to SQL, a name completed, the statement run, its link kept.
    page.keyboard.press("Alt+5")
    page.wait_for_selector("main[data-ready=sql]")
    page.locator("#statement").focus()
    page.keyboard.press("Control+a")
    page.keyboard.type("select count(*) as n from manif")
    page.keyboard.press("Control+Space")
    if page.input_value("#statement") != "select count(*) as n from manifests":
        failures.append(f"completion gave {page.input_value('#statement')}")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("main table, main .error")
    if "manifests" not in page.url:
        failures.append(f"the link lacks the statement: {page.url}")
    # A threshold moved, and what would change.
    page.goto(f"{URL}/#/filters")
    page.wait_for_selector("main[data-ready=filters]")
    before = page.inner_text("#change")
    page.locator("#at").focus()
    for _ in range(3):
        page.keyboard.press("PageUp")
    after = page.inner_text("#change")
    if before == after or "would go" not in after:
        failures.append("the threshold changes nothing")
    page.screenshot(path=OUT / "threshold.png", full_page=True)
    # Text of documents cannot run or load anything.
    page.goto(f"{URL}/#/sql?q=" + "select '<img src=x onerror=alert(1)><script>alert(2)</script>' as t")
    page.wait_for_selector("main[data-ready=sql]")
    if page.locator("main img, main script").count():
        failures.append("text became markup")
    browser.close()

print("\n".join(failures) or f"{len(VIEWS)} views: no failures")
sys.exit(bool(failures))

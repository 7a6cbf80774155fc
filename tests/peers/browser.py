"""A real browser (headless Chromium) on the node's pages.

    browser.py HTTP://HOST:PORT/ FOLDER

Reads commands from standard input, a JSON array a line, and answers each with a line of JSON: {"ok": value} or {"error": text}.
Commands name a page by a number of the caller's choice; each has a context of its own, that is, is another person's browser. A number that is
opened again is a new one.

    ["open", 1, {"width": 1440, "height": 900, "scheme": "dark", "script": true}, "/path"]
    ["eval", 1, "expression"]                 the value of a JavaScript expression, promises awaited
    ["wait", 1, "expression", milliseconds]   until the expression is true; the milliseconds that took
    ["click", 1, "selector"]  ["fill", 1, "selector", "text"]  ["press", 1, "Key"]  ["hover", 1, "selector"]  ["wheel", 1, y]
    ["answer", 1, "METHOD", "/path", {"status": 500}]  what the browser gets from now on instead of the node's answer; null: the node's again
    ["axe", 1]  ["axe", 1, ["a-rule", …]]     what axe-core finds, by all its rules or by these
    ["shot", 1, "name.png"]                   a picture of the whole page into FOLDER
    ["weight", 1]                             bytes that came over the wire since the page was opened
    ["faults", 1]                             errors of scripts, of the security policy, and dialogs

Prints a line "ready" first, or "absent: why".
"""

import json
import pathlib
import shutil
import sys
import time


def main():
    base, folder = sys.argv[1].rstrip("/"), pathlib.Path(sys.argv[2])
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    try:
        from importlib.resources import files

        from playwright.sync_api import Error, sync_playwright

        axe = (files("axe_playwright_python") / "axe.min.js").read_text()
    except ImportError as error:
        return print(f"absent: {error} (make test-deps)", flush=True)
    if not chromium:
        return print("absent: no chromium (make test-deps)", flush=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu", "--no-proxy-server"]
        )
        pages, faults, weights = {}, {}, {}
        print("ready", flush=True)

        def open_page(number, options, path):
            # The one before would go on listening to the node.
            if number in pages:
                pages.pop(number).context.close()
            context = browser.new_context(
                viewport={"width": options.get("width", 1440), "height": options.get("height", 900)},
                color_scheme=options.get("scheme", "light"),
                java_script_enabled=options.get("script", True),
                # axe-core is put into pages for the test alone.
                bypass_csp=options.get("bypass", False),
                reduced_motion="reduce",
            )
            page = context.new_page()
            page.set_default_timeout(options.get("timeout", 60_000))
            seen = faults[number] = []
            page.on("pageerror", lambda error: seen.append(f"script: {error}"))
            page.on("dialog", lambda dialog: (seen.append(f"dialog: {dialog.message}"), dialog.dismiss()))
            # What the node refuses or does not answer is said there too; only the policy's own words are of interest.
            page.on("console", lambda said: seen.append(said.text) if "Content Security Policy" in said.text or "Trusted" in said.text else None)
            weights[number] = 0
            session = context.new_cdp_session(page)
            session.send("Network.enable")

            def finished(event):
                weights[number] += int(event.get("encodedDataLength", 0))

            session.on("Network.loadingFinished", finished)
            pages[number] = page
            page.goto(base + path, wait_until="load")

        def do(name, number, *rest):
            if name == "open":
                return open_page(number, *rest)
            page = pages[number]
            if name == "eval":
                return page.evaluate(rest[0])
            if name == "wait":
                began = time.monotonic()
                # Not wait_for_function: the pages' policy allows no eval. A page that is just loading has no answer.
                while True:
                    try:
                        if page.evaluate(rest[0]):
                            break
                    except Error as error:
                        if "context was destroyed" not in str(error) and "null" not in str(error):
                            raise
                    if (time.monotonic() - began) * 1000 > rest[1]:
                        raise ValueError("it never came true; the page says: " + page.evaluate("document.body.innerText")[:3000])
                    time.sleep(0.03)
                return round((time.monotonic() - began) * 1000)
            if name == "click":
                return page.click(rest[0])
            if name == "fill":
                return page.fill(rest[0], rest[1])
            if name == "press":
                return page.keyboard.press(rest[0])
            if name == "hover":
                return page.hover(rest[0])
            if name == "wheel":
                return page.mouse.wheel(0, rest[0])
            if name == "answer":
                method, path, answer = rest
                page.unroute_all()
                if answer:
                    is_it = lambda request: request.method == method and request.resource_type in ("xhr", "fetch")
                    page.route(base + path, lambda route: route.fulfill(**answer) if is_it(route.request) else route.fallback())
                return None
            if name == "axe":
                page.add_script_tag(content=axe)
                options = {"resultTypes": ["violations"]} | ({"runOnly": rest[0]} if rest else {})
                found = page.evaluate("(options) => axe.run(document, options)", options)
                return [
                    f"{each['id']}: {each['help']}: {node['target']} {node['html'][:160]}"
                    for each in found["violations"]
                    for node in each["nodes"]
                ]
            if name == "shot":
                page.screenshot(path=str(folder / rest[0]), full_page=True)
                return None
            if name == "weight":
                return weights[number]
            if name == "faults":
                return faults[number]
            raise ValueError(f"there is no command {name}")

        for line in sys.stdin:
            try:
                answer = {"ok": do(*json.loads(line))}
            except (Error, ValueError, KeyError) as error:
                answer = {"error": str(error)}
            print(json.dumps(answer), flush=True)
        browser.close()


main()

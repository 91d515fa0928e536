"""Looks at the pages of `lsbuf report` in a headless Chromium, by the DevTools protocol over a pipe.

Each line that it prints is one check that passed. A failure ends it with a message.

Usage: page.py CHROMIUM FOLDER [PICTURES]: FOLDER has the pages that the tests of
crates/lsbuf/src/render/page wrote. Into PICTURES go pictures of each view.
"""

import base64
import functools
import http.server
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time

VIEWS = ["map", "buffers", "processes", "sharing", "time", "leaks", "origins"]
WIDTHS = [320, 1280, 3840]


class Failed(Exception):
    pass


class Browser:
    """A Chromium that is told what to do on one pipe, and answers on another one."""

    def __init__(self, program):
        self.profile = tempfile.mkdtemp(prefix="lsbuf-page-")
        commands, self.to = os.pipe()
        self.answers, answers = os.pipe()

        def pipes():
            # The program wants them as 3 and 4, which may be taken by the other pipe's ends.
            high = [os.dup(commands), os.dup(answers)]
            while min(high) < 10:
                high = [os.dup(one) for one in high]
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        self.process = subprocess.Popen(
            [
                program, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe",
                "--no-first-run", "--disable-extensions", "--disable-background-networking",
                "--force-color-profile=srgb", "--hide-scrollbars", f"--user-data-dir={self.profile}", "about:blank",
            ],
            preexec_fn=pipes, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        self.number = 0
        self.rest = b""
        self.events = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ["Page", "Runtime", "Log", "Network", "Accessibility"]:
            self.send(f"{domain}.enable")

    def message(self):
        while b"\0" not in self.rest:
            piece = os.read(self.answers, 1 << 20)
            if not piece:
                raise Failed("the browser has gone")
            self.rest += piece
        message, self.rest = self.rest.split(b"\0", 1)
        return json.loads(message)

    def send(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if getattr(self, "session", None):
            message["sessionId"] = self.session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.to, data):]
        while True:
            answer = self.message()
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise Failed(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def run(self, script):
        answer = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise Failed(f"{script[:80]}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def size(self, width, height=900):
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def theme(self, name):
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def open(self, address):
        """Opens an address, and waits until the page is drawn."""
        self.send("Page.navigate", url="about:blank")
        self.events.clear()
        self.send("Page.navigate", url=address)
        for _ in range(600):
            if self.run("document.readyState === 'complete' && (!!document.querySelector('[role=tab]') || !document.getElementById('problem')?.hidden)"):
                return
            time.sleep(0.05)
        raise Failed(f"{address} is not drawn")

    def go(self, view):
        self.run(f"location.hash = '#{view}'")
        self.frames()

    def frames(self):
        self.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 0))))")

    def key(self, key):
        codes = {"Enter": 13, "Escape": 27, "Tab": 9, "ArrowDown": 40, "ArrowUp": 38, "ArrowLeft": 37, "ArrowRight": 39, "End": 35, "Home": 36, " ": 32}
        text = key if len(key) == 1 else "\r" if key == "Enter" else ""
        code = codes.get(key, ord(key.upper()) if len(key) == 1 else 0)
        down = "keyDown" if text else "rawKeyDown"
        self.send("Input.dispatchKeyEvent", type=down, key=key, text=text, windowsVirtualKeyCode=code)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)
        self.frames()

    def faults(self):
        """What the page did wrong, or tried to load, since it was opened."""
        found = []
        for event in self.events:
            params = event.get("params", {})
            if event.get("method") == "Runtime.exceptionThrown":
                found.append(params["exceptionDetails"].get("exception", {}).get("description", "exception"))
            elif event.get("method") == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                found.append(params["entry"]["text"])
            elif event.get("method") == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
                found.append(str(params["args"]))
        return found

    def requests(self):
        sent = [event["params"]["request"]["url"] for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        return [url for url in sent if not url.startswith(("about:", "data:"))]

    def picture(self, path):
        data = self.send("Page.captureScreenshot", format="png")["data"]
        pathlib.Path(path).write_bytes(base64.b64decode(data))

    def close(self):
        self.session = None
        try:
            self.send("Browser.close")
        except (Failed, OSError):
            pass
        self.process.wait(20)
        shutil.rmtree(self.profile, ignore_errors=True)


def passed(text):
    print(text, flush=True)


def check(holds, text):
    if not holds:
        raise Failed(text)


def every_view(browser, page, folder):
    """Each view draws, asks no network and does nothing wrong, in each width and theme."""
    address = (folder / page).as_uri()
    for theme in ["light", "dark"]:
        browser.theme(theme)
        for width in WIDTHS:
            browser.size(width)
            browser.open(address)
            for view in VIEWS:
                browser.go(view)
                wide = browser.run("document.documentElement.scrollWidth")
                check(wide <= width, f"{page} #{view} at {width}: {wide} pixels wide")
                text = browser.run("document.getElementById('panel').innerText.trim().length")
                check(text > 40, f"{page} #{view} at {width} is empty")
            check(not browser.faults(), f"{page} at {width}: {browser.faults()}")
            check(browser.requests() == [address], f"{page} asked for {browser.requests()}")
    passed(f"{page}: {len(VIEWS)} views at {WIDTHS} pixels, light and dark: drawn, no error, no violation, no request, not wider than the window")


def hostile(browser, folder):
    """No name becomes markup or runs."""
    browser.size(1280)
    browser.open((folder / "hostile.html").as_uri())
    elements = "['SCRIPT','IMG','IFRAME','OBJECT','I','B','A'].map((n) => n + document.querySelectorAll('body ' + n).length).join()"
    for view in VIEWS:
        browser.go(view)
        check(browser.run(elements) == "SCRIPT2,IMG0,IFRAME0,OBJECT0,I0,B0,A1", f"#{view}: {browser.run(elements)}")
        check("broken" not in browser.run("document.title"), f"#{view}: a name ran")
    browser.go("buffers")
    names = set()
    total = browser.run("Number(document.querySelector('[role=grid]').getAttribute('aria-rowcount')) - 1")
    for nth in range(total):
        browser.run(f"(() => {{ const grid = document.querySelector('[role=grid]'); grid.scrollTop = {nth} * 28; grid.dispatchEvent(new Event('scroll')); document.querySelector('.body [data-nth=\"{nth}\"]').click(); }})()")
        names.add(browser.run("document.querySelector('#detail h2').textContent"))
        check(browser.run("document.querySelectorAll('#detail script, #detail img, #detail svg, #detail b, #detail i').length") == 0, f"buffer {nth}")
    check(any(name.startswith("</script><script>") for name in names), f"the names are {names}")
    check(any("\\x1b[31mred\\x07\\x0d\\x0a\\x09line" == name for name in names), "a control character is shown as it is")
    check(any(name.startswith("\\xe2\\x80\\xaegpj") for name in names), "text may turn its direction")
    check("a\\xff<b>" in names, "a name that is not UTF-8 has lost its bytes")
    check(not browser.faults(), f"hostile.html: {browser.faults()}")
    passed(f"hostile.html: {len(names)} names in {len(VIEWS)} views and {total} details are text")


def policy(browser, folder):
    """The policy blocks what a hole in the script would let through."""
    browser.size(1280)
    attacks = {
        "a script element": "const s = document.createElement('script'); s.textContent = 'window.ran = 1'; document.body.append(s)",
        "a handler in markup": "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.ran = 1\">')",
        "eval": "try { (0, eval)('window.ran = 1') } catch {}",
        "a script of an address": "const s = document.createElement('script'); s.src = 'data:text/javascript,window.ran=1'; document.body.append(s)",
        "a picture of an address": "new Image().src = 'http://127.0.0.1:9/x'",
        "a request": "fetch('http://127.0.0.1:9/x').catch(() => {})",
        "a style element": "const s = document.createElement('style'); s.textContent = 'body { display: none }'; document.head.append(s)",
        "a frame": "const f = document.createElement('iframe'); f.src = 'data:text/html,x'; document.body.append(f)",
        "a form": "const f = document.createElement('form'); f.action = 'http://127.0.0.1:9/'; document.body.append(f); f.submit()",
        "a base": "const b = document.createElement('base'); b.href = 'http://127.0.0.1:9/'; document.head.append(b)",
        "a worker": "try { new Worker('data:text/javascript,0') } catch {}",
    }
    for name, attack in attacks.items():
        browser.open((folder / "small.html").as_uri())
        browser.run("window.blocked = []; document.addEventListener('securitypolicyviolation', (event) => blocked.push(event.effectiveDirective))")
        browser.events.clear()
        # Not by evaluate alone: what DevTools runs may be free of the policy, so the page itself does.
        browser.run(f"setTimeout(() => {{ {attack} }}, 0)")
        time.sleep(0.25)
        blocked = browser.run("blocked.join()")
        check(blocked != "", f"{name} is not blocked")
        check(browser.run("window.ran === undefined && getComputedStyle(document.body).display !== 'none'"), f"{name} ran")
        passed(f"policy: {name} is blocked by {blocked.split(',')[0]}")


def keyboard(browser, folder):
    """Without a pointer: each view is reached, a buffer is opened and closed, focus comes back."""
    browser.size(1280)
    browser.open((folder / "recorded.html").as_uri())
    browser.key("Tab")
    check(browser.run("document.activeElement.className") == "skip", "the first stop is no skip link")
    browser.key("Enter")
    check(browser.run("document.activeElement.id") == "views", "the skip link leads nowhere")
    for nth, view in enumerate(VIEWS):
        browser.key(str(nth + 1))
        check(browser.run("document.querySelector('[aria-selected=true]').id") == f"tab-{view}", f"key {nth + 1}")
    browser.run("document.getElementById('tab-origins').focus()")
    browser.key("ArrowRight")
    check(browser.run("document.activeElement.id") == "tab-map", "arrows do not move among tabs")
    browser.run("document.querySelector('.map [tabindex=\"0\"]').focus()")
    label = "document.activeElement.getAttribute('aria-label')"
    first = browser.run(label)
    browser.key("ArrowRight")
    check(browser.run(label) not in (None, first), "arrows do not move in the map")
    browser.key("ArrowLeft")
    browser.key("ArrowDown")
    check(browser.run("document.activeElement.dataset.level") == "2", "down does not lead into a kind")
    browser.key("Enter")
    browser.key("Escape")
    browser.key("Escape")
    browser.key("2")
    browser.run("document.querySelector('.body [tabindex=\"0\"]').focus()")
    browser.key("ArrowDown")
    browser.key("ArrowDown")
    check(browser.run("document.activeElement.dataset.nth") == "2", "arrows do not move in the table")
    browser.key("End")
    last = browser.run("document.activeElement.getAttribute('aria-rowindex')")
    check(last == browser.run("document.querySelector('[role=grid]').getAttribute('aria-rowcount')"), "End is not the last row")
    browser.key("Enter")
    check(browser.run("document.activeElement.tagName") == "H2", "a buffer does not get the focus")
    browser.key("Escape")
    check(browser.run("document.activeElement.getAttribute('role')") == "row", "the focus does not come back")
    browser.key("/")
    check(browser.run("document.activeElement.id") == "words", "/ does not lead to the filter")
    for letter in "call":
        browser.key(letter)
    count = browser.run("document.getElementById('filter-count').value")
    check(" of " in count, f"the filter says {count}")
    browser.key("Escape")
    check(browser.run("document.getElementById('words').value") == "", "Esc does not clear the filter")
    passed("keyboard: skip link, views, map, table, one buffer and back, filter")


def names_of_roles(browser, folder):
    """Whatever can be chosen has a name for a screen reader."""
    browser.open((folder / "recorded.html").as_uri())
    number = 0
    for view in VIEWS:
        browser.go(view)
        for node in browser.send("Accessibility.getFullAXTree")["nodes"]:
            role = node.get("role", {}).get("value")
            if node.get("ignored") or role not in ("button", "searchbox", "combobox", "slider", "tab", "tabpanel", "grid", "img", "checkbox", "link"):
                continue
            number += 1
            check(node.get("name", {}).get("value", "").strip() != "", f"#{view}: a {role} has no name")
    passed(f"screen reader: each of {number} controls and pictures has a name")


CONTRAST = """
(() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgb = (color, below) => {
    canvas.fillStyle = `rgb(${below.join()})`; canvas.fillRect(0, 0, 1, 1);
    canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return Array.from(canvas.getImageData(0, 0, 1, 1).data.slice(0, 3));
  };
  const ground = (element) => element ? rgb(getComputedStyle(element).backgroundColor, ground(element.parentElement)) : [255, 255, 255];
  const light = (color) => {
    const [r, g, b] = color.map((c) => c / 255).map((c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  let worst = [99, ''];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !element.checkVisibility() || element.closest('script, option, .skip')) continue;
    const style = getComputedStyle(element);
    const below = ground(element.closest('svg')?.parentElement ?? element);
    const above = rgb(element.closest('svg') ? style.fill : style.color, below);
    const [a, b] = [light(above), light(below)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < worst[0]) worst = [ratio, `${element.className} ${walk.currentNode.data.slice(0, 40)}`];
  }
  return worst;
})()
"""


def contrast(browser, folder):
    """Text stands out from what is behind it: 4.5 to 1, as WCAG AA asks."""
    least = 99
    for theme in ["light", "dark"]:
        browser.theme(theme)
        browser.open((folder / "recorded.html").as_uri())
        for view in VIEWS:
            browser.go(view)
            ratio, text = browser.run(CONTRAST)
            check(ratio >= 4.5, f"#{view}, {theme}: {ratio:.2f} of {text}")
            least = min(least, ratio)
    passed(f"contrast: at least {least:.1f} to 1 in both themes")


def speed(browser, folder):
    """20,000 buffers: the time to the first drawing, and from a key in the filter to the drawing.

    The times are printed and compared with nothing: other programs disturb them. They are wanted to be
    at most 1000 ms and 50 ms.
    """
    browser.theme("light")
    browser.size(1280)
    address = (folder / "large.html").as_uri()
    first = []
    for _ in range(3):
        browser.open(address)
        first.append(browser.run("performance.getEntriesByName('lsbuf-drawn')[0].startTime"))
    for view in VIEWS:
        browser.go(view)
        rounds = [[keystroke(browser, letter) for letter in word(browser, "pool-17")] for _ in range(3)]
        every = sorted(time for one in rounds for time in one)
        worst = max(min(times) for times in zip(*rounds))
        passed(
            f"20,000 buffers, #{view}: a key in the filter is drawn after {worst:.0f} ms (the slowest key, best of 3; "
            f"all keys: median {every[len(every) // 2]:.0f} ms, slowest {every[-1]:.0f} ms)"
        )
    size = (folder / "large.html").stat().st_size
    times = ", ".join(f"{time:.0f}" for time in sorted(first))
    passed(f"20,000 buffers, {size / 1e6:.1f} MB: first drawing after {min(first):.0f} ms (of {times} ms)")


def word(browser, text):
    """The letters of a word, for an empty filter that has the focus."""
    browser.run(
        "(() => { const words = document.getElementById('words'); words.value = '';"
        " words.dispatchEvent(new Event('input')); words.focus(); })()"
    )
    time.sleep(0.3)
    return text


def keystroke(browser, letter):
    """Milliseconds from an input to the end of the frame in which it is drawn."""
    browser.run(
        """window.took = new Promise((done) => document.getElementById('words').addEventListener('input', (event) => {
          requestAnimationFrame(() => {
            const channel = new MessageChannel();
            channel.port1.onmessage = () => done(performance.now() - event.timeStamp);
            channel.port2.postMessage(0);
          });
        }, { once: true, capture: true })); 0"""
    )
    browser.send("Input.insertText", text=letter)
    return browser.run("window.took")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def served(browser, folder):
    """Without data in it, the page fetches them from its server."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_address[1]}"
    browser.open(f"{base}/served.html")
    check(browser.requests() == [f"{base}/served.html", f"{base}/snapshot.json"], f"asked for {browser.requests()}")
    check(browser.run("document.querySelectorAll('.map .cell').length") > 10, "nothing is drawn")
    check(not browser.faults(), f"served: {browser.faults()}")
    server.shutdown()
    passed("served.html: fetches snapshot.json from its own server, and nothing else")


def pictures(browser, folder, into):
    into.mkdir(parents=True, exist_ok=True)
    for theme in ["light", "dark"]:
        browser.theme(theme)
        for width, height in [(320, 700), (1280, 900), (3840, 2160)]:
            browser.size(width, height)
            browser.open((folder / "recorded.html").as_uri())
            for view in VIEWS:
                browser.go(view)
                browser.run("document.getElementById('views').scrollIntoView()") if width == 320 else None
                browser.frames()
                browser.picture(into / f"{view}-{theme}-{width}.png")
            browser.go("buffers")
            browser.run("document.querySelectorAll('.body [role=row]')[3].click()")
            browser.frames()
            browser.picture(into / f"detail-{theme}-{width}.png")
            browser.key("Escape")
            if width == 320:
                browser.run("scrollTo(0, 0)")
                browser.picture(into / f"top-{theme}-{width}.png")


def main():
    program, folder = sys.argv[1], pathlib.Path(sys.argv[2]).resolve()
    browser = Browser(program)
    try:
        if len(sys.argv) > 3:
            pictures(browser, folder, pathlib.Path(sys.argv[3]))
            return
        for page in ["small.html", "recorded.html", "redacted.html", "hostile.html"]:
            every_view(browser, page, folder)
        hostile(browser, folder)
        policy(browser, folder)
        keyboard(browser, folder)
        names_of_roles(browser, folder)
        contrast(browser, folder)
        speed(browser, folder)
        served(browser, folder)
    except Failed as failure:
        sys.exit(f"page: {failure}")
    finally:
        browser.close()


main()

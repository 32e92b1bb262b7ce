"""A JupyterLab of one's own and a page of Chromium that looks at it, for the browser tests."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

START_SECONDS = 180
PATIENCE = 600_000              # milliseconds for what a shared machine may take long for

# `--expose-app-in-browser` hands out the application under this name.
OPENED = """async () => {
    const app = window.jupyterapp, widget = app?.shell?.currentWidget;
    if (!widget?.context || !app.commands.hasCommand('notebook:run-all-cells')) return false;
    await app.restored;
    await widget.context.ready;
    await widget.context.sessionContext.ready;
    return widget.context.sessionContext.session?.kernel?.status === 'idle';
}"""
RUN_ALL = "() => window.jupyterapp.commands.execute('notebook:run-all-cells')"
IDLE = """() => {
    const context = window.jupyterapp.shell.currentWidget.context;
    const code = context.model.toJSON().cells.filter(c => c.cell_type === 'code');
    return code.every(c => c.execution_count !== null)
        && context.sessionContext.session.kernel.status === 'idle';
}"""
CELLS = "() => window.jupyterapp.shell.currentWidget.context.model.toJSON().cells"
BUSY = """seconds => {
    const kernel = window.jupyterapp.shell.currentWidget.context.sessionContext.session.kernel;
    window.busy = kernel.requestExecute({code: `import time; time.sleep(${seconds})`}).done;
    window.busyUntil = null;
    window.busy.then(() => { window.busyUntil = performance.now(); });
}"""
# The colours of a picture as they are on the screen: a new address is not yet a new picture.
PIXELS = """async image => {
    if (!image) return '';
    await image.decode();
    const canvas = document.createElement('canvas');
    canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
    const pen = canvas.getContext('2d');
    pen.drawImage(image, 0, 0);
    const data = pen.getImageData(0, 0, canvas.width, canvas.height).data;
    const digest = await crypto.subtle.digest('SHA-256', data);
    return Array.from(new Uint8Array(digest)).map(b => b.toString(16)).join('');
}"""


def settings(folder: Path, *, subshells: bool) -> None:
    """No cell leaves the page when it is scrolled away; widgets speak beside the cells or not."""
    for name, values in {
            "notebook-extension/tracker": {"windowingMode": "none"},
            "apputils-extension/kernels-settings":
                {"commsOverSubshells": "perCommTarget" if subshells else "disabled"},
            "apputils-extension/notification": {"fetchNews": "false"}}.items():
        path = folder / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))


@contextmanager
def serve(notebooks: Path, scratch: Path, *, subshells: bool) -> Iterator[str]:
    """JupyterLab on a folder, with no settings but ours; yields a URL to format with a name."""
    settings(scratch / "settings", subshells=subshells)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    places = {name: str(scratch / name.lower()) for name in
              ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")}
    environment = os.environ | places | {
        "JUPYTERLAB_SETTINGS_DIR": str(scratch / "settings"), "MINISD_MODEL": "toyworld"}
    with (scratch / "server.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root",
             "--expose-app-in-browser", f"--ServerApp.root_dir={notebooks}",
             f"--ServerApp.port={port}", "--ServerApp.port_retries=0",
             f"--IdentityProvider.token={token}"],
            env=environment, stdout=log, stderr=log)
    try:
        root = f"http://127.0.0.1:{port}"
        _wait_for(f"{root}/api/status?token={token}", server, scratch / "server.log")
        yield f"{root}/lab/tree/{{}}.ipynb?token={token}&reset"
    finally:
        server.terminate()
        server.wait(60)


def _wait_for(url: str, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")


@contextmanager
def browser_page() -> Iterator[Page]:
    """A page of Debian's Chromium, the width of a projector."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-dev-shm-usage"])
        try:
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.set_default_timeout(PATIENCE)
            yield page
        finally:
            browser.close()


def _until(page: Page, condition: str) -> None:
    """Asked from here, for `wait_for_function` takes the promise of an answer for a yes."""
    deadline = time.monotonic() + PATIENCE / 1000
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, f"never came true: {condition}"
        time.sleep(0.3)


def open_and_run(page: Page, url: str) -> list[dict[str, Any]]:
    """Open a notebook, run all its cells; the cells with their outputs."""
    page.goto(url)
    _until(page, OPENED)
    page.evaluate(RUN_ALL)
    _until(page, IDLE)
    return [cell for cell in page.evaluate(CELLS) if cell["cell_type"] == "code"]

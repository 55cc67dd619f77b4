"""A Weights & Biases server that dies, hangs, dawdles or throws one out: no run is stopped, delayed or changed by it."""

import gzip
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.conftest import ROOT
from tests.killed import results
from tests.tiny import CELL

KEY = "a1" * 20
PROJECT = {"id": "2", "name": "canonxai", "entity": {"id": "3", "name": "me"}}
BUCKET = {"id": "1", "name": "run", "displayName": "run", "config": "{}", "historyLineCount": 0, "project": PROJECT}
ANSWERS = {
    "upsertBucket": {"upsertBucket": {"bucket": BUCKET, "inserted": True}},
    "viewer": {"viewer": {"id": "9", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}},
}


class Server(ThreadingHTTPServer):
    """Answers as Weights & Biases does, until so many requests have been answered; then it does something else."""

    daemon_threads = True

    def __init__(self, good, then):
        super().__init__(("127.0.0.1", 0), Handler)
        self.good, self.then = good, then
        self.asked = 0
        self.closed = threading.Event()
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.closed.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, *_):
        """A client that went away."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):  # noqa: N802
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with self.server.lock:
            self.server.asked += 1
            is_good = self.server.asked <= self.server.good
        if not is_good and self.server.then == "dies":
            self.close_connection = True
            return self.connection.close()
        if not is_good and self.server.then in ("hangs", "dawdles"):
            self.server.closed.wait(1000 if self.server.then == "hangs" else 0.3)
        query = ""
        if self.path == "/graphql":
            query = json.loads(gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body)["query"]
        data = next((answer for name, answer in ANSWERS.items() if name in query), {})
        answer = json.dumps({"data": data} if query else {}).encode()
        self.send_response(401 if not is_good and self.server.then == "throws out" else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
        return None

    do_GET = do_PUT = do_POST  # noqa: N815

    def log_message(self, *_):
        """Nothing."""


def run(folder, **environment):
    """The tiny cell as a process, with the key of somebody who has logged in."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    home = {"HOME": str(folder / "home"), "NETRC": str(folder / "home" / ".netrc"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "canonxai", *CELL, "logger=wandb", "logger.timeout=2", "hydra.run.dir=cell"]
    folder.mkdir(exist_ok=True)
    environment = inherited | home | environment
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The results without a logger that could disturb."""
    folder = tmp_path_factory.mktemp("undisturbed")
    done = run(folder, WANDB_MODE="offline")
    assert done.returncode == 0, done.stderr
    return results(folder / "cell")


OFFLINE = "W&B: could not go online within 2 s"
LATER = "W&B: the server has not taken all in time; to upload this run later: wandb sync "


@pytest.mark.parametrize(
    ("good", "then", "told"),
    [
        (0, "hangs", OFFLINE),
        (1, "hangs", LATER),  # as soon as the run is online
        (1, "dies", LATER),
        (1, "throws out", ""),
        (0, "dawdles", ""),
    ],
)
def test_a_run_ends_with_its_results_whatever_the_server_does(good, then, told, undisturbed, tmp_path):
    with Server(good, then) as server:
        done = run(tmp_path, WANDB_API_KEY=KEY, WANDB_BASE_URL=f"http://127.0.0.1:{server.server_port}")
    assert done.returncode == 0, done.stderr
    assert server.asked > good
    assert told in done.stderr + done.stdout
    assert results(tmp_path / "cell") == undisturbed
    assert json.loads((tmp_path / "cell" / "summary.json").read_text())["images"] == 12
    assert len(list((tmp_path / "cell" / "wandb").glob("offline-run-*/*.wandb"))) == (told == OFFLINE)
    assert "Traceback" not in done.stderr
    assert KEY not in done.stderr + done.stdout + (tmp_path / "cell" / "canonxai.log").read_text()

"""A Weights & Biases server that dies, hangs, dawdles or throws one out: no run is stopped, delayed or changed by it.

The runs are forks of a process, which is this file as a program, that has imported everything but started nothing.
"""

import gzip
import json
import logging
import os
import subprocess
import sys
import threading
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from canonxai.config import CONF, register
from canonxai.run import run
from tests.conftest import ROOT
from tests.killed import results
from tests.tiny import CELL

KEY = "a1" * 20
PROJECT = {"id": "2", "name": "canonxai", "entity": {"id": "3", "name": "me"}}
BUCKET = {"id": "1", "name": "run", "displayName": "run", "config": "{}", "historyLineCount": 0, "project": PROJECT}
ANSWERS = {
    "createRunFiles": {"createRunFiles": {"runID": "run", "uploadHeaders": [], "files": []}},
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

    def do_POST(self):
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


#: how many requests are answered well, what happens then, and what the run tells
OFFLINE = "W&B: could not go online within 2 s"
LATER = "W&B: the server has not taken all in time; to upload this run later: wandb sync "
CASES = {
    "hangs from the start": (0, "hangs", OFFLINE),
    "hangs once the run is online": (1, "hangs", LATER),
    "dies once the run is online": (1, "dies", LATER),
    "throws the run out": (1, "throws out", ""),
    "dawdles": (0, "dawdles", ""),
}


def main(folder, **ports):
    """Runs the tiny cell beside each other, for each server as somebody who has logged in there."""
    register()
    children = []
    for name, port in ports.items():
        (folder / name / "home").mkdir(parents=True)
        if (child := os.fork()) == 0:
            told = os.open(folder / name / "told", os.O_CREAT | os.O_WRONLY)
            os.dup2(told, 1)
            os.dup2(told, 2)
            home = folder / name / "home"
            os.environ.update(HOME=str(home), NETRC=str(home / ".netrc"))
            if port:
                os.environ.update(WANDB_API_KEY=KEY, WANDB_BASE_URL=f"http://127.0.0.1:{port}")
            logging.basicConfig(level=logging.INFO)
            with initialize_config_dir(str(CONF), version_base="1.3"):
                cfg = compose("config", overrides=[*CELL, "logger=wandb", "logger.timeout=2"])
            run(cfg, folder / name / "cell")
            sys.exit()  # with what is to be done at the end
        children.append(child)
    for child, name in zip(children, ports, strict=True):
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        (folder / name / "code").write_text(str(code))


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """The folder of all runs, and how often each server was asked."""
    folder = tmp_path_factory.mktemp("runs")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    with ExitStack() as stack:
        servers = {name: stack.enter_context(Server(good, then)) for name, (good, then, _) in CASES.items()}
        ports = [f"{name}={server.server_port}" for name, server in servers.items()]
        done = subprocess.run(
            [sys.executable, "-m", "tests.results.test_wandb_server", str(folder), "undisturbed=", *ports],
            cwd=ROOT, env=inherited | {"PYTHONPATH": str(ROOT)}, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0
        return folder, {name: server.asked for name, server in servers.items()}


@pytest.mark.parametrize("name", CASES)
def test_a_run_ends_with_its_results_whatever_the_server_does(name, ended):
    folder, asked = ended
    good, _, expected = CASES[name]
    told = (folder / name / "told").read_text()
    assert (folder / name / "code").read_text() == "0", told
    assert asked[name] > good and expected in told
    cell = folder / name / "cell"
    assert results(cell) == results(folder / "undisturbed" / "cell")
    assert json.loads((cell / "summary.json").read_text())["images"] == 12
    assert len(list((cell / "wandb").glob("offline-run-*/*.wandb"))) == (expected == OFFLINE)
    assert "Traceback" not in told
    assert KEY not in told


if __name__ == "__main__":
    main(Path(sys.argv[1]), **dict(argument.split("=") for argument in sys.argv[2:]))

"""A server for tests: the embedded model behind the interface of OpenAI's completions, with whatever can go wrong."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tiltlab.models.hf import HFModel


class Serving:
    """What a server does, to be changed while it runs.

    faults: status codes, or "half", "drop" or "abort", that the next completions are answered with.
    warm: log-probabilities are those at temperature 1. end: they are given for the token that ends a response too.
    logprobs: whether they are given at all.
    """

    def __init__(self, model: HFModel) -> None:
        self.model, self.faults = model, list[Any]()
        self.warm = self.end = self.logprobs = True
        self.asked: list[dict[str, Any]] = []
        self.headers: list[str | None] = []
        self.lock = threading.Lock()

    def completion(self, body: dict[str, Any]) -> dict[str, Any]:
        with self.lock:
            [[r]] = self.model.generate(
                [body["prompt"]], n=1, temperature=body["temperature"], max_tokens=body["max_tokens"], seed=body["seed"]
            )
        texts = [self.model.codec.tokenizer.decode([token]) for token in r.tokens]
        colder = 1 if self.warm else 1 / body["temperature"]
        logps = [logp * colder for logp in r.logprobs]
        keep = len(texts) - (r.complete and not self.end)
        known = {"tokens": texts[:keep], "token_logprobs": [min(0.0, logp) for logp in logps[:keep]]}
        finish = "stop" if r.complete else "length"
        return {"text": r.text, "finish_reason": finish, "logprobs": known if self.logprobs else None}


@contextmanager
def serving(model: HFModel, port: int = 0) -> Iterator[tuple[Serving, str]]:
    """A server on a loopback port while the block lasts, and its address as a model's path."""
    state = Serving(model)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def answer(self, code: int, said: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def do_GET(self) -> None:
            self.answer(200, json.dumps({"data": [{"id": "tiny"}]}).encode())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.headers.append(self.headers.get("Authorization"))
            fault = state.faults.pop(0) if state.faults else None
            if fault == "drop":
                self.close_connection = True
                return
            if isinstance(fault, int):
                self.answer(fault, json.dumps({"error": f"not for {self.headers.get('Authorization')}"}).encode())
                return
            state.asked.append(body)
            choice = state.completion(body)
            if fault == "abort":
                choice |= {"text": "", "finish_reason": "abort"}
            said = json.dumps({"choices": [choice]}).encode()
            self.answer(200, said[: len(said) // 2] if fault == "half" else said)

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield state, f"server:http://127.0.0.1:{server.server_port}/v1#tiny"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

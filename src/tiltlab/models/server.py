"""A server that completes prompts, by the OpenAI-compatible HTTP interface that vLLM, SGLang and llama.cpp offer.

Left out on purpose: streaming. A response that was not finished is asked for again, with the same seed.
"""

import math
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tiltlab.errors import UserError, brief, shown
from tiltlab.types import Prompt

SCHEME = "server:"
KEY = "TILTLAB_API_KEY"
"""The environment variable that holds the server's key; OPENAI_API_KEY where it is not set."""

ATTEMPTS = 8
"""Tries of a request before a server is given up: with pauses that double up to LONGEST, about two minutes."""

LONGEST = 30.0
"""Seconds of the longest pause, and PATIENCE of one request: a long response on a busy server takes its time."""

PATIENCE = 1800.0

TOP = 0.01
"""Nats: rounding may take a log-probability that far above 0."""

UNCUT = {"top_p": 1.0, "top_k": -1, "min_p": 0.0, "repeat_penalty": 1.0, "repetition_penalty": 1.0}
"""Servers cut the distribution by default (llama.cpp to 40 tokens, vLLM as the model's own settings say): this keeps it
whole. What a server does not know, it ignores."""


UNFINISHED = (None, "", "abort", "error", "cancelled")
"""What a server says of a response that it gave up, as when it is stopped."""


@dataclass(frozen=True)
class Address:
    """Where a server is, and what it calls the model: "server:http://127.0.0.1:8000/v1#NAME".

    url: up to and with the version, without a slash at the end.
    name: of the model.
    """

    url: str
    name: str

    @classmethod
    def read(cls, path: str) -> "Address":
        """Raises UserError for a path that names none, and for one with a key in it, which would be written down."""
        url, mark, name = path.removeprefix(SCHEME).partition("#")
        parts = urlsplit(url)
        if parts.username or parts.password or parts.query:
            raise UserError(f"a server's address is written to files, so it must hold no key; put the key into {KEY}")
        if not (re.match(r"https?://[^/]", url) and mark and name):
            raise UserError(f"model {shown(path)} names no server; write {SCHEME}http://HOST:PORT/v1#NAME")
        return cls(url.rstrip("/"), name)


def is_served(path: str) -> bool:
    """Whether a model's path is a server's address."""
    return path.startswith(SCHEME)


@dataclass(frozen=True)
class Completion:
    """What a server said.

    text: the response.
    tokens: each token as text.
    logprobs: of each, nats, as the server gives them.
    finish: why it ended: "stop", "length", or what else the server says.
    """

    text: str
    tokens: tuple[str, ...]
    logprobs: tuple[float, ...]
    finish: str | None


class Lost(Exception):
    """A request that may go well when it is made again."""


class Server:
    """Asks one server. Used from several threads.

    Raises UserError where requests or tenacity is not installed.
    """

    def __init__(self, address: Address) -> None:
        try:
            import requests  # noqa: F401
            import tenacity  # noqa: F401
        except ImportError as error:
            raise UserError(f"a server as model needs `pip install 'tiltlab[server]'` ({brief(error)})") from error
        self.address = address
        self._local = threading.local()

    def models(self) -> list[str]:
        """What the server calls its models. Raises UserError where there is no server, or it lists none."""
        said = self.ask("models", None, attempts=1)
        listed = said.get("data")
        names = [one.get("id") for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
        return [name for name in names if isinstance(name, str)]

    def complete(self, prompt: Prompt, settings: Mapping[str, Any], *, attempts: int | None = None) -> Completion:
        """One response, with log-probabilities.

        prompt: text as it stands, or chat messages, which the server's own template writes.
        settings: max_tokens, temperature, seed and the like.
        attempts: ATTEMPTS where left out.

        Raises UserError where the server refuses, is gone for good, or gives no log-probabilities.
        """
        asked = {"model": self.address.name, "n": 1} | UNCUT | dict(settings)
        if isinstance(prompt, str):
            said = self.ask("completions", asked | {"prompt": prompt, "logprobs": 1}, attempts)
            return self._plain(said)
        chat = {"messages": [dict(message) for message in prompt], "logprobs": True, "top_logprobs": 1}
        return self._chat(self.ask("chat/completions", asked | chat, attempts))

    def ask(self, what: str, body: Mapping[str, Any] | None, attempts: int | None) -> dict[str, Any]:
        """The server's answer to one request, made again while that may help."""
        import tenacity

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Lost),
            stop=tenacity.stop_after_attempt(attempts or ATTEMPTS),
            wait=tenacity.wait_random_exponential(max=LONGEST),
            reraise=True,
        )
        try:
            answer: dict[str, Any] = retrying(self._once, what, body)
        except Lost as lost:
            raise UserError(f"server {self.address.url}: {lost}") from lost
        return answer

    def _once(self, what: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        import requests

        session = self._local.__dict__.setdefault("session", requests.Session())
        key = _key()
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            answer = session.request(
                "GET" if body is None else "POST",
                f"{self.address.url}/{what}",
                json=body,
                headers=headers,
                timeout=(10, PATIENCE),
                allow_redirects=False,  # a key goes to nobody else
            )
            code, said = answer.status_code, answer.json() if answer.ok else answer.text
        except requests.exceptions.JSONDecodeError as error:
            raise Lost("half an answer, or no server of this kind: what it says is not JSON") from error
        except requests.RequestException as error:
            raise Lost(f"no answer ({type(error).__name__})") from error
        if code in (408, 409, 425, 429) or code >= 500:
            raise Lost(f"it says {code}: {_quoted(said)}")
        if code >= 300:
            raise UserError(f"server {self.address.url} refuses {what} with {code}: {_quoted(said)}")
        if not isinstance(said, dict):
            raise Lost("half an answer: it is no JSON object")
        if any(choice.get("finish_reason") in UNFINISHED for choice in _choices(said)):
            raise Lost("half an answer: it does not say that the response ended or reached its limit")
        return said

    def _plain(self, said: Mapping[str, Any]) -> Completion:
        choice = self._choice(said)
        logprobs = choice.get("logprobs")
        known = logprobs if isinstance(logprobs, dict) else {}
        if isinstance(known.get("content"), list):  # llama.cpp answers both in the form of a chat
            return self._completion(choice, choice.get("text"), known["content"])
        pairs = zip(known.get("tokens") or (), known.get("token_logprobs") or (), strict=False)
        content = [{"token": token, "logprob": logp} for token, logp in pairs]
        return self._completion(choice, choice.get("text"), content)

    def _chat(self, said: Mapping[str, Any]) -> Completion:
        choice = self._choice(said)
        message, logprobs = choice.get("message"), choice.get("logprobs")
        text = message.get("content") if isinstance(message, dict) else None
        content = logprobs.get("content") if isinstance(logprobs, dict) else None
        return self._completion(choice, text or "", content or [])

    def _choice(self, said: Mapping[str, Any]) -> Mapping[str, Any]:
        choices = _choices(said)
        if not choices:
            raise UserError(f"server {self.address.url} answers without choices: {_quoted(said)}")
        return choices[0]

    def _completion(self, choice: Mapping[str, Any], text: Any, content: list[Any]) -> Completion:
        if not isinstance(text, str):
            raise UserError(f"server {self.address.url} answers without a text")
        tokens = [one.get("token") for one in content if isinstance(one, dict)]
        logps = [one.get("logprob") for one in content if isinstance(one, dict)]
        texts = [token for token in tokens if isinstance(token, str)]
        known = [float(logp) for logp in logps if isinstance(logp, int | float) and math.isfinite(logp) and logp < TOP]
        if (not texts and text) or not len(texts) == len(known) == len(content):
            raise UserError(
                f"server {self.address.url} gives no log-probabilities of its tokens; start it so that it does "
                "(llama.cpp: logits for all tokens), or have it answer elsewhere and grade the responses alone"
            )
        return Completion(text, tuple(texts), tuple(known), choice.get("finish_reason"))


def _choices(said: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    choices = said.get("choices")
    return [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []


def _quoted(said: Any) -> str:
    """The beginning of what a server said, without the key, which some repeat."""
    return brief(str(said).replace(_key() or "\0", "(the key)"), 200)


def _key() -> str:
    """The server's key; empty where there is none. Raises UserError for one that no request can carry."""
    name = KEY if os.environ.get(KEY) else "OPENAI_API_KEY"
    key = os.environ.get(name, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"{name} holds a character that no key has; set it again")
    return key

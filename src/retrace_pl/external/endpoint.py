"""An HTTP endpoint that returns probabilities: batches, retries and a query budget."""

from __future__ import annotations

import email.utils
import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx2

from retrace_pl.data.paths import expand, one_line
from retrace_pl.errors import InputError, RunError
from retrace_pl.external.questions import Encoding, Questions

__all__ = ["EndpointSettings", "HttpEndpoint"]

_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses that say nothing about the request itself."""

_LONGEST_WAIT = 600.0  # seconds; an endpoint that asks for more is better asked again tomorrow
_FIRST_WAIT, _LARGEST_BACKOFF = 0.5, 60.0
_LARGEST_ANSWER = 1 << 28  # bytes


@dataclass(frozen=True)
class EndpointSettings:
    """How an HTTP endpoint is asked.

    Args:
        batch: Inputs of one request.
        timeout: Seconds until a request counts as failed.
        retries: Further attempts after one that failed for a reason that may pass.
        encoding: How numbers are sent: `base64` of float32 in little-endian order, or nested `list`s.
        headers: Further headers, each `Name: value`; `$NAME` is taken from the environment, so that no secret has to
            be written down.

    Raises:
        InputError: A setting is out of range.
    """

    batch: int = 64
    timeout: float = 30.0
    retries: int = 5
    encoding: Encoding = "base64"
    headers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise InputError(f"--endpoint-batch: {self.batch} is below 1")
        if not self.timeout > 0:
            raise InputError(f"--endpoint-timeout: {self.timeout:g} is not above 0 seconds")
        if self.retries < 0:
            raise InputError(f"--endpoint-retries: {self.retries} is negative")
        for header in self.headers:
            name, _, value = header.partition(":")
            if not name.strip() or not value.strip():
                raise InputError(f"--endpoint-header: {header!r} is not written as 'Name: value'")


class HttpEndpoint:
    """Asks an endpoint for probabilities, one batch with every call.

    A request is a POST of JSON, ``{"inputs": {"shape": [n, C, S, S], "dtype": "float32", "data": BASE64}}`` or
    ``{"inputs": [[[[...]]]]}``, of texts ``{"inputs": ["...", ...]}``; the answer is
    ``{"probabilities": [[...], ...]}``, one row for each input.

    What may pass is tried again: no connection, a connection that breaks, no answer in time, and the statuses 408,
    425, 429, 500, 502, 503 and 504. Between attempts it waits for half a second, twice as long each time and at most a
    minute, with a random part so that clients do not come back all at once, or for as long as ``Retry-After`` asks.

    Args:
        url: Where to post.
        settings: How to ask.
        sleep: Waits; replaced in tests.

    Raises:
        InputError: The address or a header cannot be used.
    """

    def __init__(self, url: str, settings: EndpointSettings, sleep: Callable[[float], None] = time.sleep) -> None:
        self.url = url
        self.settings = settings
        self.sleep = sleep
        headers = {}
        for header in settings.headers:
            name, _, value = header.partition(":")
            headers[name.strip()] = expand(value.strip(), "--endpoint-header")
        if "@" in url.partition("//")[2].partition("/")[0]:
            raise InputError("an endpoint's address must not hold a password; send it with --endpoint-header")
        try:
            self._client = httpx2.Client(headers=headers, timeout=settings.timeout, follow_redirects=False)
            self._client.build_request("POST", url)
        except (httpx2.InvalidURL, ValueError, TypeError) as error:
            raise InputError(f"{url} cannot be used as an endpoint: {one_line(error)}") from error

    def close(self) -> None:
        """Closes the connection."""
        self._client.close()

    def __call__(self, questions: Questions, charge: Callable[[int], None]) -> Any:
        """Sends questions and returns what the answer has under `probabilities`.

        Args:
            questions: The batch.
            charge: Called with n before every attempt; may refuse by raising.

        Raises:
            RunError: The endpoint does not answer, or refuses the request.
        """
        content = json.dumps({"inputs": questions.content(self.settings.encoding)}).encode()
        failure = ""
        for attempt in range(self.settings.retries + 1):
            charge(len(questions))
            try:
                status, headers, body = self._post(content)
            except httpx2.RequestError as error:
                failure, wait = one_line(error), 0.0
            else:
                if status == 200:
                    return self._probabilities(body)
                failure = f"status {status}: {body[:200].decode('utf-8', errors='replace')}"
                if status not in _TRANSIENT:
                    raise RunError(f"{self.url} refuses the request with {failure}")
                wait = _retry_after(headers)
            if attempt < self.settings.retries:
                self._wait(attempt, wait, failure)
        attempts = self.settings.retries + 1
        raise RunError(
            f"{self.url} gave no answer in {attempts} attempt{'s' if attempts > 1 else ''}, at last: {failure}; the "
            "answers so far are kept, run the same command again"
        )

    def _wait(self, attempt: int, wanted: float, failure: str) -> None:
        if wanted > _LONGEST_WAIT:
            raise RunError(
                f"{self.url} asks to come back in {wanted:.0f} seconds ({failure}); run the command again then"
            )
        backoff = min(_LARGEST_BACKOFF, _FIRST_WAIT * 2**attempt)
        self.sleep(max(wanted, backoff * random.uniform(0.5, 1.0)))

    def _post(self, content: bytes) -> tuple[int, Mapping[str, str], bytes]:
        """One attempt; reading has an end of its own, because a server may send its answer byte by byte."""
        deadline = time.monotonic() + self.settings.timeout
        kind = {"Content-Type": "application/json"}
        with self._client.stream("POST", self.url, content=content, headers=kind) as response:
            body = bytearray()
            for part in response.iter_bytes():
                body += part
                if time.monotonic() > deadline:
                    raise httpx2.ReadTimeout("the answer did not end in time")
                if len(body) > _LARGEST_ANSWER:
                    raise RunError(f"{self.url} answers with more than {_LARGEST_ANSWER} bytes")
            return response.status_code, response.headers, bytes(body)

    def _probabilities(self, body: bytes) -> Any:
        try:
            answer = json.loads(body)
        except ValueError as error:
            raise RunError(f"{self.url} does not answer with JSON: {one_line(error)}") from error
        if not isinstance(answer, dict) or "probabilities" not in answer:
            raise RunError(f'{self.url} answers with JSON that has no "probabilities"')
        return answer["probabilities"]


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that a response asks to wait for; 0 where it does not."""
    text = headers.get("retry-after", "").strip()
    if not text:
        return 0.0
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())

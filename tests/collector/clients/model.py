"""A model on this machine: the APIs of OpenAI and Anthropic, as far as a conversation about an order needs them.

A question is answered with a call of the tool `lookup_order`; a question behind which the tool's result stands, with words.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["ANSWER", "QUESTION", "RESULT", "SYSTEM", "TOKENS", "TOOL", "serve"]

SYSTEM = "You are the support desk."
QUESTION = "Where is my order A-17?"
RESULT = "sent on Tuesday"
ANSWER = "It was sent on Tuesday."
TOKENS = (1234, 56)
TOOL = "lookup_order"
ARGUMENTS = {"order": "A-17"}


def serve() -> str:
    """Its address, while this process lives."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Model)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


class _Model(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = _anthropic(asked) if self.path.endswith("/messages") else _openai(asked)
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nobody wants to read it."""


def _openai(asked: dict[str, Any]) -> dict[str, Any]:
    is_answered = any(message["role"] == "tool" for message in asked["messages"])
    call = {"id": "call_1", "type": "function", "function": {"name": TOOL, "arguments": json.dumps(ARGUMENTS)}}
    message = {"content": ANSWER} if is_answered else {"content": None, "tool_calls": [call]}
    choice = {
        "index": 0,
        "message": {"role": "assistant", "refusal": None, **message},
        "finish_reason": "stop" if is_answered else "tool_calls",
        "logprobs": None,
    }
    usage = {"prompt_tokens": TOKENS[0], "completion_tokens": TOKENS[1], "total_tokens": sum(TOKENS)}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "gpt-x-2026",
        "choices": [choice],
        "usage": usage,
    }


def _anthropic(asked: dict[str, Any]) -> dict[str, Any]:
    is_answered = len(asked["messages"]) > 1
    call = {"type": "tool_use", "id": "toolu_1", "name": TOOL, "input": ARGUMENTS}
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-y-2026",
        "content": [{"type": "text", "text": ANSWER} if is_answered else call],
        "stop_reason": "end_turn" if is_answered else "tool_use",
        "stop_sequence": None,
        "usage": {"input_tokens": TOKENS[0], "output_tokens": TOKENS[1]},
    }

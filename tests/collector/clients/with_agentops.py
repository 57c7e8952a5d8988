"""AgentOps' SDK, given the collector as its endpoint: a session with an agent, a tool and an error."""

import contextlib
import sys

import agentops
from agentops.sdk.decorators import agent, operation, tool

agentops.init(
    api_key="00000000-0000-4000-8000-000000000000",
    endpoint=sys.argv[1],
    exporter_endpoint=f"{sys.argv[1]}/v1/traces",
    auto_start_session=False,
    instrument_llm_calls=False,
    log_session_replay_url=False,
)


@tool(name="search", cost=0.05)
def search(query: str) -> str:
    return f"about {query}"


@operation(name="fail")
def fail() -> None:
    raise ValueError("no money")


@agent(name="researcher")
class Researcher:
    def run(self) -> str:
        return search("tea")


trace = agentops.start_trace(trace_name="checkout", tags=["test"])
print(Researcher().run())
with contextlib.suppress(ValueError):
    fail()
agentops.end_trace(trace, end_state="Success")

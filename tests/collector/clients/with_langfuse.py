"""Langfuse's SDK, given the collector as its host: an agent that calls a model."""

import sys

from langfuse import Langfuse

client = Langfuse(public_key="pk-lf-1", secret_key="sk-lf-1", base_url=sys.argv[1])
with (
    client.start_as_current_observation(name="research", as_type="agent", input={"q": "tea"}) as agent,
    client.start_as_current_observation(
        name="answer", as_type="generation", model="gpt-x", input=[{"role": "user", "content": "tea?"}]
    ) as generation,
):
    generation.update(output={"role": "assistant", "content": "green"}, usage_details={"input": 12, "output": 3})
    agent.update(output="green")
client.flush()
client.shutdown()

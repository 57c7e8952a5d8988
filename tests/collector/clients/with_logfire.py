"""Logfire's SDK, told by OpenTelemetry's variables where to send: a run, a log in it, an error."""

import contextlib

import logfire

logfire.configure(send_to_logfire=False, service_name="shop", console=False, inspect_arguments=False)
with logfire.span("checkout {customer}", customer="c-1"):
    logfire.info("cache miss", shard=3)
    with contextlib.suppress(ValueError), logfire.span("pay"):
        raise ValueError("no money")
logfire.force_flush()
logfire.shutdown()

"""What lies in deploy/ says what the programs understand: each command line is one, each variable is read by its program."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from asynctrace._fleet_settings import SETTINGS, Settings
from asynctrace.cli import _parser

DEPLOY = Path(__file__).parents[2] / "deploy"
KUBERNETES = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
GRACE = 20 + 10
"""Seconds that a worker and its answers may take to end."""
KINDS = {"Namespace", "Secret", "ConfigMap", "Service", "Deployment", "StatefulSet", "PodDisruptionBudget"}


class Program(NamedTuple):
    """One of ours, as a file of deploy/ starts it."""

    where: str
    arguments: list[str]
    variables: set[str]


def documents() -> list[tuple[Path, dict[str, Any]]]:
    return [(path, each) for path in KUBERNETES for each in yaml.safe_load_all(path.read_text()) if each]


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    for path, each in documents():
        if each["kind"] in ("Deployment", "StatefulSet"):
            yield path.name, each["spec"]["template"]["spec"]


def in_kubernetes() -> Iterator[Program]:
    shared = {
        name
        for _, each in documents()
        if each["kind"] == "ConfigMap"
        for name in each["data"]
        if name.startswith("ASYNCTRACE_")
    }
    for where, pod in pods():
        for container in pod["containers"]:
            yield Program(where, container["args"], {each["name"] for each in container["env"]} | shared)


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return loaded


def in_compose() -> Iterator[Program]:
    for name, service in compose()["services"].items():
        if service["image"] == "asynctrace":
            yield Program(f"compose {name}", service["command"], set(service["environment"]))


PROGRAMS = [*in_kubernetes(), *in_compose()]


def wrong_with(program: Program) -> str:
    """Why it would not start, or would not read what it is given; nothing where it would."""
    try:
        options = _parser().parse_args(program.arguments)
    except SystemExit:
        return f"{program.where}: {program.arguments} is no command line"
    name = program.arguments[0]
    known = {setting.variable for setting in SETTINGS[name]}
    # one ConfigMap serves all three
    of_others = {setting.variable for settings in SETTINGS.values() for setting in settings} - known
    if unknown := program.variables - known - of_others:
        return f"{program.where}: nobody reads {', '.join(sorted(unknown))}"
    needed = {"ASYNCTRACE_STREAM", "ASYNCTRACE_STORE", "ASYNCTRACE_TOKEN", "ASYNCTRACE_HOST"} & known
    if missing := needed - program.variables:
        return f"{program.where}: {', '.join(sorted(missing))} is missing"
    settings = Settings(options)
    for setting in SETTINGS[name]:
        read = {"SIZE": settings.size, "AGE": settings.age}.get(setting.metavar)
        if read is not None:
            read(setting)
    return ""


def test_all_three_programs_are_there_twice() -> None:
    assert sorted(program.arguments[0] for program in PROGRAMS) == sorted(["ingest", "worker", "view"] * 2)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: f"{program.where} {program.arguments[0]}")
def test_each_would_start(program: Program) -> None:
    assert wrong_with(program) == ""


@pytest.mark.parametrize(
    "broken",
    [
        Program("flag", ["worker", "--threads", "2"], PROGRAMS[0].variables),
        Program("value", ["ingest", "--spill-size"], PROGRAMS[0].variables),
        Program("variable", ["ingest"], PROGRAMS[0].variables | {"ASYNCTRACE_SPIL"}),
        Program("missing", ["view"], PROGRAMS[0].variables - {"ASYNCTRACE_STORE"}),
    ],
    ids=lambda program: program.where,
)
def test_a_file_that_says_something_else_is_noticed(broken: Program) -> None:
    assert wrong_with(broken)


def test_every_document_is_of_a_kind_and_in_the_namespace() -> None:
    for path, each in documents():
        assert each["kind"] in KINDS, path
        assert each["apiVersion"], path
        assert each["kind"] == "Namespace" or each["metadata"]["namespace"] == "asynctrace", path


def test_every_selector_finds_its_pods() -> None:
    labels = [
        each["spec"]["template"]["metadata"]["labels"]
        for _, each in documents()
        if each["kind"] in ("Deployment", "StatefulSet")
    ]
    for path, each in documents():
        selector = each.get("spec", {}).get("selector")
        if selector is not None:
            assert selector.get("matchLabels", selector) in labels, path


def test_every_pod_may_finish_and_is_asked_where_it_answers() -> None:
    for where, pod in pods():
        assert pod["terminationGracePeriodSeconds"] >= GRACE, where
        # a Service that is named asynctrace would set ASYNCTRACE_PORT to an address
        assert pod["enableServiceLinks"] is False, where
        for container in pod["containers"]:
            ports = {port["name"] for port in container["ports"]}
            for probe, path in (("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
                assert container[probe]["httpGet"]["path"] == path, where
                assert container[probe]["httpGet"]["port"] in ports, where


def test_what_a_pod_is_given_is_defined() -> None:
    secrets = {key for _, each in documents() if each["kind"] == "Secret" for key in each["stringData"]}
    for where, pod in pods():
        volumes = {volume["name"] for volume in pod.get("volumes", [])} | {"spill"}
        for container in pod["containers"]:
            for variable in container["env"]:
                source = variable["valueFrom"]
                assert "fieldRef" in source or source["secretKeyRef"]["key"] in secrets, where
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes, where


def test_redis_in_compose_keeps_what_waits() -> None:
    command = compose()["services"]["redis"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options["--maxmemory-policy"] == "noeviction"
    assert options["--appendonly"] == "yes"


def test_compose_mounts_what_it_declares() -> None:
    loaded = compose()
    used = {
        volume.partition(":")[0] for service in loaded["services"].values() for volume in service.get("volumes", [])
    }
    assert used == set(loaded["volumes"])


def test_no_secret_and_no_registry_is_written_down() -> None:
    for path in (DEPLOY / "Dockerfile", DEPLOY / "compose.yaml", *KUBERNETES):
        text = path.read_text()
        for image in re.findall(r"(?:image:|FROM) (\S+)", text):
            assert "." not in image.partition("/")[0].partition(":")[0], (path.name, image)
        for secret in re.findall(r"(?i)(?:password|token): +(\S+)", text):
            assert secret.startswith(("${", "change")), (path.name, secret)

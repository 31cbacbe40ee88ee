"""What can be said of the container files without podman."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.support import settings_names

from .podman import ROOT, run

SCRIPTS = sorted([*ROOT.glob("podman-*.sh"), *ROOT.glob("deploy/*/*.sh")])
DOCKERFILES = [ROOT / "Dockerfile", ROOT / "deploy/nginx/Dockerfile"]
MANIFESTS = sorted(ROOT.glob("deploy/kubernetes/*.yaml"))
COMPOSE = yaml.safe_load((ROOT / "podman-compose.yml").read_text())["services"]
DEVELOPMENT = yaml.safe_load((ROOT / "podman-compose_dev.yml").read_text())["services"]["dev"]


def manifest(kind: str) -> Any:
    [found] = [
        document
        for path in MANIFESTS
        for document in yaml.safe_load_all(path.read_text())
        if document["kind"] == kind
    ]
    return found


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_clean_and_stop_at_the_first_failure(script: Path, shellcheck: str) -> None:
    done = run(shellcheck, script)
    assert done.returncode == 0, done.stdout
    assert script.read_text().startswith("#!/usr/bin/env bash\n")
    assert "\nset -euo pipefail\n" in script.read_text()
    assert script.stat().st_mode & 0o111


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_images_need_nothing_but_the_base_and_an_old_buildah(path: Path) -> None:
    text = path.read_text()
    stages = set(re.findall(r"^FROM \S+ AS (\S+)", text, re.MULTILINE))
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) - stages == {"python:3.11-slim-bookworm"}
    assert set(re.findall(r"--from=(\S+)", text)) <= stages
    assert "<<" not in text, "a heredoc is unknown to buildah 1.28"
    assert "--link" not in text
    assert re.search(r"^USER \w", text, re.MULTILINE)
    assert "HEALTHCHECK" in text
    assert "tini" in text


def test_only_what_the_images_are_made_of_reaches_a_build() -> None:
    lines = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert lines[0] == "*"
    assert {line[1:] for line in lines if line.startswith("!")} == {
        "app",
        "deploy/containers",
        "deploy/nginx",
        "pyproject.toml",
        "requirements.lock",
    }
    assert "**/.env*" in lines


# -- what the scripts refuse ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--frob"], "unknown argument: --frob"),
        (["-t"], "-t needs a value"),
        (["-t", "No Name"], "not a name for an image: No Name"),
        (["--proxy-port", "8080"], "--proxy-port needs --proxy-host"),
        (["--proxy-host", "p", "--proxy-port", "70000"], "--proxy-port is not a number from 1 to 65535"),
        (["--proxy-host", "http://u:p@x"], "without http:// and without a password"),
        (["--no-proxy", "--proxy-host", "p"], "--no-proxy and a proxy were both given"),
        (["--pip-conf", "/nowhere"], "cannot read the file /nowhere"),
    ],
)
def test_build_refuses_with_a_sentence(arguments: list[str], sentence: str) -> None:
    done = run(ROOT / "podman-build.sh", *arguments)
    assert done.returncode in (1, 2)
    assert f"ERROR: {sentence}" in done.stderr or sentence in done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["frob"], "unknown argument: frob"),
        (["stop", "start"], "two commands given"),
        (["6001", "6002"], "two ports given"),
        (["stop", "6001"], "stop takes no port and no options"),
        (["start", "-f"], "-f belongs to logs"),
        (["--production", "--read-only"], "--production mounts nothing"),
    ],
)
def test_run_refuses_with_a_sentence(arguments: list[str], sentence: str) -> None:
    done = run(ROOT / "podman-run.sh", *arguments)
    assert done.returncode == 2
    assert f"ERROR: {sentence}" in done.stderr
    assert "Usage:" in done.stderr


@pytest.mark.parametrize("script", ["podman-build.sh", "podman-run.sh"])
def test_without_podman_the_scripts_say_so(script: str, tmp_path: Path) -> None:
    for tool in ("bash", "dirname"):
        (tmp_path / tool).symlink_to(f"/usr/bin/{tool}")
    done = run(ROOT / script, PATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert "ERROR: podman is not installed" in done.stderr


# -- compose ----------------------------------------------------------------------------------------------


def test_the_development_container_has_the_project_mounted_and_its_env_file_hides_no_setting() -> None:
    assert ".:/coze-fastapi:Z" in DEVELOPMENT["volumes"]
    assert DEVELOPMENT["ports"] == ["${HOST_PORT:-6000}:6000"]
    lines = (ROOT / DEVELOPMENT["env_file"]).read_text().splitlines()
    given = {line.split("=")[0] for line in lines if line and not line.startswith("#")}
    assert given == {"HOST", "PORT", "DRAIN_SECONDS"}


def test_nothing_secret_is_in_what_podman_inspect_shows() -> None:
    service = COMPOSE["service"]
    assert "env_file" not in service
    assert set(service["environment"]) == {"REDIS_URL", "HOST", "PORT", "DRAIN_SECONDS"}
    (secret,) = service["secrets"]
    assert (secret["target"], secret["mode"]) == ("/coze-fastapi/.env", "0400")
    script = (ROOT / "podman-run.sh").read_text()
    shown = script[script.index("compgen -e") : script.index("--restart=unless-stopped")]
    names = shown[: shown.index("type=env")]
    for name in ("COZE_API_TOKEN", "COZE_OPENAI_API_KEYS", "COZE_PROXY", "HTY_JWT_KEY", "REDIS_URL"):
        assert name in names, f"{name} would be set with --env"


def test_production_has_replicas_a_redis_that_keeps_and_one_open_port() -> None:
    assert COMPOSE["service"]["deploy"]["replicas"] == "${REPLICAS:-2}"
    command = COMPOSE["redis"]["command"]
    assert command[command.index("--appendonly") + 1] == "yes"
    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"
    assert [name for name, service in COMPOSE.items() if "ports" in service] == ["proxy"]
    assert not set(COMPOSE["redis"]["networks"]) & set(COMPOSE["proxy"]["networks"])
    for service in COMPOSE.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["init"] is True


def test_a_container_has_time_for_its_drain() -> None:
    drain = int(COMPOSE["service"]["environment"]["DRAIN_SECONDS"])
    assert drain == 3
    assert int(COMPOSE["service"]["stop_grace_period"].rstrip("s")) >= drain + 5
    assert "DRAIN_SECONDS=3" in (ROOT / "Dockerfile").read_text()


def test_nginx_passes_streams_on_and_never_repeats_a_post() -> None:
    text = (ROOT / "deploy/nginx/nginx.conf").read_text()
    rules = re.sub(r"#.*", "", text)
    assert "proxy_buffering off;" in rules
    assert "proxy_http_version 1.1;" in rules
    assert "gzip off;" in rules
    assert "non_idempotent" not in rules
    [patience] = re.findall(r"proxy_read_timeout (\d+)s;", rules)
    assert int(patience) > 600, "COZE_CHAT_TIMEOUT"


# -- kubernetes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1.27", "1.31", "1.34"])
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests_are_what_the_api_takes(path: Path, version: str) -> None:
    for document in yaml.safe_load_all(path.read_text()):
        kubernetes_validate.validate(document, version, strict=True)


def test_the_schemas_would_notice() -> None:
    broken = manifest("Deployment")
    broken["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, "1.31", strict=True)


def test_the_manifests_belong_together() -> None:
    deployment, service = manifest("Deployment"), manifest("Service")
    pod = deployment["spec"]["template"]
    [container] = pod["spec"]["containers"]
    labels = pod["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert service["spec"]["selector"].items() <= labels.items()
    assert service["spec"]["ports"][0]["targetPort"] in [port["name"] for port in container["ports"]]
    assert container["livenessProbe"]["httpGet"]["path"] == "/coze/health/live"
    assert container["readinessProbe"]["httpGet"]["path"] == "/coze/health/ready"
    asked = {item["valueFrom"]["secretKeyRef"]["key"] for item in container["env"] if "valueFrom" in item}
    for volume in pod["spec"]["volumes"]:
        asked |= {item["key"] for item in volume.get("secret", {}).get("items", [])}
    assert asked == set(manifest("Secret")["stringData"])


def test_a_pod_has_time_for_its_drain() -> None:
    pod = manifest("Deployment")["spec"]["template"]["spec"]
    drain = float(manifest("ConfigMap")["data"]["DRAIN_SECONDS"])
    pause = float(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] >= drain + pause + 10


def test_settings_in_the_manifests_exist_and_no_secret_is_among_them() -> None:
    names = set(manifest("ConfigMap")["data"])
    container = manifest("Deployment")["spec"]["template"]["spec"]["containers"][0]
    names |= {item["name"] for item in container["env"]}
    assert names <= settings_names()
    secret = manifest("Secret")["stringData"]
    assert secret["COZE_API_TOKEN"] == "REPLACE_ME"
    assert secret["REDIS_URL"].count("@") == 0

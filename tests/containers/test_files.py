"""What can be said of the container files without podman."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.support import settings_names

from .podman import ROOT, ok, run

SCRIPTS = sorted([*ROOT.glob("podman-*.sh"), *ROOT.glob("deploy/*/*.sh")])
DOCKERFILES = [ROOT / "Dockerfile", ROOT / "deploy/nginx/Dockerfile"]
COMPOSE = yaml.safe_load((ROOT / "podman-compose.yml").read_text())["services"]
DEVELOPMENT = yaml.safe_load((ROOT / "podman-compose_dev.yml").read_text())["services"]["dev"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_clean_and_stop_at_the_first_failure(script: Path, shellcheck: str) -> None:
    done = run(shellcheck, "-x", script)
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
    lines = lines_of(ROOT / ".dockerignore")
    assert lines[0] == "*"
    assert {line[1:] for line in lines if line.startswith("!")} == {
        "app",
        "deploy/containers",
        "deploy/nginx",
        "pyproject.toml",
        "requirements-otel.lock",
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


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [(["frob"], "unknown argument: frob"), (["-p"], "-p needs a value")],
)
def test_replace_refuses_with_a_sentence(arguments: list[str], sentence: str) -> None:
    done = run(ROOT / "podman-replace.sh", *arguments)
    assert done.returncode == 2
    assert f"ERROR: {sentence}" in done.stderr


@pytest.mark.parametrize("script", ["podman-build.sh", "podman-run.sh", "podman-replace.sh"])
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
    given = {line.split("=")[0] for line in lines_of(ROOT / DEVELOPMENT["env_file"])}
    assert given == {"HOST", "PORT", "DRAIN_SECONDS"}


def test_nothing_secret_is_in_what_podman_inspect_shows() -> None:
    service = COMPOSE["service"]
    assert "env_file" not in service
    assert set(service["environment"]) == {"REDIS_URL", "HOST", "PORT", "DRAIN_SECONDS"}
    (secret,) = service["secrets"]
    assert (secret["target"], secret["mode"]) == ("/coze-fastapi/.env", "0400")


def passed_on(what: str, project: Path, **environment: str) -> list[str]:
    """What a function of scripts/podman.sh says, in a checkout with the given environment."""
    code = f"set -euo pipefail; ROOT=$1; source $1/scripts/common.sh; source $1/scripts/podman.sh; {what}"
    return ok("bash", "-c", code, "bash", project, **environment).splitlines()


def test_every_setting_of_the_environment_is_passed_to_a_container(tmp_path: Path) -> None:
    values = dict.fromkeys(settings_names(), "1") | {"HOST_PORT": "7000", "COZE_IMAGE": "x", "HOME": "/"}
    given = set(passed_on("given_settings", ROOT, **values))
    assert given == settings_names() - {"HOST", "PORT", "DRAIN_SECONDS"}
    assert {"UPLOAD_TIMEOUT", "OTEL_SERVICE_NAME", "COZE_API_KEYS", "SSE_HEARTBEAT_SECONDS"} <= given
    assert passed_on("given_settings", ROOT, COZE_ADMIN_ROLES="") == ["COZE_ADMIN_ROLES"], (
        "nothing means nobody"
    )


def test_no_setting_goes_in_as_a_variable_that_podman_shows() -> None:
    text = (ROOT / "podman-run.sh").read_text() + (ROOT / "scripts/podman.sh").read_text()
    assert "type=env" not in text, "podman inspect shows these like any variable"
    shown = [each for each in re.findall(r"--env [^)]*", text) if "TERM" not in each]  # of a terminal
    assert shown == ['--env "DRAIN_SECONDS=$DRAIN" --stop-timeout "$GRACE"']


def test_every_file_that_a_setting_names_is_passed_to_a_container(tmp_path: Path) -> None:
    files = {name for name in settings_names() if name.endswith("_FILE")} - {"COZE_LOG_FILE"}
    assert len(files) >= 4
    values = {name: f"/etc/{name}" for name in files} | {"COZE_LOG_FILE": "/var/log/x"}
    values["REDIS_URL"] = "rediss://r/0?ssl_ca_certs=/etc/ca%20of.pem&ssl_keyfile=key.pem&socket_timeout=3"
    found = passed_on("named_files", ROOT, **values)
    assert sorted(filter(None, found)) == sorted(
        ["/etc/ca of.pem", "key.pem", *(f"/etc/{name}" for name in files)]
    )


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


def seconds(text: str) -> int:
    return int(text.rstrip("s"))


def test_each_container_has_time_for_its_drain_and_redis_for_all_of_them() -> None:
    drain = int(COMPOSE["service"]["environment"]["DRAIN_SECONDS"])
    grace = seconds(COMPOSE["service"]["stop_grace_period"])
    hold = int(COMPOSE["redis"]["environment"]["REDIS_HOLD_SECONDS"])
    assert drain >= 20
    assert grace >= drain + 15
    assert hold > grace, "who has not left by then was killed"
    assert seconds(COMPOSE["redis"]["stop_grace_period"]) >= hold + 10
    assert COMPOSE["redis"]["command"][0] == "coze-redis"
    development = dict(line.split("=") for line in lines_of(ROOT / DEVELOPMENT["env_file"]))
    assert seconds(DEVELOPMENT["stop_grace_period"]) >= int(development["DRAIN_SECONDS"]) + 15
    # Whoever runs the image by hand: podman and docker kill what has not ended after ten seconds.
    assert "DRAIN_SECONDS=3" in (ROOT / "Dockerfile").read_text()


def lines_of(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line and not line.startswith("#")]


def test_containers_come_back_after_a_start_of_the_machine() -> None:
    """podman-restart.service starts those with the policy "always", and no others."""
    assert {name: service["restart"] for name, service in COMPOSE.items()} == dict.fromkeys(COMPOSE, "always")
    assert "--restart=always" in (ROOT / "podman-run.sh").read_text()
    for path in [ROOT / "podman-run.sh", *ROOT.glob("podman-compose*.yml")]:
        assert "unless-stopped" not in path.read_text()


def test_nginx_passes_streams_on_and_never_repeats_a_post() -> None:
    text = (ROOT / "deploy/nginx/nginx.conf").read_text()
    rules = re.sub(r"#.*", "", text)
    assert "proxy_buffering off;" in rules
    assert "proxy_http_version 1.1;" in rules
    assert "gzip off;" in rules
    assert "non_idempotent" not in rules
    [patience] = re.findall(r"proxy_read_timeout (\d+)s;", rules)
    assert int(patience) > 600, "COZE_CHAT_TIMEOUT"

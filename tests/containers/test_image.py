"""The image: what is in it, what is not, and how long a build takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from .podman import BASE_IMAGE, ROOT, Leftovers, inspect, ok, podman, run

pytestmark = [pytest.mark.containers, pytest.mark.full, pytest.mark.timeout(900)]


def inside(image: str, command: str) -> str:
    return podman("run", "--rm", "--no-healthcheck", "--network=none", image, "bash", "-c", command)


def test_it_is_small_runs_as_an_ordinary_user_and_says_how_it_is(image: str) -> None:
    found = inspect("image", image)
    assert found["Size"] - inspect("image", BASE_IMAGE)["Size"] < 200e6
    config = found["Config"]
    assert config["User"] == "coze"
    assert config["Cmd"] == ["python", "-m", "app"]
    assert "/coze/health" in " ".join(found["Healthcheck"]["Test"])
    assert "6000/tcp" in config["ExposedPorts"]
    assert inside(image, "id -u").strip() == "10001"


def test_the_tools_are_there_and_no_git(image: str) -> None:
    look = "for t in tmux redis-server curl tini git; do command -v $t >/dev/null && echo $t; done; true"
    assert inside(image, look).split() == ["tmux", "redis-server", "curl", "tini"]


def test_the_environment_is_outside_the_project_and_is_what_the_lock_pins(image: str) -> None:
    assert inside(image, "echo $UV_PROJECT_ENVIRONMENT; command -v python; ls -A").split() == [
        "/opt/venv",
        "/opt/venv/bin/python",
        "app",
        "pyproject.toml",
    ]
    mounts = ["--volume", f"{ROOT}:/coze-fastapi:ro"]
    podman(
        *["run", "--rm", "--no-healthcheck", "--network=none", *mounts, image],
        *["python", "-I", "scripts/check_env.py", "requirements-otel.lock"],
    )


def test_after_a_code_change_the_packages_are_not_installed_again(
    image: str, project: Path, made: Leftovers
) -> None:
    tag = f"{image}-again:latest"
    made.images.append(tag)
    ok(project / "podman-build.sh", "-t", tag, cwd=project, timeout=600)
    main = project / "app/__main__.py"
    main.write_text(main.read_text() + "\n# changed\n")
    out = ok(project / "podman-build.sh", "-t", tag, cwd=project, timeout=600)
    assert "Using cache" in out
    assert "Collecting " not in out, "the packages were installed again"
    assert "# changed" in inside(tag, "cat app/__main__.py")


def test_no_secret_of_the_build_is_in_the_image(image: str, project: Path, made: Leftovers) -> None:
    tag = f"{image}-secret:latest"
    made.images.append(tag)
    (project / ".env").write_text("COZE_API_TOKEN=pat_SecretOfEnv77\n")
    (project / "app/.env").write_text("COZE_API_TOKEN=pat_SecretOfEnv77\n")
    configuration = project / "pip.conf"
    configuration.write_text("# SecretOfIndex78\n[global]\nretries = 7\n")
    ok(
        *[project / "podman-build.sh", "-t", tag, "--no-cache", "--pip-conf", configuration],
        cwd=project,
        timeout=800,
        HTTPS_PROXY="http://SecretOfHost79.invalid:1",  # a proxy of this machine is not used unless asked for
    )
    everything = podman("image", "inspect", tag) + podman("history", "--no-trunc", tag)
    for word in ("SecretOfEnv77", "SecretOfIndex78", "SecretOfHost79"):
        assert word not in everything
    assert inside(tag, "grep -rl SecretOf /coze-fastapi /etc /opt/venv /run 2>/dev/null; true") == ""


def test_a_wrong_setting_ends_it_with_a_sentence(image: str) -> None:
    done = run("podman", "run", "--rm", "--no-healthcheck", "--network=none", image)
    assert done.returncode == 78
    assert "COZE_BOT_ID" in done.stderr
    assert "Traceback" not in done.stderr

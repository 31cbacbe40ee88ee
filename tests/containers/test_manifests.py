"""deploy/kubernetes and deploy/systemd: what the API takes, what scanners look for, what fits together."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.support import settings_names

from .podman import ROOT, adapted, run

MANIFESTS = sorted(ROOT.glob("deploy/kubernetes/*.yaml"))
DOCUMENTS: list[Any] = [each for path in MANIFESTS for each in yaml.safe_load_all(path.read_text())]
UNIT = ROOT / "deploy/systemd/coze-fastapi.service"


def manifest(kind: str) -> Any:
    [found] = [document for document in DOCUMENTS if document["kind"] == kind]
    return found


def pod() -> Any:
    return manifest("Deployment")["spec"]["template"]


def container() -> Any:
    [found] = pod()["spec"]["containers"]
    return found


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
    del broken["spec"]["template"]["spec"]["containers"][0]["livenesProbe"]


# -- secrets -----------------------------------------------------------------------------------------------


def test_no_manifest_writes_a_secret_so_none_is_written_over() -> None:
    assert "Secret" not in {document["kind"] for document in DOCUMENTS}
    assert "REPLACE_ME" not in "".join(path.read_text() for path in MANIFESTS)
    given = manifest("ConfigMap")["data"]
    secret = {name for name in settings_names() if re.search("TOKEN|KEY|AUTHORIZATION|PROXY|REDIS_URL", name)}
    assert not secret & set(given)
    for item in container()["env"]:
        if item["name"] in secret and "value" in item:
            assert item["name"].endswith("_FILE"), item


def test_the_secret_that_is_asked_for_is_the_one_that_the_page_makes() -> None:
    asked = {
        (item["valueFrom"]["secretKeyRef"]["name"], item["valueFrom"]["secretKeyRef"]["key"])
        for item in container()["env"]
        if "valueFrom" in item
    }
    for volume in pod()["spec"]["volumes"]:
        secret = volume.get("secret", {"items": []})
        asked |= {(secret["secretName"], item["key"]) for item in secret["items"]}
    text = (ROOT / "deploy/kubernetes/deployment.yaml").read_text()
    assert "kubectl create secret generic coze-fastapi" in text
    made = {("coze-fastapi", key) for key in re.findall(r"--from-literal=(\w+)=", text)}
    assert asked == made


def test_settings_in_the_manifests_exist() -> None:
    names = set(manifest("ConfigMap")["data"]) | {item["name"] for item in container()["env"]}
    assert names <= settings_names()


# -- what belongs together ---------------------------------------------------------------------------------


def test_the_manifests_belong_together() -> None:
    labels = pod()["metadata"]["labels"]
    ports = [port["name"] for port in container()["ports"]]
    selectors = [
        manifest("Deployment")["spec"]["selector"]["matchLabels"],
        manifest("Service")["spec"]["selector"],
        manifest("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        manifest("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        *(spread["labelSelector"]["matchLabels"] for spread in pod()["spec"]["topologySpreadConstraints"]),
    ]
    for selector in selectors:
        assert selector
        assert selector.items() <= labels.items()
    assert manifest("Service")["spec"]["ports"][0]["targetPort"] in ports
    [rule] = manifest("NetworkPolicy")["spec"]["ingress"]
    assert [port["port"] for port in rule["ports"]] == ports
    assert container()["livenessProbe"]["httpGet"]["path"] == "/coze/health/live"
    assert container()["readinessProbe"]["httpGet"]["path"] == "/coze/health/ready"


def test_replicas_are_the_autoscalers_and_there_is_always_one_more_than_may_be_away() -> None:
    scaler = manifest("HorizontalPodAutoscaler")["spec"]
    target = scaler["scaleTargetRef"]
    deployment = manifest("Deployment")
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])
    assert "replicas" not in deployment["spec"], "each apply would set the number back"
    assert scaler["minReplicas"] > manifest("PodDisruptionBudget")["spec"]["maxUnavailable"]
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    [metric] = scaler["metrics"]
    assert metric["resource"]["name"] == "cpu"
    assert "cpu" in container()["resources"]["requests"], "a share of nothing"
    assert {spread["topologyKey"] for spread in pod()["spec"]["topologySpreadConstraints"]} == {
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
    }


def test_a_pod_has_time_for_its_drain() -> None:
    drain = float(manifest("ConfigMap")["data"]["DRAIN_SECONDS"])
    pause = float(container()["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod()["spec"]["terminationGracePeriodSeconds"] >= drain + pause + 10


def test_the_network_policy_lets_out_what_the_service_needs_and_nothing_else() -> None:
    policy = manifest("NetworkPolicy")["spec"]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    allowed = {(port["port"], port["protocol"]) for rule in policy["egress"] for port in rule["ports"]}
    assert allowed == {(53, "UDP"), (53, "TCP"), (443, "TCP"), (6379, "TCP")}
    blocks = [to["ipBlock"] for rule in policy["egress"] for to in rule.get("to", [])]
    assert all("169.254.169.254/32" in block["except"] for block in blocks)


# -- what scanners (checkov, kube-score, Pod Security "restricted") look for -------------------------------

Rule = Callable[[Any, Any], bool]


def _security(of: Any, name: str) -> Any:
    return of.get("securityContext", {}).get(name)


RULES: dict[str, Rule] = {
    "runs as an ordinary user": lambda p, c: (
        _security(p, "runAsNonRoot") is True and int(_security(p, "runAsUser")) >= 10_000
    ),
    "takes no service account's token": lambda p, c: p.get("automountServiceAccountToken") is False,
    "shares nothing of its node": lambda p, c: (
        not any(p.get(f"host{it}") for it in ("Network", "PID", "IPC"))
    ),
    "mounts nothing of its node": lambda p, c: not any("hostPath" in volume for volume in p["volumes"]),
    "has the usual system calls alone": lambda p, c: (
        _security(p, "seccompProfile") == {"type": "RuntimeDefault"}
    ),
    "cannot get more rights": lambda p, c: _security(c, "allowPrivilegeEscalation") is False,
    "is not privileged": lambda p, c: not _security(c, "privileged"),
    "writes to no part of its image": lambda p, c: _security(c, "readOnlyRootFilesystem") is True,
    "has no capability": lambda p, c: (
        _security(c, "capabilities")["drop"] == ["ALL"] and "add" not in _security(c, "capabilities")
    ),
    "asks for CPU and memory, and is bounded in both": lambda p, c: all(
        set(c["resources"][kind]) >= {"cpu", "memory"} for kind in ("requests", "limits")
    ),
    "is looked after": lambda p, c: {"livenessProbe", "readinessProbe", "startupProbe"} <= set(c),
    "names a registry and a version": lambda p, c: bool(
        re.fullmatch(r"[\w.-]+\.[\w.-]+/[\w./-]+(:(?!latest$)[\w.-]+|@sha256:[0-9a-f]{64})", c["image"])
    ),
    "pulls with the rights of its pod": lambda p, c: c["imagePullPolicy"] == "Always",
    "binds no port of its node": lambda p, c: not any("hostPort" in port for port in c["ports"]),
    "is not told of other services": lambda p, c: p.get("enableServiceLinks") is False,
}


@pytest.mark.parametrize("rule", RULES)
def test_the_pod(rule: str) -> None:
    assert RULES[rule](pod()["spec"], container())


@pytest.mark.parametrize("rule", RULES)
def test_a_pod_without_any_care_is_found_by_the_rule(rule: str) -> None:
    careless_container = {
        "image": "coze-fastapi:latest",
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"containerPort": 6000, "hostPort": 6000}],
        "resources": {"requests": {}, "limits": {}},
        "securityContext": {"privileged": True, "capabilities": {"drop": [], "add": ["NET_ADMIN"]}},
    }
    careless = {
        "hostNetwork": True,
        "volumes": [{"hostPath": {"path": "/"}}],
        "securityContext": {"runAsUser": 0},
    }
    assert not RULES[rule](careless, careless_container)


# -- systemd -----------------------------------------------------------------------------------------------


def unit_values() -> dict[str, str]:
    lines = [line for line in UNIT.read_text().splitlines() if re.match(r"[A-Z]\w+=", line)]
    return dict(line.split("=", 1) for line in lines)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_understands_the_unit_and_finds_it_well_closed(tmp_path: Path) -> None:
    # It looks for the program, and the machine has no such checkout.
    changes = {
        "ExecStart=/opt/coze-fastapi/.venv/bin/python": "ExecStart=/bin/sh",
        "Documentation=file:///opt/coze-fastapi/docs": "Documentation=file:///usr/share/docs",
    }
    text = adapted(UNIT.read_text(), changes)
    unit = tmp_path / UNIT.name
    unit.write_text(text)
    done = run("systemd-analyze", "verify", unit)
    assert (done.returncode, done.stderr) == (0, "")
    unit.write_text(text.replace("KillMode=mixed", "KillMode=mixt"))
    assert "mixt" in run("systemd-analyze", "verify", unit).stderr, "it would notice"
    closed = run("systemd-analyze", "security", "--offline=yes", "--threshold=25", unit)
    assert closed.returncode == 0, closed.stdout[-500:]


def test_a_unit_has_time_for_its_drain_and_is_not_started_again_with_wrong_settings() -> None:
    values = unit_values()
    assert int(values["TimeoutStopSec"]) >= 20 + 20, "the default of DRAIN_SECONDS"
    assert values["KillMode"] == "mixed", "each worker told at once would drain against the others"
    assert values["RestartPreventExitStatus"] == "78"
    assert "redis-server.service" in values["After"], "Redis ends after what still writes to it"
    assert values["ExecStart"].endswith(" -m app")

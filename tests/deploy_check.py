"""Checks docker-compose.yml and deploy/kubernetes/tollgate.yaml for what they promise.

Usage: deploy_check.py compose | kubernetes | kubernetes-config
The first two print `ok`; the last prints the gateway.toml inside the ConfigMap.
"""

import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent


def require(holds, problem):
    if not holds:
        sys.exit(problem)


def compose():
    file = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    services = file["services"]
    require({"gateway", "django", "redis"} <= services.keys(), "a service is missing")
    for name, service in services.items():
        check_service(name, service, services, file.get("volumes") or {})
    require(services["django"]["deploy"]["replicas"] == 3, "django: three instances are promised")
    require(services["gateway"]["ports"] == ["8080:8080"], "gateway: publishes 8080")
    check_redis(services["redis"]["command"])


def check_service(name, service, services, volumes):
    known = {"build", "image", "command", "restart", "ports", "expose", "volumes", "deploy",
             "healthcheck", "depends_on", "stop_grace_period", "read_only", "cap_drop",
             "security_opt", "ulimits"}
    require(service.keys() <= known, f"{name}: unknown keys {sorted(service.keys() - known)}")
    require("image" in service or "build" in service, f"{name}: neither image nor build")
    build = service.get("build")
    if build is not None:
        build = {"context": build} if isinstance(build, str) else build
        context = ROOT / build["context"]
        recipe = (context / build.get("dockerfile", "Dockerfile")).resolve()
        require(recipe.is_file(), f"{name}: {recipe} does not exist")
    for other in service.get("depends_on", {}):
        require(other in services, f"{name}: depends on the unknown {other}")
    for mount in service.get("volumes", []):
        source = mount.split(":")[0]
        exists = (ROOT / source).exists() if source.startswith(".") else source in volumes
        require(exists, f"{name}: mounts the unknown {source}")


def check_redis(command):
    settings = dict(zip(command[1::2], command[2::2]))
    require(command[0] == "redis-server", "redis: runs something else")
    require(settings.get("--maxmemory", "").endswith("mb"), "redis: no maxmemory")
    require(settings.get("--maxmemory-policy") == "allkeys-lru", "redis: not allkeys-lru")


def manifests():
    text = (ROOT / "deploy/kubernetes/tollgate.yaml").read_text()
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


def kubernetes():
    kinds = manifests()
    wanted = {"ConfigMap", "Deployment", "HorizontalPodAutoscaler", "Service"}
    require(kinds.keys() == wanted, f"kinds are {sorted(kinds)}")
    deployment = kinds["Deployment"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    require(deployment["selector"]["matchLabels"] == labels, "the Deployment selects other pods")
    require(kinds["Service"]["spec"]["selector"] == labels, "the Service selects other pods")
    pod = deployment["template"]["spec"]
    container = pod["containers"][0]
    ports = {port["name"] for port in container["ports"]}
    require(container["readinessProbe"]["tcpSocket"]["port"] in ports, "readiness: unknown port")
    require(kinds["Service"]["spec"]["ports"][0]["targetPort"] in ports, "Service: unknown port")
    mounted = pod["volumes"][0]["configMap"]["name"]
    require(mounted == kinds["ConfigMap"]["metadata"]["name"], "mounts another ConfigMap")
    target = kinds["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"]
    require(target == kinds["Deployment"]["metadata"]["name"], "the autoscaler scales another")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["compose"]:
            compose()
            print("ok")
        case ["kubernetes"]:
            kubernetes()
            print("ok")
        case ["kubernetes-config"]:
            print(manifests()["ConfigMap"]["data"]["gateway.toml"], end="")
        case _:
            sys.exit(__doc__)

"""What the Dockerfile and compose.yaml promise: nobody in particular, a root that is read-only, no default password."""

import pathlib
import re
import tomllib

from ruamel.yaml import YAML

TOP = pathlib.Path(__file__).parents[3]
docker = (TOP / "Dockerfile").read_text()
compose = YAML(typ="safe").load((TOP / "compose.yaml").read_text())
manifest = tomllib.loads((TOP / "Cargo.toml").read_text())

# the image
final = docker.split("\nFROM ")[-1]
user = re.search(r"^USER (\d+):(\d+)$", final, re.M)
assert user and user[1] != "0", "the image runs as a number that is not root's"
assert re.search(r"^VOLUME /data$", final, re.M) and "KERO_DATA_DIR=/data" in final
assert "RUN" not in final, "the image has no shell to run anything"
rust = manifest["workspace"]["package"]["rust-version"]
assert f"FROM rust:{rust}-" in docker, f"the image is built with Rust {rust}"
assert "--release --locked" in docker
assert "simulator" not in docker, "the image is the default binary"

# the services
services = compose["services"]
kero = services["kero"]
assert kero["read_only"] is True and kero["cap_drop"] == ["ALL"]
assert all("no-new-privileges:true" in service["security_opt"] for service in services.values())
assert set(services) == {"kero", "postgres", "redis"}
for name, service in services.items():
    for port in service.get("ports", []):
        assert name == "kero" and port.startswith("127.0.0.1:"), f"{name} is open to the network: {port}"
    for key, value in (service.get("environment") or {}).items():
        if re.search(r"PASSWORD|SECRET|KEY", key):
            assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), f"{name}: {key} has a default"
        secret = re.search(r"://[^:/]+:([^@]*)@", str(value))
        assert not secret or re.fullmatch(r"\$\{\w+:\?[^}]+\}", secret[1]), f"{name}: {key} has a default password"
assert "noeviction" in services["redis"]["command"]
print("image: what it promises is there")

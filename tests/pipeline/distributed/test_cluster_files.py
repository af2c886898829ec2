"""The files for clusters are what Ray takes."""

from __future__ import annotations

from pathlib import Path

import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

REPOSITORY = Path(__file__).resolve().parents[3]


def test_ray_up_accepts_the_cluster(monkeypatch):
    """Catches a field that `ray up` refuses, checked the way that it checks before it asks the cloud."""
    monkeypatch.chdir(REPOSITORY)
    config = prepare_config(yaml.safe_load((REPOSITORY / "cluster.yaml").read_text()))
    validate_config(config)
    assert config["head_node_type"] in config["available_node_types"]


def test_what_the_cluster_installs_is_what_the_package_needs():
    """Catches a dependency that was added to the package and not to the nodes."""
    import tomllib

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    commands = " ".join(yaml.safe_load((REPOSITORY / "cluster.yaml").read_text())["setup_commands"])
    for requirement in project["dependencies"]:
        name = requirement.split(">")[0]
        assert name in commands, f"cluster.yaml does not install {name}"


def test_the_dashboard_and_the_job_server_stay_on_loopback():
    """Catches a cluster on which any machine in reach runs code."""
    commands = yaml.safe_load((REPOSITORY / "cluster.yaml").read_text())["head_start_ray_commands"]
    assert any("--dashboard-host=127.0.0.1" in command for command in commands)
    sources = [file for folder in ("pipeline", "router", "jobs") for file in (REPOSITORY / folder).rglob("*.py")]
    assert not [file for file in sources if "0.0.0.0" in file.read_text() or "dashboard_host" in file.read_text()]


def test_a_job_uploads_the_code_and_little_else():
    """Catches a working directory that carries an environment or runs, or lacks the package."""
    ignored = (REPOSITORY / ".rayignore").read_text().split()
    assert {".venv/", ".git/", "/runs/"} <= set(ignored)
    assert not {"pipeline/", "jobs/"} & set(ignored)

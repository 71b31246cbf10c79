"""What is sent to a host is a program that bash and its checker take, whatever the cluster; and the options of ssh."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_hpc.clusters import presets
from lightning_hpc.hosts import commands, ssh
from lightning_hpc.hosts.host import Host
from lightning_hpc.slurm.parser import parser, typed

PRESETS = ("hec", "bede-gh", "isambard-ai", "baskerville", "sulis", "generic")


def script(project, cluster, host):
    arguments = argparse.Namespace(command="status", folder="runs/it's", why=True)
    preset = presets.load(cluster, project)
    return commands.script_for(arguments, host, preset, {"account": "abc"}, Path("/x/my-project"), None, False)


@pytest.mark.parametrize("cluster", PRESETS)
def test_the_script_for_each_cluster_is_bash(project, cluster):
    text = script(project, cluster, Host("x", "x", 'it\'s "there" $HOME `id`'))
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    subprocess.run([Path(sys.executable).with_name("shellcheck"), "--shell=bash", commands.SCRIPT], check=True)
    for line in presets.load(cluster, project).setup:
        assert f"\n{line}\n" in text
    assert """words=(status --why 'runs/it'"'"'s')""" in text


def test_the_environment_is_that_of_the_preset_unless_the_host_says_another(project):
    text = script(project, "hec", Host("x", "x", "x"))
    assert text.index("module add miniforge") < text.index('source activate "$global_storage/my-project"')
    text = script(project, "hec", Host("x", "x", "x", activate="source mine/bin/activate"))
    assert "source mine/bin/activate" in text and "source activate" not in text


@pytest.mark.parametrize(
    "line",
    [
        "submit spec.yaml --name=a --canary --cluster=hec --time=1:00:00 --exclusive --exclude=a,b --on=hec",
        "retry runs/a --cause=node --fresh-code --mem=8G --on=hec",
        "status runs/a --why --on=hec",
        "cancel runs/a --dry-run --on=hec",
    ],
)
def test_a_command_line_arrives_as_it_was_typed(line):
    arguments = parser().parse_args(line.split())
    arrived = vars(parser().parse_args([*typed(arguments), "--on=hec"]))
    assert arrived == vars(arguments)


def test_a_connection_is_shared_unless_the_user_shares_it_already(tmp_path, monkeypatch):
    program = tmp_path / "ssh"
    for said, is_shared in (("controlpath /home/me/.ssh/%C", False), ("controlpath none", True), ("user me", True)):
        program.write_text(f"#!/bin/sh\necho {said}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        options = ssh.options("x")
        assert ("ControlMaster=auto" in options) == is_shared
        assert not [option for option in options if "StrictHostKeyChecking" in option]

    # A folder that somebody else has made is not used.
    (tmp_path / "open").mkdir(mode=0o777)
    (tmp_path / "open").chmod(0o777)
    monkeypatch.setattr(ssh, "SHARED", tmp_path / "open")
    assert "ControlMaster=auto" not in ssh.options("x")

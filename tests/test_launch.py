"""Launch scripts, tested without a cluster: syntax, names of files and fields, and behaviour with stub commands."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

from configs import default
from lgg_jax import __main__, train

yaml = pytest.importorskip("yaml")  # comes with flax
LAUNCH = ROOT / "launch"
FILES = [path for path in sorted(LAUNCH.iterdir()) if path.suffix != ".png"]
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), LAUNCH / "slurm.sbatch"])
FLAGS = ["--config=configs/unet.py", "--config.data.dir=a folder/$HOME", "--config.train.batch_size=32"]
EXEC = '#!/bin/sh\nexec "$@"\n'


@pytest.fixture
def stubs(tmp_path, monkeypatch):
    """A function that writes stub commands, `stubs(name=text)`, first on PATH. Stubs log to the file $SEEN."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))
    for name in [name for name in os.environ if name.startswith(("SLURM_", "TPU_", "JAX_COORDINATOR"))]:
        monkeypatch.delenv(name)

    def write(**commands: str) -> None:
        for name, text in commands.items():
            path = folder / name.replace("_", "-")
            path.write_text(text if text.startswith("#!") else f"#!/bin/bash\n{text}\n")
            path.chmod(0o755)

    return write


def seen(tmp_path: Path) -> list[str]:
    path = tmp_path / "seen"
    return path.read_text().splitlines() if path.exists() else []


def run(*words: object, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    return subprocess.run([*map(str, words)], cwd=cwd, text=True, capture_output=True, timeout=240)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shell(script):
    assert run("bash", "-n", script).stderr == ""
    if not shutil.which("shellcheck"):
        pytest.skip("bash parses the script; shellcheck is not installed")
    assert run("shellcheck", "--external-sources", "--severity=warning", script).stdout == ""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_files_and_fields_in_a_launch_script_exist(path):
    text = path.read_text()
    assert all((ROOT / name).is_file() for name in re.findall(r"\b(?:configs|launch)/\w+\.\w+", text))
    fields = default.get_config()
    for name in re.findall(r"--config\.([a-z_.]*[a-z_])=", text):
        if name != "any.field":
            assert re.search(rf"^{name}$", "\n".join(flat(fields.to_dict())), re.MULTILINE), name


def flat(fields: dict, prefix: str = "") -> list[str]:
    return [name for key, value in fields.items()
            for name in (flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [prefix + key])]  # fmt: skip


SLURM = ("bash", LAUNCH / "slurm.sbatch")


def test_slurm_requests_a_process_per_gpu_and_time_to_save():
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", (LAUNCH / "slurm.sbatch").read_text(), re.MULTILINE))
    assert options["ntasks-per-node"] == options["gpus-per-node"]
    assert default.get_config().train.batch_size % (int(options["nodes"]) * int(options["gpus-per-node"])) == 0
    name, seconds = options["signal"].split("@")  # "B:TERM" would signal only the batch script.
    assert name == "TERM" and int(seconds) >= 120
    assert "requeue" in options


@pytest.mark.parametrize("code, finished, state, expected", [
    (0, True, "RUNNING", []), (0, False, "RUNNING", ["requeue 7"]), (0, False, "COMPLETING", []),
    (3, False, "RUNNING", []),
])  # fmt: skip
def test_slurm_requeues_an_incomplete_run(stubs, tmp_path, monkeypatch, code, finished, state, expected):
    stubs(srun=f'printf "%s\\n" "$@" > {tmp_path}/words; exit {code}', scontrol='echo "$@" >> "$SEEN"',
          squeue=f"echo {state}")  # fmt: skip
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    workdir = tmp_path / "the run"
    workdir.mkdir()
    if finished:
        (workdir / "postprocess.json").touch()
    flags = [f"--workdir={workdir}", *FLAGS]
    assert run(*SLURM, *flags).returncode == code
    words = (tmp_path / "words").read_text().splitlines()
    assert words[-len(flags) - 5 :] == [".venv/bin/python", "-m", "lgg_jax", "train", "--distributed", *flags]
    assert seen(tmp_path) == expected


@pytest.mark.parametrize("words", [SLURM, ("bash", LAUNCH / "tpu_vm.sh", "name", "zone", "share")])
def test_a_launch_without_workdir_is_one_line(stubs, tmp_path, words):
    stubs(srun='echo ran >> "$SEEN"', gcloud='echo ran >> "$SEEN"')
    ended = run(*words, *FLAGS)
    assert ended.returncode == 2
    assert re.fullmatch(r"lgg_jax: error: no --workdir=.+; .+\n", ended.stderr)
    assert not seen(tmp_path)


# Runs the tasks of a job step on one node, with the environment variables of Slurm.
SRUN = """
while [[ $1 == --* ]]; do shift; done
trap 'kill -TERM $(jobs -p)' TERM
export SLURM_STEP_NODELIST=localhost SLURM_STEP_NUM_NODES=1 SLURM_NTASKS=2
for rank in 0 1; do SLURM_PROCID=$rank SLURM_LOCALID=$rank "$@" & done
code=0
for task in $(jobs -p); do wait $task || wait $task || code=$?; done
exit $code
"""


def test_slurm_tasks_are_the_hosts_of_a_run(stubs, tmp_path, monkeypatch):
    host = "from lgg_jax import parallel as p; p.initialize(); print(*p.host(), file=open(f'{0}{{p.host()[0]}}', 'w'))"
    stubs(srun=SRUN, task=f'exec {sys.executable} -c "{host.format(tmp_path / "host")}"')
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("JAX_COORDINATOR_PORT", str(free.getsockname()[1]))
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("LGG_JAX_PYTHON", "task")
    (tmp_path / "postprocess.json").touch()
    ended = run(*SLURM, f"--workdir={tmp_path}")
    assert ended.returncode == 0, ended.stderr
    assert [(tmp_path / f"host{rank}").read_text() for rank in (0, 1)] == ["0 2\n", "1 2\n"]


def job() -> dict:
    """Return the Job of the JobSet."""
    manifest = yaml.safe_load((LAUNCH / "gke_jobset.yaml").read_text())
    assert (manifest["apiVersion"], manifest["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert manifest["spec"]["failurePolicy"]["maxRestarts"] > 0
    [replicated] = manifest["spec"]["replicatedJobs"]
    return replicated["template"]["spec"]


def test_jobset_has_a_pod_per_host_and_time_to_save():
    pod = job()["template"]["spec"]
    [container] = pod["containers"]
    chips = [int(side) for side in pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")]
    hosts = job()["parallelism"]
    assert hosts == job()["completions"] == chips[0] * chips[1] / container["resources"]["limits"]["google.com/tpu"]
    assert default.get_config().train.batch_size % (chips[0] * chips[1]) == 0
    assert job()["completionMode"] == "Indexed" and job()["backoffLimit"] == 0  # If one host fails, all stop.
    assert pod["restartPolicy"] == "Never"  # podFailurePolicy requires it.
    assert pod["terminationGracePeriodSeconds"] >= 60
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def test_the_flags_of_the_jobset(monkeypatch):
    [container] = job()["template"]["spec"]["containers"]
    variables = {variable["name"]: variable["value"] for variable in container["env"]}
    args = [re.sub(r"\$\((\w+)\)", lambda match: variables[match[1]], word) for word in container["args"]]
    words = ["lgg_jax", "train", "--distributed", *args]
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", words)
    flags = __main__.parse(train, words)
    assert (flags.workdir, flags.distributed) == (variables["WORKDIR"], True)
    assert flags.config.train.batch_size == default.get_config().train.batch_size


@pytest.mark.parametrize("code, finished, host, expected", [
    (0, True, 0, 0), (0, False, 0, 1), (0, False, 1, 0), (2, False, 0, 2), (2, False, 1, 2),
])  # fmt: skip
@pytest.mark.parametrize("signalled", [False, True])
def test_jobset_container_succeeds_only_if_the_run_is_complete(
    stubs, tmp_path, code, finished, host, expected, signalled
):
    [container] = job()["template"]["spec"]["containers"]
    waits = f"trap 'echo TERM >> {tmp_path}/seen; exit {code}' TERM; touch {tmp_path}/up; sleep 90 & wait; exit 9"
    stubs(python=f'printf "%s\\n" "$@" > {tmp_path}/words; {waits if signalled else f"exit {code}"}')
    if finished:
        (tmp_path / "postprocess.json").touch()
    environment = os.environ | {"WORKDIR": str(tmp_path), "JOB_COMPLETION_INDEX": str(host)}
    process = subprocess.Popen([*container["command"], *FLAGS], env=environment)
    limit = time.monotonic() + 60
    while signalled and not (tmp_path / "up").exists() and time.monotonic() < limit:
        time.sleep(0.01)
    if signalled:
        process.send_signal(signal.SIGTERM)
    assert process.wait(60) == expected
    assert seen(tmp_path) == ["TERM"] * signalled
    assert (tmp_path / "words").read_text().splitlines() == ["-m", "lgg_jax", "train", "--distributed", *FLAGS]


# Runs the commands of the VM locally in $VM, and logs each call of gcloud.
GCLOUD = """
echo "$4 ${@:5:1}" >> "$SEEN"
case $4 in
  describe) [ -n "$STATE" ] && echo "$STATE" ;;
  ssh) for word; do case $word in --command=*) command=${word#*=} ;; esac; done
       cd "$VM" && bash -c "${command//\\/mnt\\/lgg/$VM\\/share}" ;;
esac
"""


@pytest.mark.parametrize("state, finished, expected", [
    ("", True, ["describe", "create"]), ("READY", True, ["describe"]), ("READY", False, ["describe"]),
    ("PREEMPTED", True, ["describe", "delete", "create"]),
])  # fmt: skip
def test_tpu_vm(stubs, tmp_path, monkeypatch, state, finished, expected):
    vm = tmp_path / "vm"
    shutil.copytree(LAUNCH, vm / "lgg_jax" / "launch")
    (vm / "share" / "run").mkdir(parents=True)
    if finished:
        (vm / "share" / "run" / "postprocess.json").touch()
    monkeypatch.setenv("STATE", state)
    monkeypatch.setenv("VM", str(vm))
    venv = 'mkdir -p .venv/bin; printf "#!/bin/sh\\necho $*" > .venv/bin/python; chmod +x .venv/bin/python'
    stubs(gcloud=GCLOUD, sudo=EXEC, mountpoint="exit 0", systemctl="exit 3", python3=venv,
          systemd_run=f'printf "%s\\n" "$@" > {tmp_path}/words')  # fmt: skip
    flags = ["--workdir=/mnt/lgg/run", *FLAGS]
    ended = run("bash", LAUNCH / "tpu_vm.sh", "slice", "zone", "10.0.0.2:/share", *flags)
    assert ended.returncode == (0 if finished else 1), ended.stderr
    assert ("not finished" in ended.stderr) != finished
    calls = seen(tmp_path)
    assert calls[: len(expected)] == [f"{call} slice" for call in expected]
    assert {call.split()[0] for call in calls[len(expected) :]} == {"ssh", "scp"}
    words = [word.replace(f"{vm}/share", "/mnt/lgg") for word in (tmp_path / "words").read_text().splitlines()]
    start = words.index(f"{vm}/lgg_jax/.venv/bin/python")
    assert words[start + 1 :] == ["-m", "lgg_jax", "train", "--distributed", *flags]


def test_dockerfile():
    steps = [line.split(maxsplit=1) for line in (LAUNCH / "Dockerfile").read_text().splitlines() if line[:1].isupper()]
    steps = {name: [rest for step, rest in steps if step == name] for name, _ in steps}
    assert all((ROOT / source).exists() for rest in steps["COPY"] for source in rest.split()[:-1])
    assert re.fullmatch(r"python:3\.1[123]-slim", steps["FROM"][0])
    assert steps["USER"][-1] != "root"
    assert steps["ENTRYPOINT"] == ['["python", "-m", "lgg_jax"]']
    extras = re.findall(r"^(\w+) = \[\"jax\[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert set(re.findall(r"EXTRA=(\w+)", (LAUNCH / "Dockerfile").read_text())) <= set(extras)

"""Configs come from strangers: what they may call."""

import os

import pytest
from hydra import compose
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from omegaconf import OmegaConf

from canonxai.config import CONF
from canonxai.errors import UserError
from canonxai.hydra_part import check_hydra, guard
from canonxai.targets import ENVIRONMENT, allow, check_targets, shipped

EVIL = """
from pathlib import Path
Path("imported").touch()
class Evil:
    def __init__(self, *args, **kwargs):
        Path("called").touch()
"""
#: what a stranger's experiment holds, and the key that is refused
ATTACKS = {
    "method": ("method: {_target_: evil.Evil}", "method._target_"),
    "nested": ("metric: {x: {_target_: canonxai.metrics.distance.Distance, y: [{_target_: evil.Evil}]}}", "metric.x.y"),
    "hidden": ("metric: {x: '${oc.decode:\"{_target_: evil.Evil}\"}'}", "metric.x._target_"),
    "callback": ("hydra: {callbacks: {x: {_target_: evil.Evil}}}", "hydra.callbacks.x._target_"),
    "late callback": ("hydra: {callbacks: {x: {_target_: '${hydra:job.id}'}}}", "hydra.callbacks.x._target_"),
    "log": ("hydra: {job_logging: {handlers: {x: {class: evil.Evil}}}}", "hydra.job_logging.handlers.x.class"),
    "log factory": ("hydra: {hydra_logging: {filters: {x: {(): evil.Evil}}}}", "hydra.hydra_logging.filters.x.()"),
    "log import": ("hydra: {job_logging: {formatters: {x: {format: 'ext://evil.x'}}}}", "hydra.job_logging.formatters"),
    "log file": (
        "hydra: {job_logging: {handlers: {file: {filename: ../evil.log}}}}",
        "hydra.job_logging.handlers.file",
    ),
    "launcher": ("defaults: [override /hydra/launcher: mine]", "hydra.launcher.x._target_"),
    "sweeper": ("defaults: [override /hydra/sweeper: mine]", "hydra.sweeper.params.study._target_"),
    "search": (
        "hydra: {sweeper: {custom_search_space: evil.Evil}}",
        "hydra.sweeper.custom_search_space: expected to be",
    ),
    "sampler": ("hydra: {sweeper: {sampler: {_target_: evil.Evil}}}", "hydra.sweeper.sampler._target_"),
    "allows itself": ("allow_targets: [evil.Evil]\nmethod: {_target_: evil.Evil}", "allow_targets: expected to be"),
    "environment": (f"hydra: {{job: {{env_set: {{{ENVIRONMENT}: evil.Evil}}}}}}", "hydra.job.env_set.CANONXAI"),
    "path of Python": ("hydra: {job: {env_set: {PYTHONPATH: evil}}}", "hydra.job.env_set.PYTHONPATH: expected to be"),
    "secret": ("hydra: {job: {env_copy: [PATH]}}", "hydra.job.env_copy.0: expected to be given on the command line"),
    "recorded": ("hydra: {overrides: {task: [allow_targets=evil.Evil]}}", "hydra.overrides.task: expected to be given"),
    "recorded of Hydra": (
        "hydra: {overrides: {hydra: [hydra.job.env_set.PYTHONPATH=evil]}, job: {env_set: {PYTHONPATH: evil}}}",
        "hydra.overrides.hydra: expected to be given on the command line",
    ),
    "folder": ("hydra: {run: {dir: ../elsewhere}}", "hydra.run.dir: expected to be given on the command line alone"),
    "folder of sweeps": ("hydra: {sweep: {dir: '${oc.env:HOME}'}}", "hydra.sweep.dir: expected to be given"),
    "folder of configs": ("hydra: {output_subdir: ../../elsewhere}", "hydra.output_subdir: expected to be given"),
    "parameters": (
        "hydra: {sweeper: {params: {+hydra.job.env_set.PYTHONPATH: evil}}}",
        "hydra.sweeper.params: expected to be given on the command line alone, got +hydra.job.env_set.PYTHONPATH",
    ),
    "commands": (
        'defaults: [override /hydra/launcher: slurm]\nhydra: {launcher: {comment: "x\\ntouch imported"}}',
        "hydra.launcher.comment: expected printable text on one line, got 'x\\ntouch imported'",
    ),
    "commands of a name": (
        'defaults: [override /hydra/launcher: slurm]\nhydra: {job: {name: "x\\ntouch imported"}}',
        r"hydra.job.name: expected a name, no path, got 'x\ntouch imported'",
    ),
    "search space": (
        "hydra: {sweeper: {search_space: {+hydra.job.env_set.X: {type: categorical, choices: [1]}}}} # sampler",
        "hydra.sweeper.search_space.+hydra.job.env_set.X.type: expected to be given on the command line alone",
    ),
    "attributes of a log": (
        "hydra: {job_logging: {handlers: {x: {class: logging.FileHandler, "
        "filename: '${hydra.runtime.output_dir}/${hydra.job.name}.log', .: {baseFilename: evil.py}}}}}",
        "hydra.job_logging.handlers.x...baseFilename: expected a class of logging",
    ),
    "known factory of a log": (
        "hydra: {job_logging: {handlers: {x: {(): logging.FileHandler}}}}",
        "hydra.job_logging.handlers.x.(): expected a class of logging",
    ),
    "options of srun": (
        "defaults: [override /hydra/launcher: srun]",
        "hydra.launcher.srun_args.0: expected to be given on the command line alone, got --task-prolog=/evil.sh",
    ),
    "folder of jobs": (
        "defaults: [override /hydra/launcher: submitit_local]\nhydra: {launcher: {submitit_folder: /anywhere}}",
        "hydra.launcher.submitit_folder: expected to be given on the command line alone",
    ),
    "name of the log": ("hydra: {job: {name: ../../evil}}", "hydra.job.name: expected a name, no path"),
    "name of a model": (
        "model: {name: ../../x}\nhydra: {run: {dir: 'multirun/train/${model.name}'}}",
        "model.name: expected a name, no path, got '../../x'",
    ),
    "target that changes": (
        "run: {deterministic: true}\ncanonize: false\n"
        "canonizer: {x: {good: canonxai.attribution.ixg.InputXGradient, ':4096:8': evil.Evil}}\n"
        "method: {name: m, title: m, _target_: '${oc.select:\"canonizer.x.${oc.env:CUBLAS_WORKSPACE_CONFIG,good}\"}'}",
        "method._target_: expected a class or function that a shipped config uses, got 'evil.Evil'",
    ),
    "log that changes": (
        "model: {x: {before: logging.StreamHandler}}\nhydra: {job_logging: {handlers: {x: {class: "
        "'${oc.select:\"model.x[${oc.select:hydra.runtime.output_dir,before}]\",evil.Evil}'}}}}",
        "hydra.job_logging.handlers.x.class: expected what Hydra or a shipped config names, got 'evil.Evil'",
    ),
    "name that changes": (
        "model: {x: {canonxai: m}, name: '${oc.select:\"model.x[${oc.select:hydra.job.name,later}]\",../../evil}'}",
        "model.name: expected a name, no path, got '../../evil'",
    ),
    "folder of a cache": (
        "data: {cache: /anywhere}",
        "data.cache: expected to be given on the command line alone, got /anywhere in a config",
    ),
    "commands that come late": (
        "defaults: [override /hydra/launcher: slurm]\nhydra: {launcher: {comment: '${hydra:job.id}'}}",
        "hydra.launcher.comment: expected what Hydra or a shipped config names, got '${hydra:job.id}'",
    ),
}


@pytest.fixture(autouse=True)
def nothing_allowed(monkeypatch):
    monkeypatch.setenv(ENVIRONMENT, "")


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """A folder of a stranger's configs and modules, on Python's path."""
    (tmp_path / "evil.py").write_text(EVIL)
    (tmp_path / "conf/experiment").mkdir(parents=True)
    (tmp_path / "conf/experiment/good.yaml").write_text("# @package _global_\nseed: -1")
    plugin = "_target_: hydra._internal.core_plugins.basic_{0}.Basic{1}\n{2}: {{_target_: evil.Evil}}"
    for name, text in {
        "launcher": plugin.format("launcher", "Launcher", "x"),
        "launcher/srun": "_target_: hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher\n"
        "srun_args: [--task-prolog=/evil.sh]",
        "sweeper": plugin.format("sweeper", "Sweeper", "max_batch_size: null\nparams:\n  study"),
    }.items():
        group, _, option = name.partition("/")
        (tmp_path / f"conf/hydra/{group}").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"conf/hydra/{group}/{option or 'mine'}.yaml").write_text(text)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")])))

    def write(text: str) -> list[str]:
        optuna = "defaults: [override /hydra/sweeper: search]\n" if "custom_search" in text or "sampler" in text else ""
        (tmp_path / "conf/experiment/evil.yaml").write_text("# @package _global_\n" + optuna + text)
        return ["data.size=2", "save_maps=0", "--config-dir", str(tmp_path / "conf")]

    return write


@pytest.mark.parametrize(
    ("attack", "sweep"),
    [
        *((attack, False) for attack in ATTACKS),
        *((attack, True) for attack in ("method", "callback", "log", "launcher", "sweeper", "search", "sampler")),
        *(
            (attack, True)
            for attack in ("path of Python", "recorded", "folder of sweeps", "parameters", "search space", "commands")
        ),
    ],
)
def test_a_stranger_s_config_calls_nothing_of_its_own(stranger, cli, tmp_path, attack, sweep):
    text, key = ATTACKS[attack]
    done = cli(*(["-m", "experiment=good,evil"] if sweep else ["experiment=evil"]), *stranger(text))
    assert done.returncode == 1
    assert key in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "imported").exists() and not list(tmp_path.rglob("called"))


def test_a_sweep_s_own_parameters_cannot_allow_anything(stranger, cli, tmp_path):
    text = "hydra: {sweeper: {params: {allow_targets: '[evil.Evil]', method._target_: evil.Evil}}}"
    done = cli("-m", "experiment=evil", *stranger(text))
    assert done.returncode == 1 and "allow_targets: expected to be given on the command line alone" in done.stderr
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize("params", ["{data.cache: /anywhere}", "{data: '{cache: /anywhere}'}"])
def test_a_sweep_s_own_parameters_are_not_those_of_the_command_line(stranger, cli, tmp_path, params):
    arguments = stranger(f"hydra: {{sweeper: {{params: {params}}}}}")
    done = cli("-m", "experiment=evil", *arguments)
    assert done.returncode == 1 and "data.cache: expected to be given on the command line alone" in done.stderr
    done = cli("-m", "experiment=good", "data.cache=a,b", *arguments)
    assert "seed: expected an integer" in done.stderr and "command line alone" not in done.stderr


def test_nor_are_they_where_the_command_line_has_none(cli, tmp_path):
    text = "defaults: [config, _self_]\nhydra: {mode: MULTIRUN, sweeper: {params: {data.cache: /anywhere}}}\nseed: -1"
    (tmp_path / "mine.yaml").write_text(text)
    done = cli("--config-dir", ".", "--config-name", "mine")
    assert done.returncode == 1 and "data.cache: expected to be given on the command line alone" in done.stderr


def test_what_the_command_line_allows_is_called(stranger, cli, tmp_path):
    done = cli("experiment=evil", "allow_targets=[evil.Evil]", *stranger("method: {_target_: evil.Evil}"))
    assert (tmp_path / "called").exists(), done.stderr


@pytest.mark.parametrize(
    "name", ["torch.load", "builtins.open", "zennit.core.torch.load", "canonxai.data.scenes.np.load"]
)
def test_neither_the_blocklist_s_gaps_nor_prefixes_help(name):
    cfg = OmegaConf.create({"method": {"_target_": name}})
    with pytest.raises(UserError, match=rf"method._target_: expected .* got '{name}'.* add 'allow_targets=\[{name}\]'"):
        check_targets(cfg, CONF)


def test_only_exact_names_are_allowed(monkeypatch):
    allow(["method=random", "allow_targets=[mine.A]", "x=[", "+allow_targets=[mine.B,mine.C]"])
    for name in ("A", "B", "C"):
        check_targets(OmegaConf.create({"method": {"_target_": f"mine.{name}"}}), CONF)
    for name in ("mine.D", "mine", "mine.A.x"):
        with pytest.raises(UserError, match=r"method\._target_"):
            check_targets(OmegaConf.create({"method": {"_target_": name}}), CONF)


@pytest.mark.parametrize("text", ["study: '${oc.env:MY_API_KEY}'", "method: {title: '${oc.env:MY_API_KEY,x}'}"])
def test_no_secret_of_the_environment_gets_into_a_file(stranger, cli, tmp_path, text):
    done = cli("experiment=evil", "method=random", *stranger(text), MY_API_KEY="hush-hush")
    assert done.returncode == 1 and "oc.env: expected a variable without a secret, got MY_API_KEY" in done.stderr
    told = [path.read_text(errors="ignore") for path in tmp_path.rglob("*") if path.is_file()]
    assert not any("hush-hush" in text for text in [done.stdout, done.stderr, *told])
    assert not list(tmp_path.rglob("*hush*"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GITHUB_PAT", "x"),
        ("DATABASE_URL", "x"),
        ("REMOTE", "https://me:hush@host/x"),
        ("SESSION_ID", "x"),
        ("DB_PASS", "x"),
        ("SSHPASS", "x"),
        ("CHAT_WEBHOOK", "x"),
        ("BEARER", "x"),
        ("MYSQL_PWD", "x"),
    ],
)
def test_names_and_values_that_look_secret_are_not_read(config, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(Exception, match=f"expected a variable without a secret, got {name}"):
        OmegaConf.resolve(config("data=imagenet", f"data.root=${{oc.env:{name}}}"))


def test_other_variables_can_be_read(config, monkeypatch):
    monkeypatch.setenv("SCRATCH", "/scratch")
    assert config("data=imagenet", "data.root=${oc.env:SCRATCH}/ilsvrc").data.root == "/scratch/ilsvrc"
    assert config("study=${oc.env:NOT_THERE,other}").study == "other"


def test_shipped_targets_are_those_of_the_configs():
    names = shipped(CONF)
    assert {"canonxai.attribution.lrp.LRPEpsilon", "pytorch_lightning.Trainer"} <= names
    assert all(name.startswith(("canonxai.", "pytorch_lightning.Trainer")) for name in names)


def test_no_sweeper_has_jobs_composed_with_keys_of_hydra():
    """Whatever it takes for its parameters."""
    guard(CONF)
    loader = ConfigLoaderImpl(ConfigSearchPathImpl())
    for override in ("hydra.job.env_set.X=1", "+hydra.job.env_set.X=1", "hydra/launcher=slurm", "++hydra.run.dir=x"):
        with pytest.raises(UserError, match=r"^hydra.sweeper: expected settings of cells, got "):
            loader.load_sweep_config(OmegaConf.create(), ["seed=1", override])


@pytest.mark.parametrize("place", ["pkg://evil", "pkg://evil/conf"])
def test_a_config_has_no_module_searched_for_others(stranger, cli, tmp_path, place):
    arguments = stranger("")
    (tmp_path / "conf/mine.yaml").write_text(f"defaults: [config, _self_]\nhydra: {{searchpath: ['{place}']}}")
    done = cli("--config-name", "mine", *arguments)
    assert done.returncode == 1 and f"hydra.searchpath: expected folders, got {place} in a config." in done.stderr
    assert not (tmp_path / "imported").exists()


def test_what_only_the_command_line_may_give_it_may_give(config):
    given = [
        "hydra.job.env_copy=[PATH]", "+hydra.job.env_set.A=1", "hydra.run.dir=anywhere", "hydra/launcher=slurm",
        "hydra.launcher.setup=[module load cuda]", "+hydra.launcher.additional_parameters={a: 1, b: {c: 2}}",
        "hydra.searchpath=[file://conf]", "hydra/job_logging=default",
    ]  # fmt: skip
    given = ["experiment=paper", *given]
    cfg = compose("config", given, return_hydra_config=True)
    check_hydra(cfg, CONF, given, given)
    for place, value in {
        "job.env_set.B": 2,
        "launcher.additional_parameters.b.d": 3,
        "launcher.setup": ["a", "b"],
    }.items():
        mixed = cfg.copy()
        OmegaConf.update(mixed, f"hydra.{place}", value, force_add=True)
        with pytest.raises(UserError, match=rf"hydra\.{place}(\.1)?: expected to be given on the command line alone"):
            check_hydra(mixed, CONF, given, given)

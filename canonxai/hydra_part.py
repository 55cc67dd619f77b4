"""What a config may say of Hydra itself: callbacks, logging, launchers, sweepers, environment and folders of jobs.

Hydra acts on its own part of a config before a job starts, and configs come from strangers. So this part is looked at
whenever a config was composed, in each process of a sweep: what it names must be known, and what runs commands, sets
the environment or says where files lie is given on the command line alone. Values may refer to what Hydra finds out
later, as a job's folder, so they are looked at once more when a job begins.
"""

from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from functools import cache, wraps
from pathlib import Path, PurePath
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from canonxai.errors import UserError
from canonxai.files import check_plain
from canonxai.leaves import UNRESOLVED, leaves, named, raw_value, value_at
from canonxai.targets import KEY, allowed, shipped

#: what Hydra makes of its own part before a job starts
OF_HYDRA = ("callbacks", "job_logging", "hydra_logging", "launcher", "sweeper")
#: what Optuna's sweeper calls or unpickles, or has jobs begin with, and the environment: each is given on the command
#: line, or not at all
COMMANDS = (
    *("hydra.sweeper.custom_search_space", "hydra.sweeper.search_space", "hydra.sweeper.storage"),
    *("hydra.job.env_copy", "hydra.job.env_set"),
)
#: what a config may say of launchers, which else run commands, load what others wrote, and connect to other machines
LAUNCHERS = {
    *("_target_", "timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes", "name", "qos"),
    *("partition", "stderr_to_stdout", "comment", "constraint", "exclude", "gres", "cpus_per_gpu", "gpus_per_task"),
    *("mem_per_gpu", "mem_per_cpu", "account", "signal_delay_s", "max_num_timeout", "array_parallelism"),
    *("ray.remote.num_cpus", "ray.remote.num_gpus", "n_jobs", "backend", "prefer", "require", "verbose", "timeout"),
    *("pre_dispatch", "batch_size", "max_nbytes", "mmap_mode"),
}
SUBMITIT = "${hydra.sweep.dir}/.submitit/%j"
#: of which the names of folders and files are made
NAMES = ("hydra.job.name", "data.name", "data.label_space", "model.name", "method.name")
#: where files go: as a shipped config says, or the command line
FOLDERS = (
    *("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.output_subdir"),
    *("output", "data.cache", "trainer.default_root_dir"),
)
#: Hydra's own
OF_DATES = {f"{name}/${{now:%Y-%m-%d}}/${{now:%H-%M-%S}}" for name in ("outputs", "multirun")} | {
    *("${hydra.job.num}", ".hydra", None)
}
#: Hydra's plugins that are supported
PLUGINS = {
    f"{package}.{name}"
    for package, names in {
        "hydra._internal.core_plugins": ("basic_launcher.BasicLauncher", "basic_sweeper.BasicSweeper"),
        "hydra_plugins.hydra_joblib_launcher": ("joblib_launcher.JoblibLauncher",),
        "hydra_plugins.hydra_submitit_launcher": ("submitit_launcher.SlurmLauncher", "submitit_launcher.LocalLauncher"),
        "hydra_plugins.hydra_ray_launcher": ("ray_launcher.RayLauncher",),
        "hydra_plugins.hydra_optuna_sweeper": ("optuna_sweeper.OptunaSweeper",),
    }.items()
    for name in names
}
#: what logging's own configs name: classes, streams and the one file
LOGGING = {
    *("logging.StreamHandler", "logging.FileHandler", "ext://sys.stdout", "ext://sys.stderr"),
    "${hydra.runtime.output_dir}/${hydra.job.name}.log",
}
#: what the options of Optuna's sweeper name
SAMPLERS = {f"optuna.samplers.{name}Sampler" for name in ("CmaEs", "Grid", "MOTPE", "NSGAII", "Random", "TPE")}


def check_hydra(cfg: DictConfig, folder: Path, overrides: Sequence[str], given: Sequence[str]) -> None:
    """Looks at what Hydra does by itself: callbacks, logging, launchers, the environment and folders of jobs.

    Args:
        cfg: as composed, Hydra's own part included.
        folder: that of the shipped configs.
        overrides: which it was composed with. Those that it holds are told from them, as jobs are started by these.
        given: the command line's; a job's overrides may also be those of a config's sweeper.

    Raises:
        UserError: for the first name that is not known, or if the config has what only the command line may give.
    """
    for place, value in _alone(
        cfg, folder, *(OverridesParser.create().parse_overrides(list(o)) for o in (overrides, given))
    ):
        raise UserError(f"{place}: expected to be given on the command line alone, got {value} in a config.")
    check_values(cfg, folder)


def check_values(cfg: DictConfig, folder: Path) -> None:
    """Looks at the names that Hydra's own part has now; arguments and errors as of :func:`check_hydra`."""
    check_names(cfg)
    for section in ("job_logging", "hydra_logging"):
        for leaf in leaves(OmegaConf.select(cfg, f"hydra.{section}"), f"hydra.{section}"):
            if ".." in leaf.place or ".()" in leaf.place:  # the keys "." and "()" set attributes, and call anything
                raise UserError(f"{leaf.place}: expected a class of logging with its options, got {leaf.value!r}.")
    known = {"launcher": PLUGINS | allowed(), "sweeper": PLUGINS | SAMPLERS | allowed()}
    for section in OF_HYDRA:
        node = OmegaConf.select(cfg, f"hydra.{section}")
        names = shipped(folder) | known.get(section, LOGGING)
        for place, name in named(node, f"hydra.{section}", ("_target_", "class", "()", "filename")):
            if name not in names:
                raise UserError(f"{place}: expected what Hydra or a shipped config names, got {name!r}.")
    for leaf in leaves(OmegaConf.select(cfg, "hydra.launcher"), "hydra.launcher"):
        if not str(leaf.value).isprintable():  # a line of its own in a job's script is a command
            raise UserError(f"{leaf.place}: expected printable text on one line, got {leaf.value!r}.")


def check_names(cfg: DictConfig) -> None:
    """Looks at what names of folders and files are made of, with Hydra's own part or without.

    Raises:
        UserError: for the first that is no name.
    """
    for key in NAMES:
        parent, _, last = key.rpartition(".")
        node = OmegaConf.select(cfg, parent)
        name = str(value_at(node, last)) if isinstance(node, DictConfig) and last in node else ""
        is_path = PurePath(name).is_absolute() or ".." in PurePath(name).parts
        if is_path or not name.isprintable() or name == UNRESOLVED:
            raise UserError(f"{key}: expected a name, no path, got {name!r}.")


def _alone(
    cfg: DictConfig, folder: Path, overrides: Sequence[Override], told: Sequence[Override]
) -> Iterator[tuple[str, Any]]:
    """What the command line has to give, and a config gives."""
    given = {leaf.place for each in told for leaf in leaves(each.value(), each.key_or_group)}
    given |= {f"hydra.job.env_set.{name}" for name in OmegaConf.select(cfg, "hydra.job.env_copy")}
    for name in cfg.get(KEY) or []:
        if name not in allowed():
            yield KEY, name
    for part in ("task", "hydra"):  # by which jobs and processes are started
        lines = [override.input_line for override in overrides if override.is_hydra_override() == (part == "hydra")]
        if (recorded := raw_value(cfg, f"hydra.overrides.{part}")) != lines:
            yield f"hydra.overrides.{part}", recorded
    for key in COMMANDS:
        yield from ((leaf.place, leaf.value) for leaf in leaves(raw_value(cfg, key), key) if leaf.place not in given)
    for key in FOLDERS:
        if key not in given and (value := raw_value(cfg, key)) not in _folders(folder):
            yield key, value
    for name in OmegaConf.select(cfg, "hydra.sweeper.params") or {}:
        if str(name).lstrip("+~ ").startswith("hydra"):
            yield "hydra.sweeper.params", name
    for leaf in leaves(raw_value(cfg, "hydra.launcher"), "hydra.launcher"):
        is_harmless = leaf.place.removeprefix("hydra.launcher.") in LAUNCHERS or leaf.value == SUBMITIT
        if leaf.place not in given and not is_harmless:
            yield leaf.place, leaf.value


def guard(folder: Path) -> None:
    """Has Hydra's own part checked of each config that is composed, and of each job that begins, in this process."""
    compose = ConfigLoaderImpl.load_configuration
    if hasattr(compose, "__wrapped__"):
        return
    given: ContextVar[Sequence[str] | None] = ContextVar("given", default=None)  # while a sweep's job is composed

    @wraps(compose)
    def load_configuration(
        self: ConfigLoaderImpl, config_name: str | None, overrides: list[str], *args: Any, **kwargs: Any
    ) -> DictConfig:
        _check_searchpath(self, config_name, overrides)
        try:
            cfg = compose(self, config_name, overrides, *args, **kwargs)
        except TypeError as error:  # of Hydra, for instance for method=[1,ixg]
            raise UserError(
                f"command line: expected names of options, got what Hydra cannot read ({error})."
            ) from error
        told = given.get()  # which may be nothing
        check_hydra(cfg, folder, overrides, overrides if told is None else told)
        if OmegaConf.select(cfg, "hydra.mode") == RunMode.MULTIRUN:
            check_plain(Path(str(value_at(cfg.hydra.sweep, "dir"))).resolve())  # a study may be linked to by its user
        return cfg

    compose_job = ConfigLoaderImpl.load_sweep_config

    @wraps(compose_job)
    def load_sweep_config(self: ConfigLoaderImpl, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        for override in OverridesParser.create().parse_overrides(sweep_overrides):
            if override.is_hydra_override():  # which jobs would take for the command line's
                raise UserError(f"hydra.sweeper: expected settings of cells, got {override.input_line}.")
        told = master_config.hydra.overrides
        token = given.set([*told.hydra, *told.task])
        try:
            return compose_job(self, master_config, sweep_overrides)
        finally:
            given.reset(token)

    begin = HydraConfig.set_config

    @wraps(begin)
    def set_config(self: HydraConfig, cfg: DictConfig) -> None:
        check_values(cfg, folder)
        if place := OmegaConf.select(cfg, "hydra.runtime.output_dir"):  # where Hydra is about to write
            check_plain(Path(place))
        begin(self, cfg)

    ConfigLoaderImpl.load_configuration = load_configuration  # type: ignore[method-assign]
    ConfigLoaderImpl.load_sweep_config = load_sweep_config  # type: ignore[method-assign]
    HydraConfig.set_config = set_config  # type: ignore[method-assign]


def _check_searchpath(loader: ConfigLoaderImpl, config_name: str | None, overrides: Sequence[str]) -> None:
    """Looks at where Hydra is about to look for configs: what is no folder is a module, which it imports."""
    loaded = loader.repository.load_config(config_name) if config_name else None
    searched = OmegaConf.select(loaded.config, "hydra.searchpath") if loaded else None
    if searched and not any(override.startswith("hydra.searchpath=") for override in overrides):
        for place in searched:
            if "://" in str(place).removeprefix("file://"):
                raise UserError(f"hydra.searchpath: expected folders, got {place} in a config.")


@cache
def _folders(folder: Path) -> set[Any]:
    """What Hydra and the shipped configs say of where results go."""
    configs = [OmegaConf.load(path) for path in folder.glob("*.yaml")]
    return OF_DATES | {raw_value(cfg, key) for cfg in configs if isinstance(cfg, DictConfig) for key in FOLDERS}

"""The command `retrace tune`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from rich.markup import escape
from rich.table import Table

from retrace_pl.errors import InputError, RunError
from retrace_pl.pipeline.parsing import config_values, find_config, one_line
from retrace_pl.pipeline.run_folder import RunFolder
from retrace_pl.report.findings import fitting_table, output_console, result_alone
from retrace_pl.report.progress import Bar, terminal
from retrace_pl.tuning.objective import MEASURES, WORST, differences, shortcomings
from retrace_pl.tuning.preset import write_preset
from retrace_pl.tuning.search import Outcome
from retrace_pl.tuning.search import tune as search
from retrace_pl.tuning.setting import SeedSetting, open_settings
from retrace_pl.tuning.target import Target, find_target, tunable

ALL = "all"
COLUMNS = ("method", "distance", "retain", "forget", "test", "mia", "reaches", "trials", "failed")


def tune(arguments: list[str]) -> None:
    """Find the settings of an unlearning method that come closest to retraining, and write them as a preset."""
    options, overrides = _parse(arguments)
    config = _config_name(overrides)
    names = list(dict.fromkeys(options.method))
    names = list(dict.fromkeys(n for name in names for n in (tunable() if name == ALL else [name])))
    targets = [find_target(name, config, options.start_from) for name in names]
    if options.max_epochs is not None:
        targets = [target.limited(options.max_epochs) for target in targets]
    folder = _folder(options.folder, config)
    files = _preset_files(options.output, folder / "presets", targets)
    with result_alone(options.json):
        settings = open_settings(overrides, options.seeds, folder, quiet=options.quiet)
        results = _search(targets, settings, files, folder, config, options)
    _report(results, config, options, settings)


def _search(
    targets: Sequence[Target],
    settings: list[SeedSetting],
    files: Mapping[str, Path],
    folder: Path,
    config: str,
    options: argparse.Namespace,
) -> dict[str, dict[str, Any]]:
    """Tunes one method after the other; one that fails spares the others."""
    console = terminal(options.quiet)
    results: dict[str, dict[str, Any]] = {}
    for target in targets:
        file = files[target.name]
        try:
            with _progress(target.name, options.trials, options.quiet) as on_trial:
                outcome = search(
                    target,
                    settings,
                    folder / "studies",
                    trials=options.trials,
                    timeout=options.timeout,
                    on_trial=on_trial,
                )
        except RunError as error:
            if len(targets) == 1:
                raise
            console.print(f"{escape(target.name)}: {escape(str(error))}", style="red", soft_wrap=True)
            results[target.name] = {"failure": str(error)}
            continue
        write_preset(file, outcome, config, settings[0].run)
        results[target.name] = _result(outcome, file)
    return results


def _parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    configs = list(config_values(arguments))
    try:
        options, overrides = make_parser().parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise InputError(f"retrace tune: {one_line(error)}") from error
    if not options.method:
        raise InputError("no method: use --method salun, another method's name, a preset file, or --method all")
    if options.trials < 1:
        raise InputError(f"--trials is {options.trials}; set it to 1 or more")
    if options.max_epochs is not None and options.max_epochs < 1:
        raise InputError(f"--max-epochs is {options.max_epochs}; set it to 1 or more")
    if options.timeout is not None and not options.timeout > 0:
        raise InputError(f"--timeout is {options.timeout}; set it to a number of seconds above 0")
    return options, [*(f"--config={name}" for name in configs), *overrides]


def make_parser() -> argparse.ArgumentParser:
    """The command's own options; those of an audit are passed on."""
    parser = argparse.ArgumentParser(
        prog="retrace tune",
        description=tune.__doc__,
        epilog="Every setting of an audit can be given too, for instance --classifier.epochs 5, and --cache FOLDER, "
        "through which audits and tuning share trained models; see `retrace audit --help`.",
        exit_on_error=False,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--config", metavar="NAME", help="audit configuration: a file, or the bare name of a packaged one; repeatable")
    add(
        "--method",
        action="append",
        help="a method of the zoo (salun), a packaged preset (random_label_redrawn), a preset file of your own, or "
        "all; repeatable",
    )
    add("--trials", type=int, default=30, help="trials per method, those of an earlier run included (default: 30)")
    add("--timeout", type=float, metavar="SECONDS", help="start no trial of a method after that many seconds")
    add("--max-epochs", type=int, metavar="N", help="try no more than N epochs (default: the method's own range)")
    add(
        "--start-from",
        action="append",
        default=[],
        metavar="NAME",
        help="try the packaged presets of another setting first, for instance digits; repeatable",
    )
    add("--seeds", type=_seeds, default=[100, 101], help='seeds of audit and data to tune on (default: "[100,101]")')
    add("--output", metavar="PATH", help="preset file, or folder that gets METHOD.yaml (default: FOLDER/presets)")
    add("--folder", help="where studies and trained models are kept (default: runs/tune/CONFIG)")
    add("--quiet", action="store_true", help="print nothing but errors, and with --json the result")
    add("--json", action="store_true", help="print the result as JSON on standard output")
    return parser


def _config_name(overrides: list[str]) -> str:
    names = [argument.partition("=")[2] for argument in overrides if argument.startswith("--config=")]
    if not names:
        raise InputError("no configuration: use `retrace tune --config digits --method salun` or give a file")
    return find_config(names[-1]).stem


def _seeds(text: str) -> list[int]:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of whole numbers") from error
    seeds = value if isinstance(value, list) else [value]
    if not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds) or len(set(seeds)) < len(seeds):
        raise argparse.ArgumentTypeError(
            f'{text!r} is no list of different whole numbers, 0 or more; give for instance "[100,101]"'
        )
    return seeds


def _folder(option: str | None, config: str) -> Path:
    folder = Path(option) if option else Path("runs") / "tune" / config
    try:
        RunFolder(folder)
    except InputError as error:
        raise InputError(str(error).replace("--output", "--folder")) from error
    return folder


def _preset_files(output: str | None, default: Path, targets: list[Target]) -> dict[str, Path]:
    if output is None or not output.endswith((".yaml", ".yml")):
        folder = default if output is None else Path(output)
        if folder.exists() and not folder.is_dir():
            raise InputError(f"--output {folder} is a file; give a folder, or a file that ends in .yaml")
        files = {target.name: folder / f"{target.name}.yaml" for target in targets}
    elif len(targets) > 1:
        raise InputError(f"--output {output} is one file for {len(targets)} methods; give a folder")
    else:
        folder, files = Path(output).parent, {targets[0].name: Path(output)}
    RunFolder(folder)  # refuses one that cannot be written before an hour of searching
    return files


@contextmanager
def _progress(name: str, trials: int, quiet: bool) -> Iterator[Callable[[int, float | None], None]]:
    bar = Bar(f"tuning {name}", trials, terminal(quiet))

    def on_trial(done: int, best: float | None) -> None:
        bar.update(done, f"trial {done}/{trials}", "" if best is None else f"best {best:.3f}")

    try:
        yield on_trial
    finally:
        bar.close()


def _result(outcome: Outcome, file: Path) -> dict[str, Any]:
    return {
        "preset": str(file),
        "distance": outcome.value,
        "distance_of_first_start": outcome.start,
        "knobs": outcome.knobs,
        "quality": outcome.quality,
        "reference": outcome.reference,
        "original": outcome.original,
        "differences": differences(outcome.quality, outcome.reference),
        "reaches": not shortcomings(outcome.quality, outcome.reference),
        "trials": outcome.trials,
        "failed": outcome.failed,
        "seconds": outcome.seconds,
    }


def _report(
    results: dict[str, dict[str, Any]], config: str, options: argparse.Namespace, settings: list[SeedSetting]
) -> None:
    if options.json:
        report = {"config": config, "seeds": options.seeds, "methods": results}
        sys.stdout.write(json.dumps(report, indent=2) + "\n")
    elif not options.quiet:
        console = output_console()
        seeds = ", ".join(str(setting.seed) for setting in settings)
        title = f"{config}, mean over seeds {seeds}; distance: summed absolute difference to retraining"
        console.print(title, style="italic", markup=False, soft_wrap=True)
        console.print(_table(results, console.width))
        for name, row in results.items():
            console.print(f"{name}: {row.get('preset', row.get('failure'))}", soft_wrap=True, markup=False)
    if all("failure" in row for row in results.values()):
        raise RunError("no trial of any method succeeded; the reasons are above")


def _table(results: dict[str, dict[str, Any]], width: int) -> Table:
    rows: list[tuple[list[str], str | None]] = []
    shown = [row for row in results.values() if "failure" not in row]
    for name in ("reference", "original"):
        if shown:
            label = "retrained" if name == "reference" else name
            rows.append(([label, "", *(f"{shown[0][name][measure]:.3f}" for measure in MEASURES)], "dim"))
    for name, row in sorted(results.items(), key=lambda item: item[1].get("distance", WORST)):
        if "failure" in row:
            rows.append(([name, "failed"], None))
            continue
        cells = (f"{row['quality'][measure]:.3f}" for measure in MEASURES)
        reaches = "yes" if row["reaches"] else "no"
        figures = [f"{row['distance']:.3f}", *cells, reaches, str(row["trials"]), str(row["failed"])]
        rows.append(([name, *figures], None))
    return fitting_table(COLUMNS, rows, width)

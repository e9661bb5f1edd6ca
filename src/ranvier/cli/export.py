"""The commands ``ranvier export`` and ``ranvier run``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from ..api.export import export_artifact, export_source, load_artifact
from ..api.to_nir import to_nir
from ..errors import ExportError, InputError
from ..nir.notes import NirNotes
from ..util.files import read_arrays, write_arrays
from ..verification.calibration import LABELS, with_own_name
from .console import print_plain
from .graph_file import check_results_target, check_target
from .progress import steps_shown

ENDING, SOURCE, NIR = ".rva", ".py", ".nir"


def run_export(console: Console, model: Any, inputs: tuple[Any, ...], output: Path, *, batched: bool) -> None:
    """Exports a model in the form that the file's ending says, and prints the file's name.

    Raises:
        ExportError: there is no such form, or the model or file cannot be written.
    """
    ending = output.suffix.lower()
    if ending not in (ENDING, SOURCE, NIR):
        raise ExportError(f"{str(output)!r}: artifacts end in {ENDING}, Python source in {SOURCE}, NIR files in {NIR}.")
    check_target(output)
    note = ""
    with steps_shown(console) as show:
        show("lowering" if ending == ENDING else "raising")
        if ending == ENDING:
            export_artifact(model, output, *inputs, batched=batched)
        elif ending == SOURCE:
            export_source(model, output, *inputs)
        else:
            note = NirNotes.of(to_nir(model, *inputs, path=output).metadata).text
    artifact = f"{load_artifact(output)!r} " if ending == ENDING else ""
    print_plain(console, f"{artifact}written to {output}, {output.stat().st_size:,} bytes")
    if note:
        print_plain(console, note)


def run_artifact(console: Console, path: Path, inputs: Path, output: Path | None, seed: int) -> None:
    """Runs an artifact on the inputs in a file, and prints and writes its outputs.

    Raises:
        ExportError: the file is not an artifact.
        InputError: the inputs cannot be read or do not fit.
    """
    if output is not None:
        check_results_target(output)
    artifact = load_artifact(path)
    try:
        arrays = read_arrays(inputs)
    except ValueError as error:
        raise InputError(f"{str(inputs)!r} cannot be read: {error}.") from error
    names = [one.name for one in artifact.inputs]
    if LABELS not in names:
        arrays.pop(LABELS, None)
    with steps_shown(console) as show:
        show(f"running {artifact.name}")
        outputs = artifact.run(with_own_name(arrays, names), seed=seed)
    for name, values in outputs.items():
        statistics = f"{list(values.shape)}, from {values.min():.4g} to {values.max():.4g}, mean {values.mean():.4g}"
        print_plain(console, f"{name}: {statistics}")
    if output is not None:
        write_arrays(output, outputs)
        print_plain(console, f"written to {output}")

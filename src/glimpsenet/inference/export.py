"""Models as files for programs without this library: ONNX, and torch.export's pt2.

    whole:           images -> logits [batch, glimpse, class], windows [batch, glimpse, 3]        the loop unrolled
    stepwise:        images -> answer_1, state_1;    state_{t-1} -> answer_t, state_t      one graph a glimpse

Stepwise, the caller may stop after any glimpse, and drop the images that are done from every tensor of the state: early
exit without this library. Graphs take any batch size. Images are raw (float, 0..1), normalisation is part of the graph;
class names and sizes travel as metadata. What was written is read back and compared with the model.

ONNX files name operator set 18 unless another is chosen: TensorRT computes GridSample wrongly at 20, where the modes of
the operator were renamed (https://github.com/NVIDIA/TensorRT/issues/4646).

Sources: torch.export (https://docs.pytorch.org/docs/stable/export.html); GridSample of ONNX's operator set 16.
"""

import copy
import json
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

import glimpsenet
from glimpsenet.errors import SettingError, UserError, first_line, needs_extra
from glimpsenet.files import write_aside
from glimpsenet.inference.fast import fold
from glimpsenet.models.glimpsenet import GlimpseNet
from glimpsenet.models.state import GlimpseState
from glimpsenet.runs import Run

Format = Literal["onnx", "pt2"]
Tensors = dict[str, Tensor]
METADATA = "glimpsenet.json"
"""Under this name pt2 files hold theirs."""
OPSET = 18
"""ONNX operator set written by default."""
OPSETS = range(18, 24)
"""Those torch.onnx writes: its own operators begin at 18, and 23 is the newest it declares."""
TOLERANCE = 1e-4
"""How far an exported model's outputs may be from the model's, as a share of the largest if that is above 1."""


class WholeLoop(nn.Module):
    """All T looks: ``images`` -> ``logits``, ``windows``."""

    def __init__(self, model: GlimpseNet):
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensors) -> Tensors:
        """Look and classify."""
        output = self.model(self.model.normalization(inputs["images"]))
        return {"logits": output.logits, "windows": output.windows}


class OneStep(nn.Module):
    """One glimpse: ``images`` (the first) or the state so far -> ``logits`` and the new state.

    The state: ``windows``, ``features``, ``map_*`` and ``fused`` with one entry a glimpse, ``keys`` and ``values`` (the
    fusion's memory); as inputs their names begin with ``past_``. The first glimpse also gives ``level_*``, the
    normalised images and, if the model samples a pyramid, their halvings; they stay the same for all later glimpses.
    """

    def __init__(self, model: GlimpseNet):
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensors) -> Tensors:
        """Look once more."""
        model, levels = self.model, {}
        if "images" in inputs:
            images = model.normalization(inputs["images"])
            state = model.start(images)
            levels = {f"level_{place}": level for place, level in enumerate(state.prepared)}
        else:
            past = {name.removeprefix("past_"): tensor for name, tensor in inputs.items()}
            state = GlimpseState.unpack([past[name] for name in past if name.startswith("level_")], past)
        model.take_glimpse(state)
        return {"logits": state.logits[-1], **state.pack(), **levels}


def next_inputs(inputs: Tensors, outputs: Tensors) -> Tensors:
    """What the next glimpse takes, from what this one took and gave."""
    levels = {name: tensor for name, tensor in {**inputs, **outputs}.items() if name.startswith("level_")}
    known = {name: tensor for name, tensor in outputs.items() if name != "logits" and name not in levels}
    return {**levels, **{f"past_{name}": tensor.contiguous() for name, tensor in known.items()}}


def export(
    run: Run, out: Path, format: Format = "onnx", *, stepwise: bool = False, opset: int | None = None
) -> list[Path]:
    """Write a run's model to ``out``, or its glimpses beside it as ``NAME.glimpse1.SUFFIX`` and so on.

    Args:
        run: from :func:`~glimpsenet.runs.run.load_run`.
        out: a file; its folder is made.
        format: ``onnx`` or ``pt2``.
        stepwise: one file a glimpse, for early exit.
        opset: ONNX operator set, 18 to 23; 18 if None. pt2 has none.

    Returns:
        The files.

    Raises:
        SettingError: for an operator set that cannot be written.
        UserError: if a library is missing, or the exported model does not run or computes something else.
    """
    opset = _check_opset(opset, format)
    plain = copy.deepcopy(run.model).cpu().eval()
    # Norms folded into convolutions: not every program that runs the file does it.
    fast = fold(plain).to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    out.parent.mkdir(parents=True, exist_ok=True)
    # What a graph is traced with is not what it is compared on: other images, another batch size.
    traced, compared = ({"images": smooth_images(run, count)} for count in (2, 3))
    if not stepwise:
        expected = _run(WholeLoop(plain), compared)
        _export_graph(WholeLoop(fast), traced, compared, expected, out, format, opset, describe(run))
        return [out]
    files = []
    for glimpse in range(1, plain.num_glimpses + 1):
        files.append(out.with_name(f"{out.stem}.glimpse{glimpse}{out.suffix}"))
        expected = _run(OneStep(plain), compared)
        metadata = {**describe(run), "glimpse": glimpse}
        _export_graph(OneStep(fast), traced, compared, expected, files[-1], format, opset, metadata)
        traced = next_inputs(traced, _run(OneStep(fast), traced))
        compared = next_inputs(compared, expected)
    return files


def _check_opset(opset: int | None, format: Format) -> int:
    if opset is not None and format != "onnx":
        raise SettingError(f"opset {opset} is a setting of ONNX; {format} has no operator sets")
    if opset is not None and opset not in OPSETS:
        raise SettingError(
            f"opset must be in {OPSETS[0]}..{OPSETS[-1]}, which torch.onnx can write, got {opset};"
            f" {OPSET} is what most runtimes compute correctly"
        )
    return OPSET if opset is None else opset


def smooth_images(run: Run, count: int) -> Float[Tensor, "count channel size size"]:
    """Images to compare on, 0..1: on noise, rounding errors of a window would become visible in the glimpse."""
    coarse = torch.rand(count, run.channels, 6, 6, generator=torch.Generator().manual_seed(count))
    return F.interpolate(coarse, size=run.config.model.image_size, mode="bicubic").clamp(0, 1)


def describe(run: Run) -> dict[str, Any]:
    """The metadata of an exported model."""
    model, config = run.model, run.config.model
    return {
        "glimpsenet": glimpsenet.__version__,
        "classes": run.classes,
        "channels": run.channels,
        "image_size": config.image_size,
        "glimpse_size": config.glimpse_size,
        "num_glimpses": model.num_glimpses,
        "mean": model.normalization.mean.flatten().tolist(),
        "std": model.normalization.std.flatten().tolist(),
    }


@torch.no_grad()
def _run(graph: nn.Module, inputs: Tensors) -> Tensors:
    return graph(inputs)


def _export_graph(
    graph: nn.Module,
    traced: Tensors,
    compared: Tensors,
    expected: Tensors,
    file: Path,
    format: Format,
    opset: int,
    metadata: dict[str, Any],
) -> None:
    batch = {name: {0: torch.export.Dim.DYNAMIC} for name in traced}
    program = torch.export.export(graph, (traced,), dynamic_shapes=(batch,))
    with write_aside(file) as aside:
        if format == "onnx":
            _write_onnx(program, aside, list(traced), list(expected), opset, metadata)
            found = run_onnx(aside, compared)
        else:
            _write_pt2(program, aside, metadata)
            found = run_pt2(aside, compared)
        _compare(expected, found, file)


def _compare(expected: Tensors, found: Tensors, file: Path) -> None:
    for name, values in expected.items():
        distance = float((values - found[name]).abs().max() / values.abs().max().clamp(min=1))
        if not distance <= TOLERANCE:
            raise UserError(
                f"{file} would compute something else than the run: '{name}' differs by {distance:.2g}, more than"
                f" {TOLERANCE:g}; try the other format, and report it"
            )


def _write_pt2(program: Any, file: Path, metadata: dict[str, Any]) -> None:
    with open(file, "wb") as stream:
        torch.export.save(program, stream, extra_files={METADATA: json.dumps(metadata)})


def run_pt2(file: Path, inputs: Tensors) -> Tensors:
    """What an exported pt2 file makes of ``inputs``."""
    with open(file, "rb") as stream, torch.no_grad():
        return torch.export.load(stream).module()(inputs)


def _write_onnx(
    program: Any, file: Path, inputs: list[str], outputs: list[str], opset: int, metadata: dict[str, Any]
) -> None:
    with needs_extra("ONNX (pt2 does not)", "export"):
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    exported = torch.onnx.export(program, input_names=inputs, output_names=outputs, opset_version=opset, verbose=False)
    assert exported is not None
    # A conversion between operator sets that fails is only logged, and the model left at another one.
    if (written := exported.model.opset_imports[""]) != opset:
        raise UserError(f"torch.onnx cannot write this model at opset {opset}, only at {written}; choose that")
    exported.model.metadata_props.update({key: json.dumps(value) for key, value in metadata.items()})
    exported.save(file)


def run_onnx(file: Path, inputs: Tensors) -> Tensors:
    """What an exported ONNX file makes of ``inputs``, in ONNX Runtime on the CPU.

    Raises:
        UserError: if ONNX Runtime does not run it, an older version a newer operator set for example.
    """
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    except Exception as error:  # it raises kinds of its own
        version = onnxruntime.__version__
        raise UserError(
            f"ONNX Runtime {version} does not run the exported model: {first_line(error)[:200]}; choose opset {OPSET}"
        ) from error
    names = [output.name for output in session.get_outputs()]
    taken = {node.name: inputs[node.name].numpy() for node in session.get_inputs()}
    return dict(zip(names, map(torch.from_numpy, session.run(names, taken)), strict=True))

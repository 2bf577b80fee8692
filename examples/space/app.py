"""A page (and Space) that ranks an instruction set and shows the selected rows: `python examples/space/app.py`."""

import argparse
import os

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported

import tempfile
from collections.abc import Sequence
from dataclasses import Field, replace
from functools import lru_cache
from html import escape
from itertools import islice
from pathlib import Path
from typing import Any

import gradio as gr
import view
from datasets import Dataset, load_dataset
from datasets.exceptions import DatasetsError
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from scar_hf import ScarScorer, scar_rank
from scar_hf.files import open_shards, read_dataset, write_dataset
from scar_hf.manifest.description import hash_inputs
from scar_hf.manifest.sidecars import hash_file, sealed
from scar_hf.selecting.top_k import check_selected
from scar_hf.selection import Selection

HERE = Path(__file__).resolve().parent
MAX_ROWS = 20_000
MAX_FILE = "100mb"
# Limit for decompressed files, because the visitors of the page share its memory.
MAX_BYTES = 500_000_000
FORMATS = {"JSON Lines": "selected.jsonl", "Parquet": "selected.parquet"}
# On the Hub, the example is next to this file; in a checkout, it is next to this folder.
EXAMPLE = HERE / "mixed_styles.jsonl"
if not EXAMPLE.is_file():
    EXAMPLE = HERE.parent / "mixed_styles" / "mixed_styles.jsonl"
PROGRESS = gr.Progress(track_tqdm=True)
RANKER = os.environ.get("SCAR_RANKER", "scar-ranker")
INTRO = """# scar-hf: keep the rows that share one style
[SCAR](https://arxiv.org/abs/2406.10882) (ACL 2025) ranks instruction-response pairs by the consistency of their style."""
HINT = f"""<div class="scar scar-hint"><h3>Score a dataset, choose k, download the best rows</h3>
<ol><li>Upload a file, or name a public dataset on the Hub. The columns tell its format: messages, prompt and completion,
Alpaca, and others. At most {MAX_ROWS:,} rows are read; <code>scar-hf select</code> on your machine has no limit.</li>
<li>Every row is scored once: a thousand rows take about 20 seconds on one CPU core.</li>
<li>Move k, or set other criteria: the threshold, the figures and the rows follow at once.</li>
<li>Download the rows kept, with a manifest that records how they were selected.</li></ol></div>"""


@lru_cache(maxsize=2)
def scorer_for(columns: tuple[str, str] | None) -> ScarScorer:
    """Load the ranker, cached for recent choices of columns."""
    return ScarScorer.from_pretrained(RANKER, columns=columns)


def score_file(upload: str | None, instruction: str, response: str, progress: gr.Progress = PROGRESS) -> tuple:
    """Rank an uploaded file."""
    if not upload:
        raise gr.Error("Choose a file first: .jsonl, .json, .csv or .parquet.", title="No file")
    path = Path(upload)
    try:
        ds = read_dataset(path, max_rows=MAX_ROWS + 1, max_bytes=MAX_BYTES)
        inputs = [entry | {"path": path.name} for entry in hash_inputs(path, open_shards(path))]
        return _score(ds, path.name, inputs, instruction, response)
    except ValueError as error:
        raise _shown(error, path) from error


def score_hub(
    name: str,
    config: str,
    split: str,
    instruction: str,
    response: str,
    progress: gr.Progress = PROGRESS,
) -> tuple:
    """Rank the first rows of a public dataset on the Hub."""
    name, config, split = (name or "").strip(), (config or "").strip(), (split or "").strip() or "train"
    try:
        validate_repo_id(name)
        if "/" not in name or Path(name).exists():
            raise ValueError(f"Expected the id of a dataset on the Hub, such as databricks/databricks-dolly-15k, got {name!r}.")
        # Without a token, because visitors must not read the private datasets of the owner of the Space.
        stream = load_dataset(name, config or None, split=split, streaming=True, token=False)
        ds = Dataset.from_list(list(islice(stream, MAX_ROWS + 1)), features=stream.features)
        return _score(ds, name, [{"path": name, "split": split}], instruction, response)
    except HFValidationError as error:
        raise _shown(
            ValueError(f"{name!r} is not the id of a dataset on the Hub, such as databricks/databricks-dolly-15k.")
        ) from error
    except (DatasetsError, OSError) as error:
        why = f"{name}, split {split!r}, could not be loaded from the Hub: {error} Check the id, the split and the network."
        raise _shown(ValueError(why)) from error
    except ValueError as error:
        raise _shown(error) from error


def score_example(progress: gr.Progress = PROGRESS) -> tuple:
    """Rank the example."""
    return score_file(str(EXAMPLE), "", "")


def show(scored: view.Scored | None, share: float, count: float | None, *options: Any) -> tuple:
    """Show everything that depends on the criteria; nothing is scored."""
    if scored is None:
        return (gr.skip(),) * 7
    selection = _select(scored, share, count, options)
    numbers = view.numbers_at(scored, selection)
    shown = view.tiles(numbers), view.figures(numbers), view.style_table(numbers), view.examples(scored, selection)
    return gr.HTML(visible=False), gr.Column(visible=True), *shown, None


def make_files(
    scored: view.Scored | None, format_name: str, with_report: bool, share: float, count: float | None, *options: Any
) -> list[str]:
    """Write the downloads: the rows kept, their manifest, and the report."""
    if scored is None:
        raise gr.Error("Score a dataset first.", title="Nothing to download")
    selection = _select(scored, share, count, options)
    folder = Path(tempfile.mkdtemp(dir=os.environ["GRADIO_TEMP_DIR"]))
    rows = write_dataset(selection.dataset, folder / FORMATS[format_name])
    output = {"name": rows.name, "rows": len(selection), "files": [{"name": rows.name, "sha256": hash_file(rows)}]}
    manifest = folder / f"{rows.name}.manifest.json"
    manifest.write_bytes(sealed(selection.manifest | {"output": output}))
    files = [rows, manifest]
    if with_report:
        files.append(folder / "report.html")
        selection.report(files[-1], group_by=scored.group_by, map_rows=view.MAP_ROWS)
    return [str(file) for file in files]


def _select(scored: view.Scored, share: float, count: float | None, options: Sequence[Any]) -> Selection:
    """Select by the controls, and check that at least one row is kept."""
    try:
        selection = scored.ranking.select(view.criteria_of(share, count, options))
        check_selected(selection.indices, len(scored.ranking), scored.ranking.skipped, selection.curated)
    except (ValueError, TypeError, ImportError) as error:
        raise _shown(error) from error
    return selection


def control(option: Field) -> gr.components.Component:
    """Create the control of a criterion."""
    title, help_ = option.name.replace("_", " ").capitalize(), option.metadata["help"]
    looks: dict[str, Any] = {"label": title, "info": help_, "elem_id": option.name}
    if option.metadata["parse"] is bool:
        return gr.Checkbox(value=option.default, **looks)
    if option.name == "evaluation":
        return gr.File(label=f"{title}: {help_}", file_count="multiple", height=120, elem_id=option.name)
    if option.metadata["parse"] is str:
        return gr.Textbox(placeholder=option.metadata["metavar"], **looks)
    return gr.Number(value=option.default, precision=0 if option.metadata["parse"] is int else None, **looks)


def _score(ds: Dataset, name: str, inputs: list[dict[str, Any]], instruction: str, response: str) -> tuple:
    """Rank once, and describe the result."""
    if not len(ds):
        raise ValueError(f"{name} has no rows.")
    notes = []
    if len(ds) > MAX_ROWS:
        notes.append(f"Only its first {MAX_ROWS:,} rows were read, which is the limit of this page.")
        ds, inputs = ds.select(range(MAX_ROWS)), [entry | {"first_rows": MAX_ROWS} for entry in inputs]
    given = [(column or "").strip() for column in (instruction, response)]
    if any(given) and not all(given):
        raise ValueError("Name both the instruction column and the response column, or neither.")
    scorer = scorer_for(tuple(given) if all(given) else None)
    ranking = scar_rank(ds, model=scorer, overwrite=True)
    # Identify the pairs by their content, not by their path on this server.
    inputs = [entry | {"pairs_sha256": ranking.source[1][0]["pairs_sha256"]} for entry in inputs]
    ranking = replace(ranking, source=(name, inputs))
    if len(ranking.skipped) == len(ranking):
        raise ValueError(f"No row of {name} could be scored: {next(iter(ranking.skipped.values()))}.")
    if truncated := int(ranking.truncated.sum()):
        notes.append(f"{truncated:,} rows have texts of which only the first {scorer.read_length} tokens were read.")
    if ranking.skipped:
        notes.append(
            f"{len(ranking.skipped):,} rows have no score; reason of the first: {next(iter(ranking.skipped.values()))}."
        )
    text = " ".join([f"Ranked {len(ranking):,} rows of {name}.", *notes])
    return view.measured(ranking, scorer), f'<p class="scar-status" role="status">{escape(text)}</p>'


def _shown(error: Exception, path: Path | None = None) -> gr.Error:
    """Escape a message: it may quote the data, and the page would render it as HTML."""
    text = str(error) if path is None else str(error).replace(str(path), path.name)
    return gr.Error(escape(text), title="Error", duration=None, print_exception=False)


def build() -> gr.Blocks:
    """Build the page."""
    with gr.Blocks(title="scar-hf", delete_cache=(3600, 3600), analytics_enabled=False) as page:
        scored = gr.State(time_to_live=3600)
        gr.Markdown(INTRO, elem_classes="scar-intro")
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=300):
                with gr.Tab("A file"):
                    upload = gr.File(
                        label="JSON Lines, JSON, CSV, Parquet",
                        file_types=[".jsonl", ".json", ".csv", ".parquet"],
                        height=170,
                        elem_id="upload",
                    )
                    from_file = gr.Button("Score the file", variant="primary", elem_id="score-file")
                with gr.Tab("A dataset on the Hub"):
                    name = gr.Textbox(label="Id", placeholder="databricks/databricks-dolly-15k", elem_id="hub-id")
                    with gr.Row():
                        config = gr.Textbox(label="Configuration", placeholder="default", min_width=100)
                        split = gr.Textbox(label="Split", value="train", min_width=100)
                    from_hub = gr.Button("Score the dataset", variant="primary", elem_id="score-hub")
                with gr.Accordion("Columns, if they are not detected", open=False):
                    instruction = gr.Textbox(label="Instruction", elem_id="instruction-column")
                    response = gr.Textbox(label="Response", elem_id="response-column")
                from_example = gr.Button("Try the example", elem_id="score-example")
                status = gr.HTML(min_height=60, padding=False)
            with gr.Column(scale=5, min_width=320):
                hint = gr.HTML(HINT, padding=False)
                with gr.Column(visible=False) as results:
                    k = gr.Slider(0.01, 1.0, 0.1, step=0.01, label="k: the share of rows to keep", elem_id="k")
                    with gr.Accordion("More criteria", open=False, elem_id="criteria"):
                        count = gr.Number(
                            label="Count", info="Number of rows to keep, instead of a share.", precision=0, elem_id="count"
                        )
                        controls = [control(option) for option in view.OPTIONS]
                        apply = gr.Button("Apply", variant="primary", elem_id="apply")
                    tiles = gr.HTML(padding=False)
                    with gr.Tab("Figures"):
                        figures = gr.HTML(padding=False)
                    with gr.Tab("Style"):
                        table = gr.HTML(padding=False)
                    with gr.Tab("Rows"):
                        rows = gr.HTML(padding=False)
                    with gr.Tab("Download"):
                        with gr.Row():
                            format_name = gr.Radio(list(FORMATS), value="JSON Lines", label="Format")
                            with_report = gr.Checkbox(
                                label="Include the full report (one page, takes a few seconds)", elem_id="with-report"
                            )
                        make = gr.Button("Create the files", variant="primary", elem_id="make-files")
                        files = gr.File(label="The files", interactive=False, file_count="multiple", elem_id="files")
        chosen = [k, count, *controls]
        views = [hint, results, tiles, figures, table, rows, files]
        options: dict[str, Any] = {"outputs": [scored, status], "concurrency_id": "score", "concurrency_limit": 1}
        for button, function, inputs in (
            (from_file, score_file, [upload, instruction, response]),
            (from_hub, score_hub, [name, config, split, instruction, response]),
            (from_example, score_example, []),
        ):
            done = button.click(function, inputs, **options, show_progress_on=status)
            done.success(show, [scored, *chosen], views, concurrency_id="show", concurrency_limit=1)
        moved: dict[str, Any] = {"trigger_mode": "always_last", "show_progress": "hidden", "concurrency_id": "show"}
        gr.on([k.change, apply.click], show, [scored, *chosen], views, **moved)
        make.click(make_files, [scored, format_name, with_report, *chosen], files, concurrency_id="show")
    return page


def main() -> None:
    """Serve the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, help="port (default: the first free one from 7860)")
    args = parser.parse_args()
    scorer_for(None)  # fails early if the ranker cannot be loaded, and spares the first visitor the wait
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        system = ["system-ui", "sans-serif"]
        theme = gr.themes.Soft(primary_hue="blue", secondary_hue="blue", font=system, font_mono=["ui-monospace", "monospace"])
        looks = {"background_fill": "transparent", "text_color": "*body_text_color"}
        names = [
            (f"block_{part}_{look}{mode}", look) for part in ("title", "label") for look in looks for mode in ("", "_dark")
        ]
        build().queue(max_size=20).launch(
            server_port=args.port,
            theme=theme.set(background_fill_primary="*neutral_50", **{name: looks[look] for name, look in names}),
            css_paths=HERE / "style.css",
            max_file_size=MAX_FILE,
            footer_links=["gradio", "settings"],
            ssr_mode=False,
        )


if __name__ == "__main__":
    main()

"""`danube-sweep label`."""

from pathlib import Path

from danube_sweep.cli.folders_of_others import add_trust, check_received
from danube_sweep.cli.parser import Parser, add_calibrate


def label(arguments: list[str]) -> int:
    """`danube-sweep label`: soft labels for more training rows."""
    parser = Parser(
        "danube-sweep label",
        description="Writes the rows of an unlabelled file with a probability for each class, as data.extra reads "
        "them. The folder of a sweep stands for its best trial, the folder of an ensemble for all its members. See "
        "docs/distillation.md.",
        epilog="example: danube-sweep label best unlabelled.csv -o soft.csv; danube-sweep data=arena "
        "data.path=train.csv data.extra=[soft.csv] data.extra_weight=0.5",
    )
    parser.add_argument("run_dir", type=Path, help="the folder of a run, a sweep or an ensemble; it is only read")
    parser.add_argument("input", type=Path, help="csv, jsonl, json or parquet with the columns of the run's data")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the csv to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output file")
    parser.add_argument(
        "--id-column", metavar="NAME", help="the id column (default: the run's data.id_column, otherwise id, Id or ID)"
    )
    parser.add_argument("--swap", action="store_true", help="average both orders of the two answers")
    add_calibrate(parser)
    parser.add_argument(
        "--batch-rows",
        type=int,
        default=16,
        help="rows of data.max_length tokens per forward pass; of shorter ones, as many tokens (default 16)",
    )
    parser.add_argument("--accelerator", choices=["auto", "cpu", "cuda"], default="auto", help="where to run")
    types = ["fp32", "bf16", "fp16"]
    parser.add_argument("--compute", choices=types, help="compute type, if the device lacks the run's type")
    parser.add_argument("--model-path", type=Path, metavar="FOLDER", help="folder of the backbone, if it has moved")
    add_trust(parser)
    options = parser.parse_args(arguments)
    if options.batch_rows < 1:
        parser.error(f"--batch-rows must be at least 1, got {options.batch_rows}")
    check_received(options.run_dir, trust=options.trust)

    from danube_sweep.inference.label_run import label_run
    from danube_sweep.inference.predict_run import PredictWords

    given = {"run": options.run_dir, "source": options.input, "target": options.output}
    how = {name: value for name, value in vars(options).items() if name not in ("run_dir", "input", "output", "trust")}
    rows = label_run(PredictWords(**given, **how))
    print(f"{options.output}: {rows} rows with soft labels; train on them with data.extra=[{options.output}]")
    return 0

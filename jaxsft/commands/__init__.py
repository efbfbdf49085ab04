"""The commands, one module each with `main(arguments) -> exit code`.

The command line imports only the one that runs.
"""

# name: (module, what it does), in the order of the help
COMMANDS = {
    "demo": (
        "demo",
        (
            "fine-tune a small model on a bilingual data set made on the spot, score it, write a"
            " report (two minutes)"
        ),
    ),
    "prepare": (
        "prepare",
        (
            "clean, deduplicate, split, balance ...: jaxsft prepare data.path=FILE"
            " stages=[clean,dedup,split] output.dir=DIR"
        ),
    ),
    "train": (
        "train",
        (
            "fine-tune: jaxsft train task=NAME data.train=FILE ... (jaxsft train --help lists the"
            " tasks)"
        ),
    ),
    "plan": (
        "plan",
        (
            "compile the steps of a run, for this machine or for TPUs elsewhere, and say what fits:"
            " jaxsft plan model.pretrained=DIR topology=v5p:4x4x4"
        ),
    ),
    "sweep": (
        "sweep_room",
        (
            "look after a sweep, or run a study: jaxsft sweep status|resume|retry|add|cancel|report"
            " DIR, jaxsft sweep run experiments/NAME"
        ),
    ),
    "probe": (
        "probe",
        (
            "measure what suits a run: learning rates, the noise of its gradient, rows that fit:"
            " jaxsft probe rates|noise|rows task=... data.train=FILE"
        ),
    ),
    "crossval": (
        "cross_validate",
        (
            "train once for each fold and score every row by a model that did not see it: jaxsft"
            " crossval task=... data.path=FILE crossval.folds=5"
        ),
    ),
    "check": (
        "check",
        (
            "look at a data set before training: rows, labels, lengths, leaks, tokens: jaxsft check"
            " task=... data.train=FILE"
        ),
    ),
    "eval": ("eval", "score a run on a file: jaxsft eval run=DIR data.path=FILE"),
    "predict": (
        "predict",
        "predict every row of a file: jaxsft predict run=DIR input=FILE output=FILE",
    ),
    "generate": (
        "generate_text",
        (
            "answer a prompt, hold a conversation, answer a file: jaxsft generate run=DIR"
            " [prompt=TEXT | input=FILE]"
        ),
    ),
    "explain": (
        "explain_run",
        (
            "which tokens a prediction comes from, and whether that is true: jaxsft explain"
            " run=DIR data=FILE explain.method=..."
        ),
    ),
    "export": (
        "export_run",
        "write a run as a folder that transformers loads: jaxsft export run=DIR to=FOLDER",
    ),
    "quality": (
        "quality",
        (
            "measure a data set before training on it: jaxsft quality data.path=FILE, or"
            " data.train=FILE data.test=FILE"
        ),
    ),
    "annotate": (
        "annotate",
        (
            "tasks for annotators, and one answer out of several: jaxsft annotate export|import"
            " schema=FILE ..."
        ),
    ),
    "report": (
        "report",
        "write the report of a run again, or set several side by side: jaxsft report DIR [DIR ...]",
    ),
    "compare": (
        "compare_runs",
        (
            "whether runs differ on the same rows, with bounds and tests: jaxsft compare RUN_A"
            " RUN_B [...]"
        ),
    ),
    "power": (
        "needed_rows",
        "how many rows or seeds a difference needs: jaxsft power run=RUN effect=0.02",
    ),
    "robustness": (
        "robustness_of_runs",
        (
            "how far runs fall under noise, tests of behaviour, an attack: jaxsft robustness"
            " run=DIR data=FILE"
        ),
    ),
    "ensemble": (
        "ensemble_of_runs",
        (
            "several runs as one, the mean of predictions or of weights: jaxsft ensemble"
            " runs=[DIR, DIR] data.path=FILE"
        ),
    ),
    "transfer": (
        "transfer_of_runs",
        (
            "models of several languages on files of several: jaxsft transfer runs={de: DIR, ...}"
            " eval.sets={de: FILE, ...}"
        ),
    ),
    "needle": (
        "needle_in_haystack",
        "how far a run finds one sentence in a long text: jaxsft needle run=DIR filler=FILE",
    ),
    "plugins": (
        "plugins_found",
        "parts that other packages bring, and why one fails: jaxsft plugins",
    ),
    "env": ("env", "versions, devices, CUDA, extras: jaxsft env"),
    "completion": (
        "completion",
        "complete commands and options by a tab: jaxsft completion bash|zsh|fish",
    ),
}
# whose config has `plugins`; of the others it is no option of a run
WITH_PLUGINS = ("train", "plan", "sweep", "crossval", "check", "prepare")

"""Read a run with pandas (pip install pandas): python examples/read_run.py runs/fast."""

import json
import sys
from pathlib import Path

import pandas as pd

if __name__ == "__main__":
    folder = Path(sys.argv[1] if sys.argv[1:] else "runs/fast")
    manifest = json.loads((folder / "manifest.json").read_text())
    print(f"{manifest['parameters']:,} parameters, trained in {manifest['train_seconds']:.0f} s")

    history = pd.read_csv(folder / "history.csv", index_col="epoch")
    print(history[["loss", "accuracy", "val_accuracy", "learning_rate"]].round(4))

    predictions = pd.read_csv(folder / "predictions.csv", index_col="index")  # fmnist evaluate writes it
    probabilities = predictions[manifest["class_names"]]
    print(pd.crosstab(predictions["true"], predictions["predicted"]))

    mistakes = predictions[predictions["true"] != predictions["predicted"]]
    print(f"{len(mistakes)} of {len(predictions)} test images are wrong. The most confident mistakes:")
    confidence = probabilities.max(axis=1).rename("probability")
    print(mistakes[["true", "predicted"]].join(confidence).nlargest(10, "probability").round(3))

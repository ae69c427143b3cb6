"""Score a model of scikit-learn like a preset: python examples/score_scikit_learn.py [TRAINING_IMAGES]."""

import sys

from sklearn.ensemble import RandomForestClassifier

import fmnist


def as_rows(images):
    """Return the images as (n, 784), as scikit-learn takes them."""
    return images.reshape(len(images), -1)


if __name__ == "__main__":
    num_images = int(sys.argv[1]) if sys.argv[1:] else 60_000
    dataset = fmnist.load()
    forest = RandomForestClassifier(n_jobs=-1, random_state=0)
    forest.fit(as_rows(dataset.train_images[:num_images]), dataset.train_labels[:num_images])

    result = fmnist.score(lambda images: forest.predict_proba(as_rows(images)), dataset)
    low, high = result["accuracy_interval_95"]
    print(f"test accuracy {result['accuracy']:.2%}, 95 % interval {low:.2%} to {high:.2%}")
    print(f"calibration error {result['ece']:.3f}; with temperature {result['ece_calibrated']:.3f}")
    for scores in result["per_class"]:
        print(f"{scores['label']:12} recall {scores['recall']:.1%}")

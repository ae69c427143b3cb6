# %% [markdown]
# # Look inside, and use it
#
# In notebook 1 you built a network with Keras. Here you train a stronger one with the package `fmnist`, look at what happens inside it, and use it: on a report, on a photo, in another program.
#
# You need notebook 1, or its ideas: convolution, training, validation, overfitting. Run the cells from top to bottom. All of it takes about four minutes on two CPU cores.

# %%
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.manifold import TSNE

import fmnist
from fmnist import metrics, plots
from fmnist.data.dataset import normalize, split_dataset
from fmnist.evaluation.occlusion import occlusion_maps

# %matplotlib inline

# %% [markdown]
# ## 1. Train with one call
#
# `fmnist.load()` finds the data set or downloads it, and verifies every byte. `split_dataset` sets 5,000 training images aside for validation, with the same part of every class.

# %%
with fmnist.errors_as_text():
    dataset = fmnist.load()
    split = split_dataset(dataset, seed=0)

{name: part.shape for name, part in (("training", split.train_images), ("validation", split.val_images))}

# %% [markdown]
# The **preset** `fast` is a network and a way to train it, made for a good result in little time. All its settings are in one object. Section 7 shows what they bring.

# %%
config = fmnist.Config.from_preset("fast")
config

# %% [markdown]
# Now the training, half a minute if nothing else runs. The curves are redrawn after every epoch.
#
# The training curves have a step. An epoch of `fast` uses half of the training images: in the first two epochs a random half each, so that all images have been used once. From the third on, it uses the half that the network found hardest, the images with the highest loss. On hard images, training accuracy is lower (gray area). Validation images of all kinds show that the network still gets better.

# %%
with fmnist.errors_as_text():
    run = fmnist.train(config, callbacks=[fmnist.LiveCurves(config)])

# %% [markdown]
# The run is a folder with everything that belongs to it: the settings, the curves, the weights and, in `model.onnx`, the complete model.

# %%
sorted(path.name for path in run.folder.iterdir())

# %% [markdown]
# ## 2. What the first layer looks for
#
# `load_model` returns the network as a `keras.Sequential`, with its weights.

# %%
import keras

network = fmnist.load_model(run)
network.summary()

# %% [markdown]
# A filter of the first layer is 3 x 3 weights. The layer slides each of its filters over the image. Its output is high where the pixels are like the filter: bright where the filter is red, dark where it is blue.
#
# These 18 filters are not learned. They are computed from training images, so that their outputs vary equally and independently of each other ("whitening"). The second row is the first one with opposite signs. There are filters for edges, for lines and for corners in several directions. The last one of a row has a single color: it measures the brightness.

# %%
kernel = keras.ops.convert_to_numpy(network.layers[0].kernel)[:, :, 0]

figure, grid = plt.subplots(2, 9, figsize=(9, 2.3))
for axes, filter_weights in zip(grid.flat, np.moveaxis(kernel, 2, 0), strict=True):
    limit = np.abs(filter_weights).max()
    axes.imshow(filter_weights, cmap="RdBu_r", vmin=-limit, vmax=limit)
    axes.axis("off")
plt.show()

# %% [markdown]
# ## 3. What each layer passes on
#
# The outputs of one filter for one image are a small image again, a **feature map**. Here are the first ten feature maps after each convolution, for a boot from the validation images.
#
# From top to bottom the maps get smaller, because pooling keeps only the highest value of each 2 x 2 square. In the first rows you can still see the boot, its outline from one side or the other. In the last row it is gone. What is left is where something was found, and no longer how it looked.

# %%
layers = [layer for layer in network.layers if isinstance(layer, keras.layers.ReLU)]
all_maps = keras.Model(network.inputs, [layer.output for layer in layers])

boot = split.val_images[np.flatnonzero(split.val_labels == 9)[:1]]
figure, grid = plt.subplots(len(layers), 11, figsize=(10, 1 * len(layers)))
for row, layer, maps in zip(grid, layers, all_maps.predict(normalize(boot), verbose=0), strict=True):
    row[0].set_ylabel(
        f"{layer.name}\n{maps.shape[1]} x {maps.shape[2]}", fontsize=8, rotation=0, ha="right", va="center"
    )
    row[0].imshow(boot[0], cmap="gray")
    for axes, feature_map in zip(row[1:], np.moveaxis(maps[0], 2, 0), strict=False):
        axes.imshow(feature_map, cmap="viridis")
    for axes in row:
        axes.set(xticks=[], yticks=[])
plt.show()

# %% [markdown]
# ## 4. What a feature stands for
#
# After the last convolution, the network keeps the highest value of each feature map: 128 numbers for an image, its **features**. The last layer computes the ten probabilities from these numbers alone.
#
# What does a feature stand for? Look at the images for which it is highest. Each row below is one feature with the eight validation images for which it is highest. Some are easy to name: the legs of trousers, the waist of a dress, straps, handles, the shaft of a boot. Others are not: what do the images of the second row have in common? Nobody told the network to have these features. It found that they help to tell the classes apart.

# %%
classifier = fmnist.Classifier.load(run)
outputs = classifier.outputs(split.val_images)
features, probabilities = outputs["features"], outputs["probabilities"]

# A row for each of six classes: the feature that is highest for it, compared with all images.
by_class = np.array([features[split.val_labels == label].mean(axis=0) for label in range(10)])
chosen = [int(np.argmax(by_class[label] - features.mean(axis=0))) for label in (1, 2, 3, 5, 8, 9)]

figure, grid = plt.subplots(len(chosen), 8, figsize=(8, 6.4))
for row, feature in zip(grid, chosen, strict=True):
    for axes, index in zip(row, np.argsort(-features[:, feature])[:8], strict=True):
        axes.imshow(split.val_images[index], cmap="gray")
        axes.set(xticks=[], yticks=[])
    row[0].set_ylabel(f"feature {feature}", fontsize=8, rotation=0, ha="right", va="center")
plt.show()

# %% [markdown]
# ## 5. A map of all images
#
# 128 numbers cannot be drawn. t-SNE is a method that places points in a plane so that images with similar features become neighbors. The axes have no meaning, and neither have distances between groups. Only who is next to whom counts.
#
# First the same for the pixels. Similar pixels do not make the same class: the tops are mixed.

# %%
shown = slice(2000)
names, labels = dataset.class_names, split.val_labels
axis_labels = ("t-SNE, first axis", "t-SNE, second axis")


def embed(rows):
    return TSNE(init="pca", random_state=0).fit_transform(rows)


plots.projection(embed(split.val_images[shown].reshape(-1, 784) / 255.0), labels[shown], names, axis_labels)

# %% [markdown]
# Now the features. Nearly every class has become a group of its own: this is what training has done. Between T-shirt/top, Shirt, Pullover and Coat there is no clear border. There the network is wrong most often.

# %%
plots.projection(embed(features[shown]), labels[shown], names, axis_labels)

# %% [markdown]
# ## 6. Why this answer?
#
# Cover a part of an image in black and ask the network again. If the probability of its answer falls, that part was important. Doing so for a patch at every place gives a **heat map**: red where the probability falls, blue where it rises.
#
# Five right answers first. The trousers are recognized by their lower legs, the dress by its hem: without it, it could be a shirt. The map of the sandal stays pale, because no single part is important: covered anywhere, it is still a sandal.

# %%
predicted = probabilities.argmax(axis=1)


def draw_heat_maps(indices):
    images = split.val_images[indices]
    captions = [
        f"{names[predicted[i]]}, {probabilities[i].max():.0%}\ntrue: {names[split.val_labels[i]]}" for i in indices
    ]
    return plots.heat_maps(images, occlusion_maps(classifier, images, predicted[indices]), captions)


right = predicted == split.val_labels
draw_heat_maps([np.flatnonzero(right & (predicted == label))[0] for label in (1, 3, 5, 8, 9)])

# %% [markdown]
# Now the five wrong answers with the highest probabilities. The heat maps show what misled the network, and sometimes that the label is questionable.

# %%
wrong = np.flatnonzero(~right)
draw_heat_maps(wrong[np.argsort(-probabilities[wrong].max(axis=1))[:5]])

# %% [markdown]
# ### Can you trust its probabilities?
#
# "Shirt, 70 %" should mean: of all such answers, 70 % are right. A **reliability diagram** shows whether this is so. Each point is a group of validation images with similar probabilities of the predicted class. On the dashed line the probabilities are exactly right. Above it the network is too cautious, below it too confident. The bar of a point is its 95 % interval. It is long where there are few images: a group of one image says nothing. Most images are in the group at the top right.

# %%
plots.reliability(metrics.calibration_bins(probabilities, split.val_labels))

# %% [markdown]
# ## 7. What makes `fast` fast?
#
# `fast` is a normal small network with some tricks. To measure what a trick brings, the repository has a benchmark (`benchmarks/ablation.py`). It trains `fast` without one trick, with all others, and compares the validation accuracy with that of the complete preset. It does so for several seeds, because the accuracy also changes by chance. The line around each point is the 95 % interval of the gain: if it crosses zero, the gain could be chance.

# %%
with fmnist.errors_as_text():
    ablation = json.loads(Path("../benchmarks/results/ablation.json").read_text())
    tricks = ablation["tricks"]
    print(f"fast, all tricks: validation accuracy {ablation['accuracy_mean']:.2%}, mean of {ablation['seeds']} seeds\n")
    print(f"{'trick':26}{'instead':31}{'gain in percentage points':>26}")
    for trick in tricks:
        low, high = trick["gain_interval_95"]
        print(f"{trick['title']:26}{trick['without']:31}{trick['gain_mean']:+10.2f}  ({low:+.2f} to {high:+.2f})")

# %% [markdown]
# The same as a figure. Only four of the nine tricks have an interval above zero. The others came with the recipe from which `fast` was made, where they helped. Here they may help a little, or not at all: eight seeds cannot tell. Measure before you believe.

# %%
with fmnist.errors_as_text():
    figure, axes = plt.subplots(figsize=(7, 3.6))
    for position, trick in enumerate(tricks):
        axes.plot(trick["gain_interval_95"], [position] * 2, color="#b8c4ce", linewidth=3)
        axes.plot(trick["gain_mean"], position, "o", color="#1f5f8b")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set(yticks=range(len(tricks)), yticklabels=[trick["title"] for trick in tricks])
    axes.set(xlabel="gain in validation accuracy, percentage points")
    axes.invert_yaxis()
    plt.show()

# %% [markdown]
# ## 8. The test, once
#
# All figures so far are from validation images. Now the 10,000 test images are used, once. `evaluate` also writes `report.html` into the folder of the run: open it in a browser. It has the curves, the confusion matrix, and the mistakes of each class with heat maps.

# %%
with fmnist.errors_as_text():
    evaluation = fmnist.evaluate(run, seed=0)
    low, high = evaluation["accuracy_interval_95"]
    print(
        f"{evaluation['num_images']:,} test images, accuracy {evaluation['accuracy']:.2%} (95 % interval {low:.2%} to {high:.2%})"
    )
    print(f"report.html: {(run.folder / 'report.html').stat().st_size / 1000:.0f} kB")

# %% [markdown]
# Two random test images, with the predicted and the true label:

# %%
samples = evaluation["samples"]
plots.samples(dataset.test_images[[sample["index"] for sample in samples]], samples, names)

# %% [markdown]
# ## 9. A photo
#
# A photo has colors, a background, and thousands of pixels. `classify` finds the garment and converts it to an image like those of the data set: cropped, 28 pixels along the longest edge, centered, bright on black. The model for photos comes with the package: `Classifier.load()` without a run. It has learned from real photos too, and a second network looks at the photo in color. Try it with a photo of your own.

# %%
photo_classifier = fmnist.Classifier.load()
with fmnist.errors_as_text():
    shirt = photo_classifier.classify("../docs/samples/t-shirt.jpg")

plots.prediction(shirt)

# %% [markdown]
# And if the photo shows no garment at all? A network with ten outputs must choose one of ten classes, often with a high probability. So the networks for photos have one more output: none of them. They have learned it from hats, skirts, and drawings of many other things. If no class is probable enough, the answer is "not sure".

# %%
with fmnist.errors_as_text():
    key = photo_classifier.classify("../docs/samples/key.jpg")
    print(f"{key.label}, probability {key.probability:.1%}, accepted: {key.accepted}, because it is {key.reason}")

# %% [markdown]
# ## 10. Use it in another program
#
# `model.onnx` is the complete model, in a format that many programs read: pixels in, probabilities out. This program needs ONNX Runtime and NumPy only, no Keras and no `fmnist`.

# %%
import onnxruntime

session = onnxruntime.InferenceSession(run.folder / "model.onnx")
results = dict(
    zip((output.name for output in session.get_outputs()), session.run(None, {"images": split.val_images[:1]}))
)

print("predicted:", names[results["probabilities"].argmax()], " true:", names[split.val_labels[0]])

# %% [markdown]
# A smaller file for small machines: `quantize_run` (in a terminal `fmnist export --int8`) stores the weights as integers of 8 bits. It checks itself on validation images: how many answers are still the same?

# %%
from fmnist.export.quantize import quantize_run

with fmnist.errors_as_text():
    record = quantize_run(run, dataset).int8
    print(f"model.onnx {run.onnx_path.stat().st_size / 1e6:.2f} MB, model-int8.onnx {record.bytes / 1e6:.2f} MB")
    print(f"the same answer for {record.same_top1:.1%} of {record.num_images:,} validation images")

# %% [markdown]
# ## 11. Go on
#
# * `config = fmnist.Config.from_preset("fast", flip=False)` trains without mirrored images. Train it, and compare its validation accuracy. Then compare `seed=1` and `seed=2` of the same preset: which difference is larger?
# * Draw the heat map of a photo of your own: `classify` returns `steps`, and the last step is its image of 28 x 28 pixels.
# * In a terminal: `fmnist demo` opens a page for photos, `fmnist train --preset best` reaches a higher accuracy in half an hour, and `fmnist --help` lists all commands.

# %% [markdown]
# # Build: a neural network for Fashion-MNIST
#
# In this notebook you build a program that looks at a small image of a garment and predicts what it is. You start with raw pixels and end with a convolutional neural network that is right for about nine of ten images.
#
# You need to know some Python. You do not need to know anything about neural networks: every idea is explained where it is used, with a figure. The code uses Keras (networks), NumPy (arrays), Matplotlib (figures) and Python's standard library, and nothing else.
#
# Run the cells from top to bottom. All of it takes about two minutes on two CPU cores. At the end there are six exercises with the results to expect.

# %%
import os
import re
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np

keras.utils.set_random_seed(0)  # the same random numbers in every run
BLUE, ORANGE = "#1f5f8b", "#d95f02"
print("Keras", keras.__version__, "with", keras.backend.backend())

# %% [markdown]
# Keras does the computing with a second library, its *backend*. If TensorFlow is the backend, it may print lines about "oneDNN", "absl" or "cuda" here. They are not errors.
#
# Real errors happen too: a file is missing, an array has the wrong shape. A block that starts with `with errors_as_text():` prints an error as text, and the notebook goes on. Here is one, a product of two matrices whose shapes do not fit:


# %%
@contextmanager
def errors_as_text():
    try:
        yield
    except Exception as error:
        text = re.sub(r"\x1b\[\d+m", "", str(error))  # without the codes for bold text
        print(f"Error: {type(error).__name__}: {' '.join(text.split())}")


with errors_as_text():
    np.zeros((2, 3)) @ np.zeros((2, 3))

# %% [markdown]
# ## 1. Load the data
#
# Fashion-MNIST has 70,000 gray images of clothes, 28 by 28 pixels each, in ten classes. Keras downloads them once (30 MB) and returns two pairs of arrays. The assignment unpacks them into four names: `x` stands for images, `y` for their **labels**, the numbers of the true classes.
#
# * **Training data**: 60,000 images with their labels. The network learns from these.
# * **Test data**: 10,000 images with their labels. They are used once, at the end. A network is meant for images that it has never seen, so only such images show how good it is.

# %%
with errors_as_text():
    (x_train, y_train), (x_test, y_test) = keras.datasets.fashion_mnist.load_data()

# %% [markdown]
# If the computer with the data cannot be reached, the next cell says what to do. Otherwise it prints how many images there are.

# %%
if "x_train" in globals():
    print(f"{len(x_train):,} training images and {len(x_test):,} test images are loaded.")
else:
    home = Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser()
    print(f"""The data is missing, because its host cannot be reached from here. What to do:

* Kaggle: turn on "Internet" in the settings of the notebook.
* Debian, Ubuntu: sudo apt install dataset-fashion-mnist
  Then copy the four files /usr/share/datasets/fashion-mnist/*.gz into {home / "datasets" / "fashion-mnist"}
* Elsewhere: download the four files *.gz in data/fashion of https://github.com/zalandoresearch/fashion-mnist
  with another computer, and copy them into the same folder.

Then run the cell above again. Without data, the cells below end with a NameError.""")

# %% [markdown]
# ## 2. Explore
#
# An array has a *shape* (its length along each axis) and a *dtype* (the type of its numbers). `uint8` is a whole number from 0 to 255 in one byte.

# %%
for name, array in {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}.items():
    print(f"{name:8} shape {array.shape!s:16} dtype {array.dtype}, from {array.min()} to {array.max()}")

# %% [markdown]
# An image is 28 x 28 whole numbers from 0 (black) to 255 (white). These 784 numbers are its **features**: they are all that the network gets. Here is one image as you see it, and a part of it as the network gets it.

# %%
CLASSES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]


def show(axes, image, title="", **options):
    axes.imshow(image, cmap="gray", **options)
    axes.set_title(title, fontsize=9)
    axes.axis("off")


def write_numbers(axes, numbers, bright):
    for (row, column), number in np.ndenumerate(numbers):
        axes.text(column, row, number, ha="center", va="center", color="black" if number > bright else "white")


figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.8))
show(left, x_train[0], f"label {y_train[0]}: {CLASSES[y_train[0]]}")
left.add_patch(plt.Rectangle((13.5, 5.5), 8, 8, fill=False, color=ORANGE, linewidth=2))
show(right, x_train[0, 6:14, 14:22], "the part in the orange frame", vmin=0, vmax=255)
write_numbers(right, x_train[0, 6:14, 14:22], bright=128)
plt.show()

# %% [markdown]
# Ten examples of each class, and how many images each class has. All classes have the same number. So a program that always predicts Bag is right for 10 % of the images. Any network has to do better than that.

# %%
rows = [np.hstack(x_train[y_train == label][:10]) for label in range(10)]
figure, axes = plt.subplots(figsize=(6, 6))
axes.imshow(np.vstack(rows), cmap="gray")
axes.set(xticks=[], yticks=14 + 28 * np.arange(10), yticklabels=[f"{i}  {name}" for i, name in enumerate(CLASSES)])
plt.show()
print("training images in each class:", np.bincount(y_train))

# %% [markdown]
# The mean image of each class. Compare Pullover, Coat and Shirt: their outlines are nearly the same. This will explain a result at the end.

# %%
figure, grid = plt.subplots(2, 5, figsize=(8, 3.6))
for label, axes in enumerate(grid.flat):
    show(axes, x_train[y_train == label].mean(axis=0), CLASSES[label])
plt.show()

# %% [markdown]
# ## 3. Transform
#
# Three changes prepare the data for a network.
#
# * **Type and range.** Networks learn best from small floating-point numbers: larger pixels make larger gradients (section 5 shows the formula), and the steps would be too long for the usual learning rates. So `uint8` from 0 to 255 becomes `float32` from 0 to 1. This is called *normalization*.
# * **Channel axis.** Layers for images expect height, width and channels. A color image has three channels (red, green and blue), a gray image has one. So 28 x 28 becomes 28 x 28 x 1.
# * **One-hot labels.** The label 9 is not "more" than 3: the numbers are names, not amounts. So label 3 becomes ten numbers, all 0 except a 1 at position 3. The network predicts ten numbers too, one probability for each class. Then prediction and label can be compared number by number.


# %%
def transform(images):
    return images.astype("float32")[..., np.newaxis] / 255


one_hot = keras.utils.to_categorical(y_train, 10)

for name, images in {"before": x_train[:1], "after": transform(x_train[:1])}.items():
    print(f"{name:7} shape {images.shape!s:14} dtype {images.dtype!s:8} from {images.min()} to {images.max()}")
print(f"label {y_train[0]} becomes {one_hot[0]}")

# %% [markdown]
# Last, one in twelve training images, chosen at random, is set aside for **validation**: 5,000 images. The network does not learn from them. During training they show how good it is on other images. Every decision (which network, how many epochs) is made with validation images. If you compare many networks on the same images and choose the best, it is the best partly by chance, and its accuracy on these images is a little too high. So the final result needs images that no decision has used: the test images.

# %%
order = np.random.default_rng(0).permutation(len(x_train))
validation, train = np.split(order, [len(order) // 12])
train_images, train_labels = transform(x_train[train]), one_hot[train]
val_images, val_labels = transform(x_train[validation]), one_hot[validation]
print(f"{len(train_images):,} images for training, {len(val_images):,} for validation")

# %% [markdown]
# ## 4. How a network learns
#
# ### Gradient descent
#
# A network is a formula with many numbers that can be changed, its **weights**. They start as small random numbers. To learn means to find good weights.
#
# The **loss** measures how wrong the predictions are: the smaller, the better. Imagine a landscape. Your position is the weights, and the height is the loss. You want to go down, but there is fog: you know only the slope where you stand, the **gradient**. So you take a step downhill, look at the slope again, and take the next step. That is **gradient descent**.
#
# In the figure there is a single weight. It starts at -1, and the loss is smallest at 2. Each orange line has the slope of the curve at one point, and each arrow is a step. Where the slope is steep the step is long, near the lowest point the steps become short.


# %%
def loss_at(weight):
    return (weight - 2) ** 2


def gradient_at(weight):
    return 2 * (weight - 2)  # the derivative of the loss


def descend(learning_rate, steps):
    weights = [-1.0]
    for _ in range(steps):
        weights.append(weights[-1] - learning_rate * gradient_at(weights[-1]))
    return np.array(weights)


all_weights = np.linspace(-3, 7, 100)
path = descend(learning_rate=0.25, steps=3)

figure, axes = plt.subplots(figsize=(6, 3.8))
axes.plot(all_weights, loss_at(all_weights), color="lightgray", linewidth=3)
for weight, next_weight in pairwise(path):
    height, nearby = loss_at(weight), weight + np.array([-0.8, 0.8])
    axes.plot(nearby, height + gradient_at(weight) * (nearby - weight), color=ORANGE)
    axes.annotate("", (next_weight, height), (weight, height), arrowprops={"arrowstyle": "->", "color": BLUE})
    axes.plot([next_weight, next_weight], [height, loss_at(next_weight)], color=BLUE, linestyle=":")
axes.plot(path, loss_at(path), "o", color=BLUE)
axes.annotate("start", (path[0] - 0.3, loss_at(path[0])), ha="right", va="top", color=BLUE)
axes.set(xlabel="weight", ylabel="loss", xlim=(-3, 7), ylim=(-1.5, 14.5))
plt.show()

# %% [markdown]
# ### Learning rate
#
# The gradient points uphill. So a step subtracts it from the weight, multiplied by a number, the **learning rate**. You choose this number. The next figure has twelve steps from the same start with three learning rates.

# %%
figure, panels = plt.subplots(1, 3, figsize=(10, 3), sharey=True)
for axes, (learning_rate, judgment) in zip(panels, {0.02: "too small", 0.2: "good", 1.02: "too large"}.items()):
    path = descend(learning_rate, steps=12)
    axes.plot(all_weights, loss_at(all_weights), color="lightgray")
    axes.plot(path, loss_at(path), "o-", color=BLUE, linewidth=1)
    axes.plot(path[0], loss_at(path[0]), "o", color=ORANGE, label="start")
    axes.set(title=f"learning rate {learning_rate}: {judgment}", xlabel="weight", xlim=(-3, 7), ylim=(-1, 26))
panels[0].set_ylabel("loss")
panels[0].legend(loc="upper center")
plt.show()

# %% [markdown]
# If it is too small, the weight hardly changes. If it is too large, each step goes past the lowest point and ends higher than it started, so the loss grows.
#
# A real network has thousands of weights, and a gradient with one number for each of them. Keras computes it (the method is called *backpropagation*). The part of Keras that changes the weights is called the **optimizer**. The one used here, **Adam**, also adapts the length of the steps to each weight during training. But even Adam needs a learning rate that fits.
#
# ## 5. First baseline: a linear model
#
# Start with something simple. It shows how much a larger network gains. Such a first result is called a **baseline**.
#
# The simplest network is a weighted sum. For each class, each pixel has a weight: multiply each pixel by its weight, and add up. Ten classes give ten sums. **Softmax** turns the ten sums into ten probabilities: all are positive, together they are 1, and the largest sum has the largest probability.
#
# The loss of an image is `-log(p)`, with the natural logarithm, where `p` is the probability that the network gives to the true class. If `p` is 1, the loss is 0. If `p` is 0.1, a guess among ten classes, the loss is 2.3. The smaller `p`, the larger the loss. Its name is **categorical cross-entropy**.
#
# ### Batches
#
# The gradient could be computed from all 55,000 training images, but that takes long for a single step. So each step uses a small random group of images, a **batch**. The next cell trains the weighted sum in NumPy, with small and with large batches. Its weights start at 0, which is a guess: all probabilities are 0.1. For this network the gradient is a short formula: the pixels times the error, which is the predicted probability minus the label.


# %%
def softmax(sums):
    exponentials = np.exp(sums - sums.max(axis=1, keepdims=True))  # the difference prevents overflow
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def loss_per_step(batch_size, steps=150, learning_rate=0.02):
    rng = np.random.default_rng(0)
    pixels = train_images.reshape(-1, 784)
    weights, losses = np.zeros((784, 10)), []
    for _ in range(steps):
        batch = rng.choice(len(pixels), batch_size)
        predicted, labels = softmax(pixels[batch] @ weights), train_labels[batch]
        losses.append(-np.log(predicted[labels == 1]).mean())
        gradient = pixels[batch].T @ (predicted - labels) / batch_size
        weights -= learning_rate * gradient
    return losses


figure, axes = plt.subplots(figsize=(7, 3.2))
axes.plot(loss_per_step(batch_size=8), color=ORANGE, linewidth=1, label="batches of 8 images")
axes.plot(loss_per_step(batch_size=512), color=BLUE, linewidth=2, label="batches of 512 images")
axes.set(xlabel="step", ylabel="loss of the batch", ylim=(0, 3))
axes.legend()
plt.show()

# %% [markdown]
# Both curves start at 2.3 and fall. With 8 images the loss changes much from step to step, because each batch has other images and 8 images say little about all. With 512 images the curve is smooth, but each step takes 64 times as many images. The usual choice is in between: here it is 128.
#
# ### The same in Keras
#
# From now on, Keras takes the steps: `compile` chooses the optimizer, the loss and the metrics, and `fit` trains. It returns the values of loss and metrics after each epoch; those of the validation images have names with `val_`.
#
# An **epoch** is one pass over all training images: with batches of 128 it has 430 steps. The loss is for the optimizer, the **metrics** are for us. *Accuracy* is the fraction of images whose most probable class is the true one. It cannot replace the loss: if a weight changes a little, all probabilities change a little, but the most probable class usually stays the same. So accuracy has no slope to follow. Precision and recall are explained in section 9.
#
# `Flatten` turns an image into a list of 784 numbers. `Dense` is the weighted sum: it also adds a number of its own to each sum, the **bias**. Weights and biases together are the **parameters**, the numbers to learn: 784 x 10 + 10 = 7,850.


# %%
def train_network(network, epochs, num_images=None, batch_size=128, learning_rate=0.001, callbacks=()):
    network.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss="categorical_crossentropy",
        metrics=["accuracy", keras.metrics.Precision(name="precision"), keras.metrics.Recall(name="recall")],
    )
    fitted = network.fit(
        train_images[:num_images],
        train_labels[:num_images],
        batch_size=batch_size,
        epochs=epochs,
        validation_data=(val_images, val_labels),
        validation_batch_size=1000,  # no steps are taken here, so the size changes only the speed
        callbacks=list(callbacks),
        verbose=0,
    )
    return fitted.history


linear = keras.Sequential(
    [
        keras.Input((28, 28, 1)),
        keras.layers.Flatten(),
        keras.layers.Dense(10, activation="softmax"),
    ]
)
scores = {"linear model": train_network(linear, epochs=3)["val_accuracy"][-1]}
print(
    f"linear model: {scores['linear model']:.1%} of the validation images are right, {linear.count_params():,} parameters"
)

# %% [markdown]
# More than eight of ten, from a weighted sum. Its weights can be drawn as images. A bright pixel in the figure is a positive weight: if this pixel is bright in the image, the sum of the class grows. A dark pixel is a negative weight. Gray is a weight near 0. In Trouser, the dark line is the gap between the legs.

# %%
figure, grid = plt.subplots(2, 5, figsize=(8, 3.6))
weights = linear.layers[-1].get_weights()[0].reshape(28, 28, 10)
for label, axes in enumerate(grid.flat):
    limit = np.abs(weights[..., label]).max()
    show(axes, weights[..., label], CLASSES[label], vmin=-limit, vmax=limit)
plt.show()

# %% [markdown]
# ## 6. Second baseline: a hidden layer, and why it needs ReLU
#
# Can a second layer of weighted sums improve the result? Not alone: a weighted sum of weighted sums is again a weighted sum. Something else has to happen between the two layers. **ReLU** is the simplest choice: it replaces negative numbers by 0 and keeps positive numbers. Its curve has a kink at 0, on the left. If you add several ReLUs with different weights and biases, the sum has several kinks, at different places. So it can approximate a curve, on the right, the better the more ReLUs there are.

# %%
x = np.linspace(-3, 3, 200)


def relu(values):
    return np.maximum(0, values)


figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3))
left.plot(x, relu(x), color=BLUE)
left.set(title="ReLU", xlabel="input", ylabel="output")
right.plot(x, x**2, color="lightgray", linewidth=6, label="a curve")
right.plot(x, relu(x) + 3 * relu(x - 1) + relu(-x) + 3 * relu(-x - 1), color=ORANGE, label="sum of four ReLUs")
right.legend()
right.set(title="a sum of ReLUs approximates a curve", xlabel="input")
plt.show()

# %% [markdown]
# The layer between input and output is called a **hidden layer**. Here it has 128 **units**: 128 weighted sums, each followed by ReLU. Such a network is called a multilayer perceptron (MLP).

# %%
mlp = keras.Sequential(
    [
        keras.Input((28, 28, 1)),
        keras.layers.Flatten(),
        keras.layers.Dense(128, activation="relu"),
        keras.layers.Dense(10, activation="softmax"),
    ]
)
scores["MLP"] = train_network(mlp, epochs=4)["val_accuracy"][-1]
print(f"MLP: {scores['MLP']:.1%} of the validation images are right, {mlp.count_params():,} parameters")

# %% [markdown]
# Better. But both networks treat the pixels as a list: which pixels are neighbors is not part of the formula. If the garment is shifted by three pixels, each of its pixels meets another weight. Exercise 4 shows how much that costs.
#
# ## 7. Convolution
#
# A **convolution** moves a small window over the image. At each place it multiplies each of the nine pixels in the window by the weight at the same position in a **filter**, and adds up the nine products. The result is a new image, a **feature map**. It is bright where the pixels are bright under positive weights and dark under negative ones. The same nine weights are used at each place, so a pattern is found wherever it is.
#
# Here is one, written out in NumPy. This filter finds upper edges: dark above, bright below. The orange frame is the window at one place, and the orange square is its result. Then ReLU replaces negative results by 0, and **max pooling** keeps the largest of each 2 x 2 values: less to compute, and the exact position of a pattern matters less.


# %%
def convolve(image, kernel):
    result = np.zeros((26, 26))  # a window of 3 x 3 fits into 28 x 28 pixels at 26 x 26 places
    for row in range(26):
        for column in range(26):
            result[row, column] = (image[row : row + 3, column : column + 3] * kernel).sum()
    return result


def max_pool(feature_map):
    return feature_map.reshape(13, 2, 13, 2).max(axis=(1, 3))


kernel = np.array([[-1, -1, -1], [0, 0, 0], [1, 1, 1]])
image = np.round(x_train[0] / 255, 1)
feature_map = relu(convolve(image, kernel))
row, column = np.unravel_index(feature_map.argmax(), feature_map.shape)
window = image[row : row + 3, column : column + 3]

figure, panels = plt.subplots(1, 5, figsize=(12, 3), width_ratios=(28, 16, 16, 26, 26))
show(panels[0], image, "image\n28 x 28")
show(panels[1], window, "window\n3 x 3", vmin=0, vmax=1)
show(panels[2], kernel, "filter\n3 x 3")
show(panels[3], feature_map, "feature map after ReLU\n26 x 26")
show(panels[4], max_pool(feature_map), "after max pooling\n13 x 13")
write_numbers(panels[1], window, bright=0.5)
write_numbers(panels[2], kernel, bright=-0.5)
panels[0].add_patch(plt.Rectangle((column - 0.5, row - 0.5), 3, 3, fill=False, color=ORANGE, linewidth=2))
panels[3].add_patch(plt.Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, color=ORANGE, linewidth=2))
plt.show()
print(f"window times filter, added up: {(window * kernel).sum():.1f}")

# %% [markdown]
# You do not have to design the filters of a network. Their weights are learned by gradient descent, like all others.
#
# ## 8. Build the network with `Sequential`
#
# `Sequential` is a stack of layers: the output of one layer is the input of the next.
#
# * `Conv2D(32, 3)` has 32 filters of 3 x 3 weights: 32 feature maps. They find simple patterns, such as edges.
# * The second `Conv2D` has 64 filters, which look at all 32 feature maps. They find patterns of patterns, such as corners and stripes.
# * `MaxPooling2D(2)` halves height and width.
# * `Dropout(0.5)` sets a random half of the values to 0 in each training step, so that the network does not depend on single values. Outside training it does nothing.
# * `Dense` with softmax computes the ten probabilities.


# %%
def build_cnn(filters=32, dropout=0.5):
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Conv2D(filters, 3, activation="relu"),
            keras.layers.MaxPooling2D(2),
            keras.layers.Conv2D(2 * filters, 3, activation="relu"),
            keras.layers.MaxPooling2D(2),
            keras.layers.Flatten(),
            keras.layers.Dropout(dropout),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )


network = build_cnn()
network.summary()

# %% [markdown]
# The table shows the shape of the output of each layer. `None` stands for the number of images, which can be any. A window of 3 x 3 fits into 28 pixels at 26 places, so a convolution takes 2 pixels off height and width. Pooling halves them and rounds down.
#
# Check the parameters of the two convolutions. A filter of the first has 3 x 3 weights and a bias: 32 x (9 + 1) = 320. A filter of the second has 3 x 3 weights for each of the 32 feature maps, and a bias: 64 x (32 x 9 + 1) = 18,496. A unit in the hidden layer of the MLP has a weight for each of the 784 pixels. A filter of the first convolution has only nine weights, and uses them again at each place. So this convolutional neural network (CNN) has a third of the parameters of the MLP.
#
# ## 9. Train the network, and watch
#
# Besides accuracy, two more metrics are drawn. For each of the ten probabilities of an image, Keras checks whether it is above 0.5. If so, it counts as a **positive prediction** of that class. It is right if that is the true class.
#
# * **Precision**: the fraction of all positive predictions that are right.
# * **Recall**: the fraction of all images whose true class has a positive prediction.
#
# A **callback** is an object whose methods Keras calls during training. This one draws the curves again after each epoch. (`display` is a function that each notebook has. A figure with an id can be replaced by a newer one.)


# %%
def draw_curves(history, names):
    figure, panels = plt.subplots(1, len(names), figsize=(10, 3), layout="constrained")
    epochs = range(1, len(history["loss"]) + 1)
    for axes, name in zip(panels, names):
        axes.plot(epochs, history[name], ".-", color=BLUE, label="training")
        axes.plot(epochs, history[f"val_{name}"], ".-", color=ORANGE, label="validation")
        axes.set(title=name, xlabel="epoch")
        axes.locator_params(axis="x", integer=True)
        axes.grid(alpha=0.3)
    panels[0].legend()
    return figure


class LiveCurves(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.history, self.handle = {}, None

    def on_epoch_end(self, epoch, logs=None):
        for name, value in logs.items():
            self.history.setdefault(name, []).append(value)
        figure = draw_curves(self.history, ["accuracy", "precision", "recall"])
        if self.handle is None:
            self.handle = display(figure, display_id=True)
        else:
            self.handle.update(figure)
        plt.close(figure)


with errors_as_text():
    history = train_network(network, epochs=10, callbacks=[LiveCurves()])
    scores["CNN"] = history["val_accuracy"][-1]

# %%
for name, score in scores.items():
    print(f"{name:13} {score:.1%} of the validation images are right")

# %% [markdown]
# The CNN is the best of the three, with a third of the MLP's parameters. One thing in the curves looks wrong and is not: **validation is above training**, for two reasons. Dropout is active only in training, so the training values are those of a network with half of the values in one layer missing. And a training value is a mean over the epoch, in which the network was still improving, while validation comes after it.
#
# ## 10. Why precision and recall differ
#
# In the curves, precision is above recall. At most one of the ten probabilities of an image can be above 0.5, so there is at most one positive prediction for each image. Both metrics count the right ones. Precision divides their number by the number of positive predictions, recall by the number of images. They differ because of images without any probability above 0.5.
#
# The figure shows such an image: of all validation images, it is the one whose largest probability is the smallest. It has no positive prediction. So it has none that is wrong: precision does not change. But the positive prediction of its true class is missing: recall falls.
#
# The limit of 0.5 is a choice. On the right are precision and recall for other limits. With a higher limit there are fewer positive predictions: a larger part of them is right, but more true classes are missed. With a lower limit an image can have several positive predictions, and precision falls below recall. To increase both, the network itself has to become better.

# %%
probabilities = network.predict(val_images, verbose=0)
undecided = probabilities.max(axis=1).argmin()

thresholds = np.linspace(0.05, 0.95, 91)
positive = [probabilities > threshold for threshold in thresholds]
precision = [(one & (val_labels == 1)).sum() / one.sum() for one in positive]
recall = [(one & (val_labels == 1)).sum() / len(val_labels) for one in positive]

figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.2), width_ratios=(2, 3, 3), layout="constrained")
show(left, val_images[undecided, ..., 0], f"true: {CLASSES[val_labels[undecided].argmax()]}")
middle.barh(CLASSES, probabilities[undecided], color=BLUE)
middle.axvline(0.5, color="gray", linestyle=":")
middle.set(xlim=(0, 1), xlabel="probability")
middle.invert_yaxis()
right.plot(thresholds, precision, color=BLUE, label="precision")
right.plot(thresholds, recall, color=ORANGE, label="recall")
right.axvline(0.5, color="gray", linestyle=":", label="Keras' limit")
right.set(xlabel="limit", ylabel="fraction", ylim=(0.4, 1.02))
right.legend(loc="lower left")
plt.show()
print(f"{(probabilities.max(axis=1) <= 0.5).sum()} of {len(val_images):,} images have no probability above 0.5")

# %% [markdown]
# ## 11. Overfitting
#
# A network can memorize its training images, with all that is accidental in them. Then it predicts these well, and others no better. To see it quickly, we train a network without dropout, on only 1,000 images, for 30 epochs.

# %%
memorizing = build_cnn(dropout=0)
few = train_network(memorizing, epochs=30, num_images=1000, batch_size=16)
draw_curves(few, ["loss", "accuracy"])
plt.show()

# %% [markdown]
# The training curves approach the best possible values, a loss of 0 and an accuracy of 1. The validation curves part from them after a few epochs. Validation accuracy stays near 80 %. Validation loss even grows, from 0.6 after a few epochs to 0.9 at the end: the network gives smaller and smaller probabilities to the true classes that it misses. This is **overfitting**. Here the training curves are the better ones: there is no dropout, and the network has memorized these images. What helps: more training images, dropout, small random changes to the images, and fewer epochs.
#
# ## 12. Evaluate on the test images
#
# All decisions are made. Now the test images are used, and after this nothing in the network is changed.

# %%
with errors_as_text():
    results = network.evaluate(transform(x_test), keras.utils.to_categorical(y_test, 10), verbose=0, return_dict=True)
    for name, value in results.items():
        print(f"test {name:10} {value:.3f}")

# %% [markdown]
# This is the result to report. It is close to the result on the validation images. Both are images that the network has not learned from.
#
# ### Two random test images
#
# What does the network predict for two images that it has never seen? The true class is green. Run the cell again for two others.

# %%
test_probabilities = network.predict(transform(x_test), verbose=0)
test_predicted = test_probabilities.argmax(axis=1)

chosen = np.random.default_rng().choice(len(x_test), size=2, replace=False)
figure, grid = plt.subplots(1, 4, figsize=(12, 3), width_ratios=(2, 3, 2, 3), layout="constrained")
for (left, right), index in zip(grid.reshape(2, 2), chosen):
    true, predicted = y_test[index], test_predicted[index]
    show(left, x_test[index], f"true: {CLASSES[true]}\npredicted: {CLASSES[predicted]}")
    right.barh(
        CLASSES, test_probabilities[index], color=["green" if name == CLASSES[true] else "gray" for name in CLASSES]
    )
    right.set(xlim=(0, 1), xlabel="probability")
    right.invert_yaxis()
plt.show()

# %% [markdown]
# ### Why is Shirt hard?
#
# The **confusion matrix** counts the test images by their true class (row) and predicted class (column). On the diagonal are the right predictions. Each row adds up to 1,000, because there are 1,000 test images of each class.
#
# Below the matrix are precision and recall of each class, now from the most probable class instead of the limit 0.5. *Precision of Shirt* is the fraction of all images predicted as Shirt that are shirts: the number on the diagonal, divided by the sum of its column. *Recall of Shirt* is the fraction of all shirts that are predicted as Shirt: the same number, divided by the sum of its row.

# %%
confusion = np.zeros((10, 10), int)
np.add.at(confusion, (y_test, test_predicted), 1)

figure, axes = plt.subplots(figsize=(7, 6))
axes.imshow(np.sqrt(confusion), cmap="Blues")
for (row, column), count in np.ndenumerate(confusion):
    if count:
        color = "white" if count > confusion.max() / 3 else "black"
        axes.text(column, row, count, ha="center", va="center", fontsize=8, color=color)
axes.set(xticks=range(10), yticks=range(10), xlabel="predicted class", ylabel="true class", yticklabels=CLASSES)
axes.set_xticklabels(CLASSES, rotation=45, ha="right")
plt.show()

with errors_as_text():
    correct = confusion.diagonal()
    for label, name in enumerate(CLASSES):
        of_predicted, of_true = correct[label] / confusion[:, label].sum(), correct[label] / confusion[label].sum()
        print(f"{name:12} precision {of_predicted:5.1%}   recall {of_true:5.1%}")

# %% [markdown]
# Shirt has the lowest precision and the lowest recall by far. Follow its row: nearly all of its mistakes are T-shirt/top, Coat, Pullover and Dress, the other garments for the upper body. Go back to the mean images in section 2: those of Pullover, Coat and Shirt have nearly the same outline. What makes a shirt a shirt, its buttons and its collar, is often lost at 28 x 28 pixels.
#
# People find it hard too. The authors of the data set report that people without expertise in fashion, by the majority of three votes, agree with the labels of 1,000 test images in 83.5 % of all cases ([source](https://github.com/zalandoresearch/fashion-mnist)). The labels come from the catalog of a shop, which describes a garment in more detail than the image shows.
#
# Here are shirts with a wrong prediction. Would you have recognized them?

# %%
wrong = np.flatnonzero((y_test == 6) & (test_predicted != 6))[:10]
figure, grid = plt.subplots(2, 5, figsize=(8, 4))
for axes, index in zip(grid.flat, wrong):
    show(axes, x_test[index], f"predicted:\n{CLASSES[test_predicted[index]]}")
plt.show()

# %% [markdown]
# ## 13. An error, as text
#
# The network expects a batch of transformed images. If it gets a single image as it was loaded, there is no batch axis and no channel axis. The text names both shapes, the expected one and the given one. `None` again stands for any number of images.

# %%
with errors_as_text():
    network.predict(x_test[0], verbose=0)

with errors_as_text():
    prediction = network.predict(transform(x_test[:1]), verbose=0)
    print("with a batch of one transformed image:", CLASSES[prediction.argmax()])

# %% [markdown]
# ## 14. Exercises
#
# First write down what you expect. Then write the code in a new cell, and run it. All exercises use validation images. Each result below is from one run; yours will differ a little, because the initial weights are random.
#
# 1. **Learning rate.** `train_network(build_cnn(), epochs=2, learning_rate=0.3)["val_accuracy"]`. *Result: about 10 %, no better than a guess. The steps are too large. With the learning rate 0.001, two epochs reach more than 86 %.*
# 2. **No ReLU.** Train the MLP of section 6 without `activation="relu"`. *Result: 85 % instead of 87 %, not much better than the linear model with its 84 %, in spite of 13 times as many parameters.*
# 3. **No dropout.** Train `build_cnn(dropout=0)` for 10 epochs, and draw the loss and the accuracy with `draw_curves`. *Result: now training is above validation, with an accuracy of 92 % against 91 %, and the distance grows. Validation is as good as with dropout: with 55,000 images, 10 epochs are not enough for much overfitting.*
# 4. **Shifted images.** `shifted = np.roll(val_images, 3, axis=2)` shifts all validation images by three pixels to the right. Evaluate the three networks on them: `linear.evaluate(shifted, val_labels, return_dict=True)`, and so on. *Result: the linear model falls from 84 to 29 %, the MLP from 87 to 24 %, the CNN from 90 to 54 %. The convolutions find their patterns anywhere, but the last layer has a weight for each position.*
# 5. **Fewer images.** `train_network(build_cnn(), epochs=10, num_images=5000)["val_accuracy"]`. *Result: 83 % instead of 90 %. There are fewer images to learn from, and only 40 steps per epoch instead of 430.*
# 6. **More filters.** Train `build_cnn(filters=64)` for 5 epochs. It takes a few minutes. *Result: 90 % instead of 88 % after the fifth epoch, with three times as many parameters, but each epoch takes three to four times as long.*
#
# To go on: the package `fmnist`, in the same repository as this notebook, trains a stronger CNN with one command. Its README says how.

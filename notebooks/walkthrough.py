# %% [markdown]
# # Fashion-MNIST, from pixels to an honest answer
#
# 70,000 small grey pictures of clothes, ten classes, and one question: which class is a picture that the network has never seen?
# We load the data, look at it, get it ready, build a convolutional neural network, watch it learn, and test it. All of it runs on a laptop in a few minutes.
#
# Run the cells from top to bottom. The first half is plain Keras, written out. The second half lets the package `fmnist` do the same steps with a stronger network.

# %% [markdown]
# ## 1. Packages
#
# Keras builds and trains networks, NumPy holds the arrays, Matplotlib draws. TensorFlow, which Keras computes with, may greet you with a line or two about "oneDNN": that is no error.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

import fmnist
from fmnist import metrics, plots
from fmnist.data import dataset as data
from fmnist.evaluation import explore
from fmnist.inference import photo

# %matplotlib inline

# %% [markdown]
# Whatever goes wrong in a block that begins with `fmnist.errors_as_text()` is printed as one line of text, and the next cell still runs. Here is what that looks like:

# %%
with fmnist.errors_as_text():
    fmnist.load("a/folder/that/does/not/exist")

# %% [markdown]
# ## 2. Load
#
# `fmnist.load()` finds the data set or fetches it, checks every byte, and leaves the files where Keras looks for them. So the next line works without a network, and cannot fall for a damaged download.

# %%
with fmnist.errors_as_text():
    dataset = fmnist.load()

# %%
(x_train, y_train), (x_test, y_test) = keras.datasets.fashion_mnist.load_data()

x_train.shape, y_train.shape, x_test.shape, y_test.shape

# %% [markdown]
# The **training** part is for learning. The **test** part is put away until the very end: a network that has seen the exam beforehand proves nothing.

# %% [markdown]
# ## 3. Explore
#
# What is one picture? 28 x 28 whole numbers from 0 (black) to 255 (white). What is one label? A number from 0 to 9.

# %%
(
    x_train.dtype,
    x_train.min(),
    x_train.max(),
    y_train[:10],
    [dataset.class_names[label] for label in y_train[:3]],
)

# %% [markdown]
# A dozen examples of every class:

# %%
plots.examples(x_train, y_train, dataset.class_names)

# %% [markdown]
# Is every class equally frequent? If one made up 90 % of the pictures, a network that always names it would look 90 % accurate.

# %%
summary = explore.summarise(dataset)
plots.class_counts({name: part["class_counts"] for name, part in summary["parts"].items()}, dataset.class_names)

# %% [markdown]
# The mean picture of every class. Look at Pullover, Coat and Shirt: nearly the same outline. Remember it; it will matter.

# %%
plots.class_means(x_train, y_train, dataset.class_names)

# %% [markdown]
# Half of all pixels are background. (The vertical axis is logarithmic.)

# %%
plots.pixel_histogram(summary["pixel_histogram"])

# %% [markdown]
# And each picture as a single point: principal component analysis finds the two directions in which the 784 pixel values vary most. Shoes, trousers and tops part by themselves. The tops lie on top of each other.

# %%
plots.projection(explore.project(x_train[:3000]), y_train[:3000], dataset.class_names)

# %% [markdown]
# ## 4. Transform
#
# First we set some training pictures aside for **validation**: they tell us during training how the network does on pictures that it does not learn from. *Stratified* means that every class gives its share.

# %%
parts = data.split(dataset, seed=0)
len(parts.train_images), len(parts.val_images)

# %% [markdown]
# Then three changes:
#
# * **Type and range.** Networks compute with small floating-point numbers: whole numbers from 0 to 255 become `float32` from 0 to 1.
# * **Channel axis.** Convolutions expect (height, width, channels). A grey picture has one channel, so 28 x 28 becomes 28 x 28 x 1.
# * **One-hot labels.** The classes have no order: "9" is not more than "3". So label 3 becomes a row of ten numbers, all 0 but a 1 at position 3. That is also the shape of the network's answer, ten probabilities, and the two can be compared number by number.


# %%
def transform(images):
    return images.astype("float32")[..., np.newaxis] / 255


train_images, train_labels = transform(parts.train_images), keras.utils.to_categorical(parts.train_labels, 10)
val_images, val_labels = transform(parts.val_images), keras.utils.to_categorical(parts.val_labels, 10)

train_images.shape, train_images.dtype, train_labels.shape

# %% [markdown]
# Before and after, for the first picture. It looks the same: only the scale beside it has changed.

# %%
plots.transformation(parts.train_images[0], train_images[0], int(parts.train_labels[0]), train_labels[0])

# %% [markdown]
# ## 5. Build
#
# `Sequential` is a stack: what one layer gives, the next one takes.
#
# * `Conv2D` slides small filters over the picture, each looking for one pattern: an edge, a corner, later a collar.
# * `MaxPooling2D` keeps the strongest response of every 2 x 2 square: smaller, and less particular about where exactly.
# * `Dropout` switches off a random half of the values in every training step, so that no value becomes indispensable.
# * `Dense` with `softmax` turns what was found into ten probabilities that add up to 1.

# %%
keras.utils.set_random_seed(0)

network = keras.Sequential(
    [
        keras.Input((28, 28, 1)),
        keras.layers.Conv2D(32, 3, activation="relu"),
        keras.layers.MaxPooling2D(2),
        keras.layers.Conv2D(64, 3, activation="relu"),
        keras.layers.MaxPooling2D(2),
        keras.layers.Flatten(),
        keras.layers.Dropout(0.5),
        keras.layers.Dense(10, activation="softmax"),
    ]
)
network.summary()

# %% [markdown]
# ## 6. Train
#
# The **loss** is what training makes small: categorical cross-entropy, the surprise at the true label. The three **metrics** are for us:
#
# * **Accuracy**: of all pictures, how many get their highest probability at the right class?
# * **Precision**: of the claims that the network makes, how many are right? Keras counts every probability above 0.5 as a claim.
# * **Recall**: of all true labels, how many are claimed?
#
# While it hesitates, with no probability above 0.5, it makes no claim: recall falls, precision does not. So at first precision lies above recall, and both meet as it gets sure.

# %%
network.compile(
    optimizer="adam",
    loss="categorical_crossentropy",
    metrics=["accuracy", keras.metrics.Precision(name="precision"), keras.metrics.Recall(name="recall")],
)

# %% [markdown]
# Three epochs, that is, three times through all training pictures. The figure is redrawn after each.

# %%
history = network.fit(
    train_images,
    train_labels,
    batch_size=128,
    epochs=3,
    validation_data=(val_images, val_labels),
    callbacks=[fmnist.LiveCurves()],
    verbose=0,
)

# %% [markdown]
# The validation curve lies *above* the training curve. That is no mistake: dropout handicaps the network in training alone, and the training value is an average over an epoch in which it was still getting better.

# %%
{name: round(values[-1], 3) for name, values in history.history.items()}

# %% [markdown]
# ### Two random test pictures
#
# What does it say about two pictures that it has never seen? Run the cell again for two others.

# %%
chosen = np.random.default_rng().choice(len(x_test), size=2, replace=False)
probabilities = network.predict(transform(x_test[chosen]), verbose=0)

figure, axes = plt.subplots(1, 2, figsize=(7, 3.4))
for axis, index, row in zip(axes, chosen, probabilities, strict=True):
    axis.imshow(x_test[index], cmap="gray")
    axis.set_title(f"true: {dataset.class_names[y_test[index]]}\npredicted: {dataset.class_names[row.argmax()]}")
    axis.axis("off")

# %% [markdown]
# ## 7. A stronger network: `fast`
#
# The same steps in one call. The preset `fast` has more convolutions, mirrors and shifts the pictures at random so that it never sees quite the same one twice, and lowers its learning rate along the way. It takes about a minute.
#
# Mind the training curve: an epoch of `fast` is half of the pictures. The first two are halves at random; from the third on it is the half that was *hardest* when last seen, so training accuracy falls, while validation, on all kinds of pictures, goes on rising.

# %%
with fmnist.errors_as_text():
    run = fmnist.train(fmnist.Config.from_preset("fast"), callbacks=[fmnist.LiveCurves()])

# %%
fmnist.load_model(run).summary()

# %% [markdown]
# ## 8. Evaluate
#
# Now, once, the test pictures. The interval says how far chance alone could move the accuracy: with another 10,000 pictures it would probably lie somewhere in there.

# %%
with fmnist.errors_as_text():
    report = fmnist.evaluate(run)

low, high = report["accuracy_interval_95"]
print(f"{report['num_images']:,} test pictures: {report['accuracy']:.2%} right (95 % interval {low:.2%} to {high:.2%})")

# %% [markdown]
# ### Class by class
#
# Here precision and recall are counted for one class at a time. *Precision of Shirt*: of the pictures called Shirt, how many are one? *Recall of Shirt*: of all shirts, how many are called so?

# %%
plots.class_scores(report["per_class"])

# %% [markdown]
# One number for all classes can be made in more than one way, so we say which. **Macro**: the mean over the classes. **Keras'**: all probabilities above 0.5, over all classes at once, the value of the training curves.

# %%
print(f"macro    precision {report['precision_macro']:.2%}   recall {report['recall_macro']:.2%}")
print(f"Keras'   precision {report['keras_precision']:.2%}   recall {report['keras_recall']:.2%}")

# %% [markdown]
# ### Why is Shirt hard?
#
# Every row of the confusion matrix is a true class, every column what the network said. Follow the row of Shirt: its mistakes go to T-shirt/top, Pullover, Coat and Dress, all things with two sleeves or a similar outline, the classes whose mean pictures looked alike.
#
# It is not only the network. The labels come from a shop's catalogue, and at 28 x 28 pixels the buttons that make a shirt a shirt are often gone: asked by a majority of people, only about a quarter of the shirts are called Shirt.

# %%
plots.confusion(report["confusion"], dataset.class_names)

# %% [markdown]
# ### The most confident mistakes
#
# Wrong, and sure of it. Would you have known?

# %%
mistakes = report["mistakes"]
plots.gallery(
    x_test[[mistake["index"] for mistake in mistakes]],
    [f"{mistake['predicted']}, {mistake['probability']:.0%}\ntrue: {mistake['true']}" for mistake in mistakes],
)

# %% [markdown]
# ### Can its probabilities be believed?
#
# Of all answers given with 90 % probability, 90 % should be right. The **expected calibration error** is the mean distance from that.

# %%
print(f"expected calibration error: {report['ece']:.2%}")

# %% [markdown]
# ### Two random test pictures, again

# %%
samples = report["samples"]
plots.samples(x_test[[sample["index"] for sample in samples]], samples, dataset.class_names)

# %% [markdown]
# ## 9. Ask it yourself
#
# A finished run is a folder with everything in it. `Classifier` opens its `model.onnx`, which needs neither Keras nor TensorFlow.

# %%
classifier = fmnist.Classifier.load(run)
answer = classifier.classify(x_test[0])
[(item["label"], round(item["probability"], 3)) for item in answer["top"][:3]]

# %% [markdown]
# How sure can we be, in general? Wilson's interval for a network that gets 94 of 100 pictures right, and for one that gets 9,400 of 10,000:

# %%
metrics.wilson_interval(94, 100), metrics.wilson_interval(9_400, 10_000)

# %% [markdown]
# ## 10. A photo
#
# A photo is no picture of the data set: it has colours, a background and any size. `photo.convert` finds the garment and renders it as the data set's makers did: cut out, longest edge 28, centred, bright on black. Here the "photo" is a picture that the network knows, enlarged and laid on a brown table. Take one of your own instead: `photo.read(Path("photo.jpg"))`.
#
# The model that answers is the one that comes with the package, `Classifier.load()` without a run: it was trained with pictures that are disturbed as photos are. Below a threshold its answer is "not sure".

# %%
garment = Image.fromarray(x_train[0]).resize((420, 420), Image.Resampling.BICUBIC)
table = np.random.default_rng(0).normal((150, 110, 80), 6, (560, 560, 3)).clip(0, 255).astype(np.uint8)
picture = Image.fromarray(table)
picture.paste(
    Image.eval(garment, lambda value: 200 - value // 2), (70, 70), garment.point(lambda value: 255 * (value > 20))
)

conversion = photo.convert(picture)
answer = fmnist.Classifier.load().answer(conversion)
plots.conversion(conversion.steps, answer)

# %% [markdown]
# ## 11. What to try next
#
# * Train the textbook network for 12 epochs instead of 3. Where does the validation curve level off?
# * Take the `Dropout` layer away. What happens to the distance between the two curves?
# * `fmnist.Config.from_preset("fast", flip=False, shift=0)`: how much do the random changes to the pictures bring?
# * `fmnist.Config.from_preset("fast", visited=1.0, epochs=5)`: as many pictures, but all of them, five times. How much do the hard ones bring?
# * `fmnist.Config.from_preset("fast", seed=1)`: how much does the result change by chance alone? Compare that with every other difference that you see.
# * In a terminal, `fmnist evaluate` writes the whole report of the newest run as a page.

# %% [markdown]
# # Fashion-MNIST, from pixels to a prediction
#
# 70,000 small gray pictures of clothes, ten classes, and one question: which class does a picture show that the network has never seen?
# We load the data, explore it, transform it, build a convolutional neural network, train it, and test it. All of it runs on a laptop in a few minutes.
#
# Run the cells from top to bottom. The first half is plain Keras, written out. The second half lets the package `fmnist` do the same steps with a stronger network.

# %% [markdown]
# ## 1. Packages
#
# Keras builds and trains networks, NumPy holds the arrays, Matplotlib draws. TensorFlow, which Keras computes with, may print a line or two about "oneDNN". That is not an error.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

import fmnist
from fmnist import metrics, plots
from fmnist.data.dataset import split_dataset
from fmnist.evaluation import explore

# %matplotlib inline

# %% [markdown]
# An error in a block that begins with `fmnist.errors_as_text()` is printed as one line of text, and the next cell still runs. It looks like this:

# %%
with fmnist.errors_as_text():
    fmnist.load("a/folder/that/does/not/exist")

# %% [markdown]
# ## 2. Load
#
# `fmnist.load()` finds the data set or downloads it, verifies every byte, and stores the files where Keras looks for them. So the next cell works without a network, and never loads a damaged download.

# %%
with fmnist.errors_as_text():
    dataset = fmnist.load()

# %%
(x_train, y_train), (x_test, y_test) = keras.datasets.fashion_mnist.load_data()

x_train.shape, y_train.shape, x_test.shape, y_test.shape

# %% [markdown]
# The **training** images are for learning. The **test** images are not used until the end: only pictures that the network has never seen show how good it is.

# %% [markdown]
# ## 3. Explore
#
# One picture is 28 x 28 integers from 0 (black) to 255 (white). One label is an integer from 0 to 9.

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
# Is every class equally frequent? If one class made up 90 % of the pictures, a network that always predicts it would have an accuracy of 90 %.

# %%
summary = explore.summarize(dataset)
plots.class_counts({name: part["class_counts"] for name, part in summary["parts"].items()}, dataset.class_names)

# %% [markdown]
# The mean picture of every class. Pullover, Coat and Shirt have nearly the same outline. This will matter later.

# %%
plots.class_means(x_train, y_train, dataset.class_names)

# %% [markdown]
# Half of all pixels are background. (The vertical axis is logarithmic.)

# %%
plots.pixel_histogram(summary["pixel_histogram"])

# %% [markdown]
# Each picture as a single point: principal component analysis finds the two directions in which the 784 pixel values vary most. Shoes, trousers and tops are separate clusters. The classes of tops overlap.

# %%
plots.projection(explore.project(x_train[:3000]), y_train[:3000], dataset.class_names)

# %% [markdown]
# ## 4. Transform
#
# First we set some training pictures aside for **validation**: they show during training how good the network is on pictures that it does not learn from. The split is *stratified*: every class has the same share of both parts.

# %%
parts = split_dataset(dataset, seed=0)
len(parts.train_images), len(parts.val_images)

# %% [markdown]
# Then three changes:
#
# * **Type and range.** Networks compute with small floating-point numbers: integers from 0 to 255 become `float32` from 0 to 1.
# * **Channel axis.** Convolutions expect (height, width, channels). A gray picture has one channel, so 28 x 28 becomes 28 x 28 x 1.
# * **One-hot labels.** The classes have no order: "9" is not more than "3". So label 3 becomes a row of ten numbers, all 0 except a 1 at position 3. The network's output has the same shape, ten probabilities, so the two can be compared number by number.


# %%
def transform(images):
    return images.astype("float32")[..., np.newaxis] / 255


train_images, train_labels = transform(parts.train_images), keras.utils.to_categorical(parts.train_labels, 10)
val_images, val_labels = transform(parts.val_images), keras.utils.to_categorical(parts.val_labels, 10)

train_images.shape, train_images.dtype, train_labels.shape

# %% [markdown]
# The first picture before and after. It looks the same; only the scale has changed.

# %%
plots.transformation(parts.train_images[0], train_images[0], int(parts.train_labels[0]), train_labels[0])

# %% [markdown]
# ## 5. Build
#
# `Sequential` is a stack of layers: the output of one layer is the input of the next.
#
# * `Conv2D` slides small filters over the picture, each looking for one pattern: an edge, a corner, later a collar.
# * `MaxPooling2D` keeps the strongest response of every 2 x 2 square. The output is smaller, and depends less on exact positions.
# * `Dropout` sets a random half of the values to 0 in every training step, so that the network does not depend on single values.
# * `Dense` with `softmax` converts the values to ten probabilities that add up to 1.

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
# The **loss** is what training minimizes: categorical cross-entropy, which is high if the true label has a low probability. The three **metrics** are for people:
#
# * **Accuracy**: for how many of all pictures has the correct class the highest probability?
# * **Precision**: how many of the positive predictions are correct? Keras counts every probability above 0.5 as a positive prediction.
# * **Recall**: how many of the true labels are predicted in this way?
#
# A picture without a probability above 0.5 has no positive prediction. This lowers recall, but not precision. So at first precision is above recall, and they converge as the probabilities become higher.

# %%
network.compile(
    optimizer="adam",
    loss="categorical_crossentropy",
    metrics=["accuracy", keras.metrics.Precision(name="precision"), keras.metrics.Recall(name="recall")],
)

# %% [markdown]
# We train for three epochs. In an epoch the network sees every training picture once. The figure is redrawn after each epoch.

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
# The validation curve is *above* the training curve. This is not a mistake: dropout is active only in training, and the training value is an average over an epoch in which the network was still improving.

# %%
{name: round(values[-1], 3) for name, values in history.history.items()}

# %% [markdown]
# ### Two random test pictures
#
# What does the network predict for two pictures that it has never seen? Run the cell again for two others.

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
# The same steps in one call. The preset `fast` has more convolutions, mirrors and shifts the pictures at random (augmentation), and lowers the learning rate during training. It takes about a minute.
#
# An epoch of `fast` uses half of the pictures: in the first two epochs random halves, from the third on the half with the highest loss when last trained on. So training accuracy falls at the third epoch, while validation accuracy, on all kinds of pictures, keeps rising.

# %%
with fmnist.errors_as_text():
    run = fmnist.train(fmnist.Config.from_preset("fast"), callbacks=[fmnist.LiveCurves()])

# %%
fmnist.load_model(run).summary()

# %% [markdown]
# ## 8. Evaluate
#
# Now the test pictures are used, once. The interval shows how much chance alone can change the accuracy: with another 10,000 pictures it would probably be within the interval.

# %%
with fmnist.errors_as_text():
    evaluation = fmnist.evaluate(run)

low, high = evaluation["accuracy_interval_95"]
print(
    f"{evaluation['num_images']:,} test pictures: {evaluation['accuracy']:.2%} right (95 % interval {low:.2%} to {high:.2%})"
)

# %% [markdown]
# ### Class by class
#
# Here precision and recall are computed for each class. *Precision of Shirt*: how many of the pictures predicted as Shirt are shirts? *Recall of Shirt*: how many of the shirts are predicted as Shirt?

# %%
plots.class_scores(evaluation["per_class"])

# %% [markdown]
# There is more than one way to average over the classes. **Macro**: the mean of the values of each class. **Keras'**: all probabilities above 0.5, over all classes together, as in the training curves.

# %%
print(f"macro    precision {evaluation['precision_macro']:.2%}   recall {evaluation['recall_macro']:.2%}")
print(f"Keras'   precision {evaluation['keras_precision']:.2%}   recall {evaluation['keras_recall']:.2%}")

# %% [markdown]
# ### Why is Shirt hard?
#
# Every row of the confusion matrix is a true class, every column a predicted class. In the row of Shirt, the mistakes are T-shirt/top, Pullover, Coat and Dress: garments with a similar outline, the classes whose mean pictures looked alike.
#
# This is not only due to the network. The labels come from a shop's catalog, and at 28 x 28 pixels the buttons of a shirt are often not visible: by a majority vote of people, only about a quarter of the shirts are labeled Shirt.

# %%
plots.confusion(evaluation["confusion"], dataset.class_names)

# %% [markdown]
# ### The most confident mistakes
#
# Wrong predictions with a high probability. Would you have recognized them?

# %%
mistakes = evaluation["mistakes"]
plots.gallery(
    x_test[[mistake["index"] for mistake in mistakes]],
    [f"{mistake['predicted']}, {mistake['probability']:.0%}\ntrue: {mistake['true']}" for mistake in mistakes],
)

# %% [markdown]
# ### Are the probabilities calibrated?
#
# Of all predictions with a probability of 90 %, 90 % should be correct. The **expected calibration error** is the mean difference from that.

# %%
print(f"expected calibration error: {evaluation['ece']:.2%}")

# %% [markdown]
# ### Two random test pictures, again

# %%
samples = evaluation["samples"]
plots.samples(x_test[[sample["index"] for sample in samples]], samples, dataset.class_names)

# %% [markdown]
# ## 9. Predict
#
# A finished run is a folder with all of its files. `Classifier` opens its `model.onnx`, which needs neither Keras nor TensorFlow.

# %%
classifier = fmnist.Classifier.load(run)
prediction = classifier.classify(x_test[0])
[(row.label, round(row.probability, 3)) for row in prediction.top[:3]]

# %% [markdown]
# How precise is a measured accuracy? The 95 % interval (Wilson) for a network with 94 of 100 correct predictions, and for one with 9,400 of 10,000:

# %%
metrics.accuracy_interval(94, 100), metrics.accuracy_interval(9_400, 10_000)

# %% [markdown]
# ## 10. A photo
#
# A photo differs from the pictures of the data set: it has colors, a background and any size. `classify` segments the garment and renders it as the authors of the data set did: cropped, longest edge 28, centered, bright on black. Here the "photo" is a training picture, enlarged and placed on a brown table. Try a photo of your own: `classify("photo.jpg")`.
#
# `Classifier.load()` without a run loads the pretrained model, which comes with the package. It was trained with photo augmentation. If the confidence is below a threshold, the result is "not sure".

# %%
garment = Image.fromarray(x_train[0]).resize((420, 420), Image.Resampling.BICUBIC)
table = np.random.default_rng(0).normal((150, 110, 80), 6, (560, 560, 3)).clip(0, 255).astype(np.uint8)
picture = Image.fromarray(table)
picture.paste(
    Image.eval(garment, lambda value: 200 - value // 2), (70, 70), garment.point(lambda value: 255 * (value > 20))
)

plots.prediction(fmnist.Classifier.load().classify(picture))

# %% [markdown]
# ## 11. What to try next
#
# * Train the textbook network for 12 epochs instead of 3. Where does the validation curve level off?
# * Remove the `Dropout` layer. How does the distance between the two curves change?
# * `fmnist.Config.from_preset("fast", flip=False, shift=0)`: how much does augmentation improve the accuracy?
# * `fmnist.Config.from_preset("fast", hard_example_fraction=1.0, epochs=5)`: about as many training steps, but on all pictures, five times. How much do the hard examples improve the accuracy?
# * `fmnist.Config.from_preset("fast", seed=1)`: how much does the result change by chance alone? Compare this with every other difference.
# * In a terminal, `fmnist evaluate` writes a complete report of the newest run as an HTML page.

"""All config fields: meaning, unit, possible values and default. Every other config changes some of these values.

    python -m lgg_jax train --config=configs/default.py --workdir=W --config.data.dir=DIR --config.train.epochs=50

Every field can be set on the command line: `--config.optimizer.learning_rate=3e-4`. Write a tuple in quotes:
`--config.data.channels="('flair', 't1ce')"`. lgg_jax/config.py has the permitted range of each number. "" and () mean
"not set".

The default of a new field must keep the previous behaviour: a run that is older than the field is read with this
default.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """A U-Net with 32 features on 256 × 256 pixels, BCE + soft Dice loss, Adam with learning rate 1e-4."""
    config = ConfigDict()
    # "segmentation" (a mask), "classification" (a label of each slice, see data.target) or "joint" (mask and grade).
    config.task = "segmentation"
    config.seed = 0  # random seed, 0 to 2^32 - 1: of the split, initial weights, shuffling, augmentation and dropout
    config.init_from = ""  # workdir of a run to fine-tune: this run starts from its best weights and keeps its split

    config.data = ConfigDict()
    config.data.dir = ""  # the data folder, which holds the patient folders
    config.data.cache_dir = ""  # folder for the prepared TFDS data set; "": $LGG_JAX_CACHE, else ~/.cache/lgg_jax
    # Input sequences, in the order of the network's channels: different ones of "t1", "flair", "t1ce" and "t2" (which
    # BraTS has). A missing sequence is replaced by FLAIR. Networks with a ResNet50 take exactly three.
    config.data.channels = ("t1", "flair", "t1ce")
    # Side of the network grid in pixels: a multiple of 2^(model.levels - 1); of 32 for "unet_resnet50".
    config.data.size = 256
    config.data.crop = True  # True: crop to a square around the head of the whole volume; False: use the whole image
    # Number of neighbouring slices on each side that the network takes as additional channels; 0 with a ResNet50.
    config.data.context = 0
    # Share of the training examples that are sampled from slices with tumour, 0 to 1; all others are sampled from all
    # slices. 0: every slice is equally likely.
    config.data.tumour_fraction = 0.5
    config.data.target = "presence"  # label of a classifier: "presence" of tumour in a slice, or "grade" (III or II)
    # Input region of a classifier: "slice" (the head); for the grade also "masked" (as "slice", but 0 outside of the
    # tumour and a small margin) or "crop" (a square around the tumour).
    config.data.region = "slice"
    # Workdir of a segmentation run, for a classifier of the grade: its predicted masks give the region and the mask
    # features of all patients that are not used for training. "": ground-truth masks.
    config.data.segmentation_workdir = ""
    # Masks of the training patients: "true" (ground truth) or "predicted" (by the run in segmentation_workdir).
    config.data.train_masks = "true"
    # Additional input of a classifier, by name: clinical values ("age", "gender", "laterality", "tumor_location",
    # "race", "ethnicity") and mask features (lgg_jax/data/mask_features.py, for the grade only). Do not use
    # "histological_type": it is determined from the same specimen as the grade, so that it leaks the label.
    config.data.tabular = ()
    # The split is the first that is set of: init_from, splits, validation_patients, split_by="slice",
    # segmentation_workdir (without folds), folds. If none is set, a new split by patient is made.
    config.data.split_by = "patient"  # "patient", or "slice" to show how much it leaks: patients are in several sets
    config.data.splits = ""  # path of the splits.json to use
    config.data.test_fraction = 0.2  # share of the patients in the test set, at least 0 and below 1; unused with folds
    config.data.validation_fraction = 0.1  # share of all patients in the validation set, above 0 and below 1
    # Patients of the validation set; all others are used for training, and the test set is empty. Names that the data
    # does not have are ignored.
    config.data.validation_patients = ()
    config.data.folds = 0  # number k of folds for cross-validation; 0: no cross-validation
    config.data.fold = 0  # the fold that is the test set, 0 to k - 1

    # Random augmentation of the training slices. Probabilities are from 0 (never) to 1 (every example). Intensities are
    # in units of the normalised input: 1 is a (robust) standard deviation of the brain in the whole volume. With a
    # frozen backbone there is no augmentation, because its features are computed only once.
    config.augment = ConfigDict()
    config.augment.rotation_degrees = 15.0  # largest rotation angle in degrees, in both directions
    config.augment.flip_horizontal = 0.5  # probability of a left-right flip
    config.augment.flip_vertical = 0.0  # probability of an up-down flip
    # Smallest and largest side of the random window, in sides of the slice: below 1 enlarges, above 1 shrinks.
    config.augment.crop_scale = (0.8, 1.1)
    config.augment.brightness = 0.2  # largest shift of a channel's intensities, up or down
    config.augment.contrast = 0.2  # largest deviation of a channel's intensity factor from 1, at least 0 and below 1
    config.augment.bias_field = 0.0  # probability of a smooth additive field, as an inhomogeneous coil causes it
    config.augment.bias_field_deviation = 0.3  # standard deviation of that field
    config.augment.elastic = 0.3  # probability of an elastic deformation
    config.augment.elastic_share = 0.02  # standard deviation of its displacement, in sides of the slice
    config.augment.carve_mix = 0.0  # probability of CarveMix, which pastes in another slice's tumour; segmentation only
    config.augment.missing_sequence = 0.1  # probability that FLAIR replaces one or more of the other sequences

    config.model = ConfigDict()
    # Masks: "unet", "attention_unet", "residual_unet" or "unet_resnet50" (a U-Net with a ResNet50 as its encoder).
    # Labels: "classifier" (a ResNet50) or "linear" (a linear model of data.tabular alone).
    config.model.name = "unet"
    # Channels at full resolution; they double at each level (in the decoder of "unet_resnet50" only up to 16 times).
    config.model.features = 32
    config.model.levels = 5  # number of resolutions of a U-Net; each is half of the one before
    config.model.norm = "batch"  # "batch" (BatchNorm), or for U-Nets without a ResNet50 "group" (GroupNorm, 8 groups)
    config.model.dropout = 0.0  # dropout rate, at least 0 and below 1; in U-Nets whole channels are dropped
    config.model.dtype = "float32"  # precision of the computation: "float32", or "bfloat16" for TPUs and recent GPUs
    config.model.pretrained = ""  # weights of a ResNet50, as `convert` writes them; "": random initial weights
    config.model.hidden = (256,)  # widths of the fully connected hidden layers of "classifier" and of the grade head
    config.model.fixed_norm = ()  # modules whose BatchNorm statistics are not updated in training, like ("backbone",)
    config.model.grade_head = False  # True: add a classifier of the grade to the deepest features of "unet_resnet50"
    # Conventions of the weights of a ResNet50. With model.pretrained they are read from the file.
    config.model.stride_on_first = False  # convolution of a block with the stride: True: first (Keras); False: second
    config.model.norm_epsilon = 1e-5  # epsilon of BatchNorm
    config.model.input_order = "RGB"  # order of the input channels: "RGB", or "BGR" (reversed)
    config.model.input_scale = (1.0, 1.0, 1.0)  # factors of the normalised input channels, in that order

    # The loss is the weighted sum of the terms bce, dice and focal_tversky (for masks) and label (for labels). Their
    # weights are at least 0; 0 leaves the term out. All other numbers in config.loss are above 0.
    config.loss = ConfigDict()
    config.loss.bce = 1.0  # weight of the mask's binary cross-entropy
    config.loss.dice = 1.0  # weight of the soft Dice loss
    config.loss.focal_tversky = 0.0  # weight of the focal Tversky loss
    config.loss.positive_weight = 1.0  # weight of a tumour pixel in the mask's cross-entropy; other pixels have 1
    config.loss.label = 1.0  # weight of the label's binary cross-entropy, in task "classification" or "joint"
    config.loss.label_positive_weight = 1.0  # weight of a slice with positive label in it; other slices have 1
    config.loss.tversky_alpha = 0.3  # weight of false positives in the focal Tversky loss
    config.loss.tversky_beta = 0.7  # weight of false negatives in the focal Tversky loss
    config.loss.tversky_gamma = 0.75  # exponent of the focal Tversky loss

    config.optimizer = ConfigDict()
    config.optimizer.name = "adam"  # "adam" or "adamw"
    config.optimizer.learning_rate = 1e-4  # learning rate after the warm-up, before any decay
    config.optimizer.weight_decay = 0.0  # weight decay of convolution and dense kernels; "adamw" only
    config.optimizer.schedule = "constant"  # learning-rate schedule: "constant" or "cosine" (to 0 at the last step)
    config.optimizer.warmup_steps = 0  # steps in which the learning rate rises linearly from 0
    config.optimizer.clip_norm = 0.0  # largest norm of the gradient of all parameters; 0: no gradient clipping
    config.optimizer.accumulation = 1  # gradient accumulation: parts into which a batch is divided to save memory
    config.optimizer.ema_decay = 0.0  # decay of the EMA of the weights, below 1; evaluation uses the EMA; 0: no EMA
    config.optimizer.backbone_rate = 1.0  # factor on the learning rate of the ResNet50, the module "backbone"
    config.optimizer.frozen = ()  # modules that are not trained, such as ("backbone",) or ("backbone/conv_stem",)

    config.train = ConfigDict()
    config.train.batch_size = 16  # slices in a global batch, over all devices of all hosts
    # Length of the training: set exactly one of these three.
    config.train.num_steps = 0  # optimizer steps
    config.train.epochs = 0.0  # epochs; one epoch has as many examples as there are training slices
    config.train.minutes = 0.0  # minutes; converted to steps once, from the measured speed, and saved in length.json
    config.train.start_size = 0  # a smaller side of the grid in pixels for the first steps, for speed; 0: data.size
    config.train.start_share = 0.75  # share of the steps that use start_size, 0 to 1
    config.train.log_every = 50  # steps between two log entries
    config.train.eval_every = 500  # steps between two validations
    config.train.checkpoint_every = 500  # steps between two checkpoints
    config.train.patience = 0  # early stopping after so many validations without a new best score; 0: no early stopping

    # Inference and post-processing. "choose": the value with the best score on the validation set.
    config.eval = ConfigDict()
    config.eval.batch_size = 16  # slices in a batch
    # Multi-scale inference: the probability is averaged over the grid of data.size pixels and grids with these numbers
    # of pixels more on each side, such as (16, 32).
    config.eval.finer = ()
    config.eval.flip_tta = "choose"  # test-time augmentation, averaging with the mirrored slice: "on", "off", "choose"
    # Keep one connected component: of the large ones, the one with the highest mean log-odds. "on", "off", "choose".
    config.eval.largest_component = "choose"
    config.eval.fill_holes = "choose"  # fill the holes of the mask in each slice: "on", "off", "choose"
    config.eval.threshold = 0.0  # threshold of the probability, above 0 and below 1; 0: chosen on the validation set
    return config

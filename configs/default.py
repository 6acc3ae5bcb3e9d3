"""Every field there is, with its meaning; the other configs override a few.

    python -m lgg_jax train --config=configs/default.py --workdir=W --config.data.dir=DIR --config.train.epochs=50

A field that is added here is given the value that means "as before": runs that are older than it are read so.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The defaults: a U-Net of 32 features on 256 × 256 pixels, BCE + soft Dice, Adam 1e-4."""
    config = ConfigDict()
    config.task = "segmentation"
    config.seed = 0  # of the split, the weights, the order and the augmentation
    config.init_from = ""  # a workdir whose best weights this run starts from (a fine-tuning phase)

    config.data = ConfigDict()
    config.data.dir = ""  # the folder that holds the patient folders
    config.data.cache_dir = ""  # where the TFDS data set goes; "" is $LGG_JAX_CACHE or ~/.cache/lgg_jax
    config.data.channels = ("t1", "flair", "t1ce")  # sequences the network sees, in this order; BraTS has "t2" as well
    config.data.size = 256  # pixels along each side of the network's grid; a multiple of 2^(levels - 1)
    config.data.crop = True  # to the square around the head of the whole volume; False: the whole image
    config.data.context = 0  # slices before and after that the network sees beside each one, as more channels
    config.data.tumour_fraction = 0.5  # of the examples drawn from slices with tumour; 0: all slices alike
    config.data.target = "presence"  # what a classifier says: a slice shows tumour; or "grade": III rather than II
    config.data.region = "slice"  # what it sees: the head; "masked": the tumour in it; "crop": the square around it
    config.data.segmentation_workdir = ""  # its predicted masks make the region of every patient that is scored
    config.data.train_masks = "true"  # and "predicted" those of the patients it is trained on as well
    # Clinical values (age, gender, laterality, tumor_location) and mask features that go in beside the image, by name.
    # Not histological_type: it is read from the specimen that the grade is read from, so it is the answer in disguise.
    config.data.tabular = ()
    config.data.split_by = "patient"  # "slice" deals slices of one patient to all sets: it leaks, and shows how much
    config.data.splits = ""  # a splits.json to use; "": split by patient, as below
    config.data.test_fraction = 0.2
    config.data.validation_fraction = 0.1
    config.data.validation_patients = ()  # these validate, as far as they are there, all others train; no test set
    config.data.folds = 0  # k > 0: test is fold `fold` of k
    config.data.fold = 0

    config.augment = ConfigDict()
    config.augment.rotation_degrees = 15.0  # up to this, either way
    config.augment.flip_horizontal = 0.5  # probability
    config.augment.flip_vertical = 0.0
    config.augment.crop_scale = (0.8, 1.1)  # of the random resized crop's window, in sides
    config.augment.brightness = 0.2  # shift up to this, in standard deviations of the volume
    config.augment.contrast = 0.2  # factor up to 1 ± this
    config.augment.bias_field = 0.0  # probability
    config.augment.bias_field_deviation = 0.3  # of the smooth field that is then added, in those of the volume
    config.augment.elastic = 0.3  # probability
    config.augment.elastic_share = 0.02  # standard deviation of the displacement, as a share of the side
    config.augment.carve_mix = 0.0  # probability that another slice's tumour is pasted in (task segmentation)
    config.augment.missing_sequence = 0.1  # probability that FLAIR stands in for one or both others

    config.model = ConfigDict()
    config.model.name = "unet"  # "unet_resnet50"; "classifier" (a ResNet50); "linear" (of data.tabular alone)
    config.model.features = 32
    config.model.levels = 5
    config.model.norm = "batch"  # or "group"
    config.model.dropout = 0.0
    config.model.dtype = "float32"  # of the computation; "bfloat16" on TPU and recent GPUs
    config.model.pretrained = ""  # a converted weights file of a ResNet50; the plain U-Net has none
    config.model.hidden = (256,)  # widths of the classifier's fully connected layers
    config.model.fixed_norm = ()  # modules whose BatchNorm keeps its statistics, such as ("backbone",)
    config.model.grade_head = False  # of "unet_resnet50": a classifier on its deepest features
    # What the weights of a ResNet50 expect; taken from the file where `pretrained` names one.
    config.model.stride_on_first = False
    config.model.norm_epsilon = 1e-5
    config.model.input_order = "RGB"
    config.model.input_scale = (1.0, 1.0, 1.0)  # of normalised slices, in that order

    config.loss = ConfigDict()  # the weighted sum of
    config.loss.bce = 1.0
    config.loss.dice = 1.0
    config.loss.focal_tversky = 0.0
    config.loss.positive_weight = 1.0  # of a tumour pixel in the BCE
    config.loss.label = 1.0  # the BCE of a classifier's answer
    config.loss.label_positive_weight = 1.0  # of a positive answer in it
    config.loss.tversky_alpha = 0.3  # weight of false alarm
    config.loss.tversky_beta = 0.7  # weight of missed tumour
    config.loss.tversky_gamma = 0.75

    config.optimizer = ConfigDict()
    config.optimizer.name = "adam"  # or "adamw"
    config.optimizer.learning_rate = 1e-4
    config.optimizer.weight_decay = 0.0  # of kernels, adamw only
    config.optimizer.schedule = "constant"  # or "cosine", to zero at the last step
    config.optimizer.warmup_steps = 0
    config.optimizer.clip_norm = 0.0  # of the global gradient; 0: none
    config.optimizer.accumulation = 1  # parts the batch is computed in, one after the other
    config.optimizer.ema_decay = 0.0  # of the averaged weights that are evaluated; 0: none
    config.optimizer.backbone_rate = 1.0  # the learning rate of module "backbone", as a share of all others'
    config.optimizer.frozen = ()  # modules that stay as they are, such as ("encoder0", "backbone/conv_stem")

    config.train = ConfigDict()
    config.train.batch_size = 16  # over all devices of all hosts
    config.train.num_steps = 0  # the length: exactly one of steps,
    config.train.epochs = 0.0  # passes over as many slices as there are,
    config.train.minutes = 0.0  # or minutes, turned into steps once from the measured rate (length.json)
    config.train.start_size = 0  # pixels along each side in the first steps, for speed; 0: data.size from the first
    config.train.start_share = 0.75  # of the steps that are so
    config.train.log_every = 50
    config.train.eval_every = 500
    config.train.checkpoint_every = 500
    config.train.patience = 0  # validations without a new best until the run stops early; 0: never

    config.eval = ConfigDict()
    config.eval.batch_size = 16
    config.eval.finer = ()  # the outline is the mean over the grid of data.size and those of so many pixels more
    config.eval.flip_tta = "choose"  # mean over left-right flips: "on", "off", or chosen on validation
    config.eval.largest_component = "choose"  # of large connected parts keep only the surest: likewise
    config.eval.fill_holes = "choose"  # what a slice's outline encloses belongs to the tumour: likewise
    config.eval.threshold = 0.0  # of the probability; 0: chosen on validation
    return config
